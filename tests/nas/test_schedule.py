"""Progressive shrinking as data."""

from __future__ import annotations

import json

import numpy as np
import pytest

from latlas_nas.schedule import ALL, Phase, Schedule, quickstart_schedule, sample_arch
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import INACTIVE
from latlas_ops.spaces import get_space
from latlas_ops.spaces.mobile import MobileSpace


def choices_seen(space: MobileSpace, phase: Phase) -> dict[str, set[int]]:
    rng = np.random.default_rng(0)
    rows = np.array([sample_arch(space, phase, rng).genes for _ in range(200)])
    return {
        gene.name: set(column.tolist()) - {INACTIVE}
        for gene, column in zip(space.genes, rows.T, strict=True)
    }


def test_a_phase_samples_the_families_it_opens_and_keeps_the_rest_at_the_largest(
    tiny_space: MobileSpace,
) -> None:
    seen = choices_seen(tiny_space, Phase("kernel", 1, 0.1, {"resolution": ALL, "kernel": ALL}))
    assert seen["resolution"] == {0, 1}
    assert seen["stage0.layer1.kernel"] == {0, 1, 2}
    assert seen["stage0.layer1.expansion"] == {1}
    assert seen["stage1.depth"] == {1}
    assert seen["stage1.width"] == {1}


def test_a_phase_can_open_the_last_choices_only(tiny_space: MobileSpace) -> None:
    seen = choices_seen(tiny_space, Phase("kernel", 1, 0.1, {"kernel": 2}))
    assert seen["stage1.layer0.kernel"] == {1, 2}
    assert seen["resolution"] == {1}


def test_the_learning_rate_rises_and_then_falls_along_a_cosine() -> None:
    phase = Phase("full", 100, 0.5, {}, distill=False)
    schedule = Schedule((phase,), warm_up_steps=10)
    rates = [schedule.learning_rate(phase, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.05)
    assert max(rates) == rates[9] < 0.5
    assert sorted(rates[9:], reverse=True) == rates[9:]
    assert rates[-1] < 0.001


def test_the_first_phase_cannot_learn_from_a_teacher_that_it_makes_itself() -> None:
    with pytest.raises(InvalidInputError, match="the first phase makes the teacher"):
        Schedule((Phase("full", 1, 0.1, {}),))


def test_a_phase_without_steps_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'full' needs at least one step"):
        Phase("full", 0, 0.1, {})


@pytest.mark.parametrize("quick", [False, True])
def test_the_quickstarts_schedule_ends_with_every_choice_open(quick: bool) -> None:
    schedule = quickstart_schedule(quick)
    space = get_space("digits")
    assert isinstance(space, MobileSpace)
    seen = choices_seen(space, schedule.phases[-1])
    assert {name: len(values) for name, values in seen.items()} == {
        gene.name: len(gene.choices) for gene in space.genes
    }
    assert json.loads(json.dumps(schedule.to_dict()))["phases"][0]["name"] == "full"
