"""The networks of a profile campaign: which, how many, and always the same ones."""

import dataclasses
import math
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


def test_of_many_cover_networks_a_third_over_the_whole_range_is_plain_too():
    space = get_space("ofa-mobilenetv3")
    planned = plan_profile(space, ProfilePlan(space.name, 0, 3, 0, min_occurrences=4, seed=0))
    cover = [one for one in planned if one.role is Role.COVER]
    plain = [one for one in cover if one.plain]
    assert len(cover) > 3 * 36
    assert len(plain) == math.ceil(len(cover) / 3)
    every, third = (
        space_costs(space.batch(one.arch for one in found)).macs for found in (cover, plain)
    )
    assert (third.min(), third.max()) == (every.min(), every.max())


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


@pytest.mark.parametrize("name", ["nas-bench-201", "darts", "hat"])
def test_spaces_with_branches_are_planned_like_any_other(name):
    space = get_space(name)
    plan = ProfilePlan(
        name,
        n_training_networks=20,
        n_calibration_networks=8,
        n_validation_networks=20,
        min_occurrences=2,
        seed=0,
    )
    planned = plan_profile(space, plan)
    counts = Counter(one.role for one in planned)
    assert (counts[Role.TRAINING], counts[Role.VALIDATION]) == (20, 20)
    assert len({one.arch for one in planned}) == len(planned)
    assert counts[Role.COVER] >= 8  # though two networks of DARTS hold all its ops
    cover = space.batch([one.arch for one in planned if one.role is Role.COVER])
    held = space.entry_indices(cover)
    for entry in range(len(space.slot_entries.ops)):
        assert (held == entry).any(axis=1).sum() >= 2
    calibration = space.batch([one.arch for one in planned if one.role is Role.CALIBRATION])
    ends = space_costs(space.extremes()).macs
    found = space_costs(calibration).macs
    assert found[0] <= ends[0]
    assert found[-1] == ends[1]


def test_a_plan_without_whole_networks_is_only_a_cover():
    plan = ProfilePlan("digits", 0, 0, 0, min_occurrences=1, seed=0)
    assert {planned.role for planned in plan_profile(SPACE, plan)} == {Role.COVER}


# -- some resolutions only -----------------------------------------------------------------------


def resolutions(networks, role):
    return Counter(planned.arch.genes[0] for planned in networks if planned.role is role)


@pytest.fixture(scope="module")
def part():
    return plan_profile(SPACE, dataclasses.replace(PLAN, resolutions=(32, 48)))


def test_cover_networks_have_the_resolutions_of_the_plan(part, networks):
    assert set(resolutions(part, Role.COVER)) == {0, 2}
    n_cover = sum(planned.role is Role.COVER for planned in networks)
    assert resolutions(part, Role.COVER).total() < 0.75 * n_cover


def test_half_of_the_calibration_networks_check_what_lies_between(part):
    found = resolutions(part, Role.CALIBRATION)
    assert found[1] == 5
    assert found[0] + found[2] == 5
    assert min(found[0], found[2]) >= 1
    sizes = macs(part, Role.CALIBRATION)
    assert [sizes[0], sizes[4]] == space_costs(SPACE.extremes()).macs.tolist()


def test_networks_that_judge_or_teach_have_every_resolution(part):
    for role, n_networks in ((Role.TRAINING, 60), (Role.VALIDATION, 40)):
        assert set(resolutions(part, role)) == {0, 1, 2}
        assert resolutions(part, role).total() == n_networks


def test_without_anything_between_all_calibration_networks_are_measured_throughout():
    found = plan_profile(SPACE, dataclasses.replace(PLAN, resolutions=(40, 48)))
    assert set(resolutions(found, Role.CALIBRATION)) == {1, 2}
    assert resolutions(found, Role.CALIBRATION).total() == 10


def test_a_line_has_its_three_networks_before_anything_is_checked():
    plan = dataclasses.replace(PLAN, resolutions=(32, 48), n_calibration_networks=4)
    found = resolutions(plan_profile(SPACE, plan), Role.CALIBRATION)
    assert (found[0] + found[2], found[1]) == (3, 1)


def test_resolutions_that_a_space_has_not_are_refused():
    plan = dataclasses.replace(PLAN, resolutions=(32, 33))
    with pytest.raises(InvalidInputError, match="'digits' has no resolution 33; it has 32, 40, 48"):
        plan_profile(SPACE, plan)
    with pytest.raises(InvalidInputError, match="resolutions must be rising"):
        dataclasses.replace(PLAN, resolutions=(48, 32))
