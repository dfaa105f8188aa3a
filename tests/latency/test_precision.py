"""How much of an error is noise of visits: told from visits, as a simulation shows it."""

import math

import numpy as np
import pytest

from latlas_latency.entries import TableEntry
from latlas_latency.measurement import PROFILED, WHOLE_NETWORK, Series, Target, Visit
from latlas_latency.observations import Drift, Observation
from latlas_latency.precision import CoverNoise, cover_noise, label_errors, median_variance
from latlas_latency.space_reference import SpaceReference
from latlas_latency.table import LookupTable
from latlas_ops import get_space

SPACE = get_space("digits")
TARGET = Target("bench", "bench", "onnxruntime", "1.32.0", "CPUExecutionProvider")
NO_DRIFT = Drift({}, math.nan, math.nan, removed=False)
NETWORKS = SPACE.sample(64, np.random.default_rng(1))
COVERS = [SPACE.network(arch) for arch in SPACE.archs(SPACE.sample(24, np.random.default_rng(2)))]
OPS = tuple(dict.fromkeys(op for network in COVERS for op in network.ops))
TRUE_NS = {op: 40_000.0 + 3_000.0 * index for index, op in enumerate(OPS)}


def measured(rng, noise, n_visits=3):
    """Covers whose ops each take their time, with independent noise in every visit."""
    found = []
    for number, network in enumerate(COVERS):
        visits = []
        for visit in range(n_visits):
            times_ns = [TRUE_NS[op] * rng.normal(1, noise) for op in network.ops]
            nodes = [
                Series(f"n{i}", np.full(3, round(ns)), f"{i}") for i, ns in enumerate(times_ns)
            ]
            whole = Series(WHOLE_NETWORK, np.full(3, round(sum(times_ns))))
            visits.append(
                Visit(f"t{number}", "board", visit, PROFILED, visit, 1, 1, (whole, *nodes))
            )
        tensors = {f"n{i}": i for i in range(len(network.ops))}
        found.append(Observation(network, tensors, tuple(visits)))
    return found


def tabulated(observations):
    """Entries as the mean over places of the median over visits."""
    places = {op: [] for op in OPS}
    for seen in observations:
        for position, op in enumerate(seen.network.ops):
            times = [np.median(visit.nodes[position].samples_ns) for visit in seen.visits]
            places[op].append(float(np.median(times)))
    entries = tuple(
        TableEntry(op, float(np.mean(found)) / 1e6, 0.0, len(found), 3 * len(found))
        for op, found in places.items()
    )
    return LookupTable(TARGET, SpaceReference.of(SPACE), entries)


def true_error(n_visits, noise=0.05, n_sittings=60):
    """Root mean square over sittings and networks of what noise does to sums of entries."""
    networks = [
        network
        for arch in SPACE.archs(NETWORKS)
        if set((network := SPACE.network(arch)).ops) <= set(OPS)
    ]
    truth = np.array([sum(TRUE_NS[op] for op in network.ops) for network in networks]) / 1e6
    rng = np.random.default_rng(3)
    errors = [
        tabulated(measured(rng, noise, n_visits)).entry_sums_ms(networks) / truth - 1
        for _ in range(n_sittings)
    ]
    return float(np.sqrt(np.mean(np.square(errors))))


def test_a_burst_counts_where_there_are_three_visits_and_not_where_there_are_many():
    def raised(n_visits):
        rows = 1e6 * np.random.default_rng(5).normal(1, 0.005, (4, n_visits))
        burst = rows.copy()
        burst[0, n_visits // 2] *= 1.5
        return label_errors(burst)[0] / label_errors(rows)[0]

    assert raised(3) > 3
    assert raised(9) < 2


@pytest.mark.parametrize("n_visits", [3, 5])
def test_the_error_that_noise_leaves_is_told_from_the_visits(n_visits):
    rng = np.random.default_rng(4)
    told = []
    for _ in range(5):
        observations = measured(rng, 0.05, n_visits)
        table = tabulated(observations)
        told.append(cover_noise(observations, NO_DRIFT, table, NETWORKS).error)
    assert np.mean(told) == pytest.approx(true_error(n_visits), rel=0.15)


def test_what_takes_more_of_networks_weighs_more():
    rng = np.random.default_rng(5)
    observations = measured(rng, 0.01)
    table = tabulated(observations)
    calm = cover_noise(observations, NO_DRIFT, table, NETWORKS)
    assert calm.variance_of_one.shape == (len(COVERS),)
    assert (calm.n_visits == 3).all()
    loud = measured(rng, 0.1)[0]
    mixed = cover_noise([loud, *observations[1:]], NO_DRIFT, table, NETWORKS)
    assert mixed.error > calm.error


def test_the_worst_are_as_few_as_suffice():
    noise = CoverNoise(np.array([1e-6, 9e-5, 4e-5]), np.array([3, 3, 3]))
    anyone = np.ones(3, dtype=bool)
    assert noise.worst(noise.error + 1e-6, anyone) == ()
    assert noise.worst(noise.error - 1e-5, anyone) == (1,)
    assert noise.worst(noise.error - 1e-5, np.array([True, False, True])) == (2,)
    assert noise.worst(1e-6, anyone) == (1, 2, 0)
    assert noise.worst(1e-6, ~anyone) == ()


def test_the_variance_of_a_median_is_about_right():
    rng = np.random.default_rng(6)
    for n_visits in (1, 3, 5, 7):
        true = float(np.var(np.median(rng.normal(size=(40_000, n_visits)), axis=1)))
        assert median_variance(np.array([n_visits]))[0] == pytest.approx(true, rel=0.04)


def test_the_error_of_a_label_falls_with_its_visits_and_rises_with_its_noise():
    rng = np.random.default_rng(7)
    matrix = 1e6 * rng.normal(1, 0.01, size=(400, 5))
    matrix[:200, 3:] = np.nan
    errors = label_errors(matrix)
    assert np.median(errors[:200]) == pytest.approx(0.01 * math.sqrt(0.449), rel=0.1)
    assert np.median(errors[200:]) == pytest.approx(0.01 * math.sqrt(0.287), rel=0.1)
    matrix[7] = 1e6 * np.array([0.95, 1.05, 0.95, 1.05, 0.95])
    assert label_errors(matrix)[7] > 3 * np.median(errors)


def test_what_cannot_be_told_is_not_a_number():
    assert np.isnan(label_errors(np.array([[1.0], [2.0]]))).all()
    lacking = label_errors(np.array([[1.0, 1.01, 1.02], [np.nan] * 3]))
    assert np.isfinite(lacking[0])
    assert np.isnan(lacking[1])
    assert label_errors(np.zeros((0, 3))).shape == (0,)
