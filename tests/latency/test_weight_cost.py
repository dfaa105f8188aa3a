"""What weights cost the rest of a network, found from whole networks."""

import numpy as np
import pytest

from latlas_latency.weight_cost import LEAST_NETWORKS, fit_weight_cost

RNG = np.random.default_rng(0)
SUM_MS = RNG.uniform(3, 12, 120)
WEIGHT_MB = RNG.uniform(12, 32, 120)


def latencies(cost, constant=-0.5, slope=1.05, noise=0.0):
    rng = np.random.default_rng(1)
    return (constant + slope * (SUM_MS + cost * WEIGHT_MB)) * np.exp(rng.normal(0, noise, 120))


def test_the_cost_is_found():
    assert fit_weight_cost(SUM_MS, WEIGHT_MB, latencies(0.03)) == pytest.approx(0.03, rel=0.02)


def test_noise_and_bursts_move_it_little():
    noisy = latencies(0.03, noise=0.02)
    noisy[::20] *= 1.5
    assert fit_weight_cost(SUM_MS, WEIGHT_MB, noisy) == pytest.approx(0.03, rel=0.25)


def test_where_weights_make_no_difference_they_cost_next_to_nothing():
    found = fit_weight_cost(SUM_MS, WEIGHT_MB, latencies(0.0, noise=0.01))
    # On a network of 7 ms with 22 MB this is far below the noise.
    assert found * 22 < 0.01 * 7


def test_weights_never_make_a_network_faster():
    assert fit_weight_cost(SUM_MS, WEIGHT_MB, latencies(-0.02)) == 0.0


def test_too_little_to_tell_from_means_no_cost():
    few = LEAST_NETWORKS - 1
    assert fit_weight_cost(SUM_MS[:few], WEIGHT_MB[:few], latencies(0.03)[:few]) == 0.0
    assert fit_weight_cost(SUM_MS, np.full(120, 20.0), latencies(0.03)) == 0.0
