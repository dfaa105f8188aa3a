"""The fastest architecture of a space."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from latlas_latency.model import LatencyModel, OpLatencies
from latlas_nas.search.evaluation import LatencyLimit
from latlas_nas.search.minimum import fastest_arch, least_sum, round_up
from latlas_nas.search.result import Constraint
from latlas_ops.space import ArchBatch, SearchSpace
from latlas_ops.spaces import get_space
from latlas_ops.spaces.mobile import MobileSpace

MakeModel = Callable[..., LatencyModel]


def random_latencies(space: SearchSpace, seed: int) -> OpLatencies:
    """Arbitrary figures, so that the fastest architecture is not the smallest."""
    rng = np.random.default_rng(seed)
    per_op = np.append(rng.uniform(0.1, 2.0, len(space.slot_entries.ops)), 0.0)
    return OpLatencies(0.3, tuple(per_op[table] for table in space.slot_entries.tables))


def sums(space: SearchSpace, latencies: OpLatencies, archs: ArchBatch) -> np.ndarray:
    return sum(
        table[tuple(archs.genes[:, gene].astype(int) for gene in slot.genes)]
        for slot, table in zip(space.slots, latencies.tables_ms, strict=True)
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_least_sum_is_the_least_of_all(
    small_space: MobileSpace, all_archs: Callable[[SearchSpace], ArchBatch], seed: int
) -> None:
    latencies, everything = random_latencies(small_space, seed), all_archs(small_space)
    (found,) = sums(small_space, latencies, least_sum(small_space, latencies))
    assert found == pytest.approx(sums(small_space, latencies, everything).min())


@pytest.mark.parametrize("name", ["digits", "course", "ofa-mobilenetv3"])
def test_in_large_spaces_nothing_random_is_below_the_least_sum(name: str) -> None:
    space = get_space(name)
    latencies = random_latencies(space, 0)
    (found,) = sums(space, latencies, least_sum(space, latencies))
    some = space.sample(5000, np.random.default_rng(0))
    assert found < sums(space, latencies, some).min()


@pytest.mark.parametrize("additive", [True, False])
@pytest.mark.parametrize("bound", ["upper", "mean"])
def test_the_fastest_is_found_for_sums_and_for_other_models(
    small_space: MobileSpace,
    all_archs: Callable[[SearchSpace], ArchBatch],
    latency_model: MakeModel,
    bound: str,
    additive: bool,
) -> None:
    limit = LatencyLimit(latency_model(small_space, additive=additive), Constraint(1.0, bound))
    fastest = fastest_arch(small_space, limit, np.random.default_rng(0))
    assert fastest.held_ms == pytest.approx(limit.held_ms(all_archs(small_space)).min())
    assert fastest.proved == (additive and bound == "mean")


@pytest.mark.parametrize("value", [0.0123456, 1.23456, 12.0, 123.449999, 0.99996])
def test_a_budget_is_rounded_up(value: float) -> None:
    assert value <= float(round_up(value)) <= 1.001 * value
