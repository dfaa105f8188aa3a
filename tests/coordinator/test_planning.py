"""The networks of a profile campaign: which, how many, and always the same ones."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from latlas_coordinator.domain import ProfilePlan, Role
from latlas_coordinator.planning import plan_profile, tilted_sample
from latlas_ops import get_space
from latlas_ops.costs import space_costs
from latlas_ops.errors import InvalidInputError
from latlas_ops.spaces.mobile import MobileSpace, Stage

SPACE = get_space("digits")
PLAN = ProfilePlan(
    "digits",
    n_training_networks=60,
    n_calibration_networks=10,
    n_validation_networks=40,
    min_occurrences=1,
    seed=3,
)


def macs(networks, role):
    archs = [planned.arch for planned in networks if planned.role is role]
    return space_costs(SPACE.batch(archs)).macs


@pytest.fixture(scope="module")
def networks():
    return plan_profile(SPACE, PLAN)


def test_each_role_gets_as_many_networks_as_asked_for(networks):
    counts = Counter(planned.role for planned in networks)
    assert counts[Role.TRAINING] == 60
    assert counts[Role.CALIBRATION] == 10
    assert counts[Role.VALIDATION] == 40
    assert counts[Role.COVER] >= 27


def test_no_architecture_serves_two_purposes(networks):
    archs = [planned.arch for planned in networks]
    assert len(set(archs)) == len(archs)


def test_the_same_plan_gives_the_same_networks(networks):
    assert plan_profile(SPACE, PLAN) == networks


def test_another_seed_gives_other_networks(networks):
    other = plan_profile(SPACE, dataclasses.replace(PLAN, seed=4))
    validation = [
        {planned.arch for planned in found if planned.role is Role.VALIDATION}
        for found in (networks, other)
    ]
    assert len(validation[0] & validation[1]) < 4


def test_more_training_networks_leave_the_other_roles_as_they_are(networks):
    more = plan_profile(SPACE, dataclasses.replace(PLAN, n_training_networks=90))
    for role in (Role.COVER, Role.CALIBRATION, Role.VALIDATION):
        assert [p for p in more if p.role is role] == [p for p in networks if p.role is role]


def test_calibration_spans_the_space_in_even_steps(networks):
    found = macs(networks, Role.CALIBRATION)
    assert [found[0], found[-1]] == space_costs(SPACE.extremes()).macs.tolist()
    steps = np.diff(np.log(found))
    assert steps.max() / steps.min() < 1.5


def test_training_reaches_further_than_validation_at_both_ends(networks):
    training, validation = macs(networks, Role.TRAINING), macs(networks, Role.VALIDATION)
    assert training.min() < 0.8 * validation.min()
    assert training.max() > 1.1 * validation.max()


def test_tilted_architectures_spread_evenly_over_the_sizes():
    batch = tilted_sample(SPACE, 4000, np.random.default_rng(0))
    log_macs = np.log(space_costs(batch).macs)
    least, most = np.log(space_costs(SPACE.extremes()).macs)
    counts, _ = np.histogram(log_macs, bins=4, range=(least, most))
    assert counts.min() > 0.1 * counts.sum()


def test_a_space_that_is_too_small_says_so():
    tiny = MobileSpace(
        name="tiny", version=1, in_channels=1, classes=2, resolutions=(32,), stem_channels=8,
        stem_stride=2, stages=(Stage(16, 1),), depths=(1,), kernels=(3, 5), expansions=(2, 3),
        head_channels=16,
    )  # fmt: skip
    plan = dataclasses.replace(PLAN, space="tiny", n_calibration_networks=0)
    with pytest.raises(InvalidInputError, match="'tiny' has 4 architectures, too few"):
        plan_profile(tiny, plan)
    plan = dataclasses.replace(plan, n_calibration_networks=2)
    with pytest.raises(InvalidInputError, match="too few for the calibration networks"):
        plan_profile(tiny, plan)


def test_a_plan_without_whole_networks_is_only_a_cover():
    plan = ProfilePlan("digits", 0, 0, 0, min_occurrences=1, seed=0)
    assert {planned.role for planned in plan_profile(SPACE, plan)} == {Role.COVER}
