import numpy as np
import pytest

from latlas_latency.profiler_cost import fit_profiler_cost


def networks(rng, n=30):
    """Plain latency (ns) and node count of networks of different size and depth."""
    return rng.uniform(1e6, 1e7, n), rng.integers(30, 90, n)


@pytest.mark.parametrize("node_share", [1.0, 0.94])
def test_the_cost_per_node_is_recovered(node_share):
    rng = np.random.default_rng(0)
    plain, nodes = networks(rng)
    sums = (node_share * (plain - 20_000) + 4_000 * nodes) * np.exp(
        rng.normal(0, 0.002, len(plain))
    )
    cost = fit_profiler_cost(sums, nodes, plain)
    assert cost.per_node_ns == pytest.approx(4_000, rel=0.15)
    assert cost.node_share == pytest.approx(node_share, abs=0.01)
    assert cost.n_networks == 30


def test_a_constant_per_run_is_told_from_the_cost_per_node():
    plain, nodes = networks(np.random.default_rng(1))
    cost = fit_profiler_cost((plain - 50_000) + 3_000 * nodes, nodes, plain)
    # Drawn a little towards 0, as is stated.
    assert cost.per_run_ns == pytest.approx(50_000, rel=0.12)
    assert cost.per_node_ns == pytest.approx(3_000, rel=0.05)


def test_costs_are_never_negative():
    plain, nodes = networks(np.random.default_rng(2))
    cost = fit_profiler_cost(plain - 2_000 * nodes, nodes, plain)
    assert cost.per_node_ns == 0
    assert cost.per_run_ns >= 0


def test_an_outlying_network_hardly_counts():
    rng = np.random.default_rng(3)
    plain, nodes = networks(rng)
    sums = (plain + 4_000 * nodes) * np.exp(rng.normal(0, 0.002, len(plain)))
    clean = fit_profiler_cost(sums, nodes, plain).per_node_ns
    sums[4] *= 1.5
    assert fit_profiler_cost(sums, nodes, plain).per_node_ns == pytest.approx(clean, rel=0.1)


def test_networks_of_one_depth_still_give_a_cost_per_node():
    plain, _ = networks(np.random.default_rng(4))
    cost = fit_profiler_cost(plain + 4_000 * 57, np.full(len(plain), 57), plain)
    assert cost.per_node_ns == pytest.approx(4_000, rel=0.05)


def test_wild_noise_on_networks_of_one_depth_gives_no_wild_cost():
    rng = np.random.default_rng(5)
    plain, nodes = rng.uniform(3e6, 4e7, 36), rng.integers(154, 156, 36)
    sums = plain * np.exp(rng.normal(0, 0.6, 36))
    cost = fit_profiler_cost(sums, nodes, plain, shortest_node_ns=3_000)
    assert 0 <= cost.per_node_ns <= 3_000
    assert cost.per_run_ns < 0.1 * np.median(plain)


def test_no_node_is_shorter_than_its_cost():
    plain, nodes = networks(np.random.default_rng(6))
    cost = fit_profiler_cost(plain + 4_000 * nodes, nodes, plain, shortest_node_ns=2_500)
    assert cost.per_node_ns == 2_500


def test_without_unprofiled_networks_nothing_is_known():
    cost = fit_profiler_cost((), (), ())
    assert (cost.per_node_ns, cost.per_run_ns, cost.n_networks) == (0, 0, 0)
