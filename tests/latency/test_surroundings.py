"""What ops cost their network beyond their node times, found from whole networks."""

import numpy as np
import pytest

from latlas_latency.surroundings import LEAST_NETWORKS, SurroundingsCost, fit_surroundings_cost

RNG = np.random.default_rng(0)
N = 120
SUM_MS = RNG.uniform(3, 12, N)
WEIGHT_MB = RNG.uniform(12, 32, N)
N_NODES = RNG.integers(80, 160, N)


def latencies(per_mb=0.03, per_node=0.002, noise=0.0):
    rng = np.random.default_rng(1)
    ideal = -0.5 + 1.05 * (SUM_MS + per_mb * WEIGHT_MB + per_node * N_NODES)
    return ideal * np.exp(rng.normal(0, noise, N))


def fit(latency_ms, n=N):
    return fit_surroundings_cost(SUM_MS[:n], WEIGHT_MB[:n], N_NODES[:n], latency_ms[:n])


def test_both_costs_are_found():
    found = fit(latencies())
    assert found.per_weight_mb_ms == pytest.approx(0.03, rel=0.03)
    assert found.per_node_ms == pytest.approx(0.002, rel=0.03)
    assert fit(latencies(per_node=-0.002)).per_node_ms == pytest.approx(-0.002, rel=0.03)


def test_noise_and_bursts_move_them_little():
    noisy = latencies(noise=0.02)
    noisy[::20] *= 1.5
    found = fit(noisy)
    assert found.per_weight_mb_ms == pytest.approx(0.03, rel=0.3)
    assert found.per_node_ms == pytest.approx(0.002, rel=0.5)


def test_where_there_is_nothing_next_to_nothing_is_charged():
    found = fit(latencies(0.0, 0.0, noise=0.01))
    # On a network of 7 ms with 22 MB in 120 nodes this is below the noise.
    assert found.per_weight_mb_ms * 22 + abs(found.per_node_ms) * 120 < 0.01 * 7


def test_weights_never_make_a_network_faster():
    assert fit(latencies(per_mb=-0.02)).per_weight_mb_ms == 0.0


def test_too_little_to_tell_from_means_no_cost():
    assert fit(latencies(), LEAST_NETWORKS - 1) == SurroundingsCost()
    alike = fit_surroundings_cost(SUM_MS, np.full(N, 20.0), np.full(N, 100), latencies())
    assert alike == SurroundingsCost()
