"""Cover networks hold every op of a space, and are few."""

import numpy as np
import pytest

from latlas_coordinator.covering import cover_networks, covered_ops
from latlas_ops import get_space
from latlas_ops.space import INACTIVE


def occurrences(space, batch):
    """In how many networks each distinct op occurs, `(n_entries,)`."""
    counts = np.zeros(len(space.slot_entries.ops), dtype=int)
    for row in space.entry_indices(batch):
        counts[np.unique(row[row != INACTIVE])] += 1
    return counts


@pytest.mark.parametrize("name", ["digits", "ofa-mobilenetv3", "nas-bench-201", "darts", "hat"])
@pytest.mark.parametrize("min_occurrences", [1, 3])
def test_every_op_occurs_in_enough_networks(name, min_occurrences):
    space = get_space(name)
    batch = cover_networks(space, min_occurrences, np.random.default_rng(0))
    assert occurrences(space, batch).min() >= min_occurrences


def test_every_op_of_a_space_with_widths_is_covered():
    space = get_space("course")
    batch = cover_networks(space, 1, np.random.default_rng(0))
    assert occurrences(space, batch).min() >= 1


@pytest.mark.parametrize(("seed", "min_occurrences"), [(0, 1), (1, 1), (2, 3)])
def test_ofa_needs_hardly_more_than_nine_networks_per_resolution_and_occurrence(
    seed, min_occurrences
):
    # The first layer of a stage stands once in a network and has nine variants per resolution, so
    # that no cover can do with fewer than 9 x 4 networks.
    space = get_space("ofa-mobilenetv3")
    assert len(space.slot_entries.ops) == 368
    batch = cover_networks(space, min_occurrences, np.random.default_rng(seed))
    least = 9 * 4 * min_occurrences
    assert least <= len(batch) <= 1.1 * least


@pytest.mark.parametrize(("name", "most"), [("nas-bench-201", 4), ("darts", 2)])
def test_cells_need_few_networks_since_one_holds_many_of_their_ops(name, most):
    space = get_space(name)
    assert len(cover_networks(space, 1, np.random.default_rng(0))) <= most


def test_there_are_as_many_networks_as_asked_for_even_if_fewer_cover_the_space():
    space = get_space("darts")
    batch = cover_networks(space, 1, np.random.default_rng(0), least_networks=8)
    assert len(np.unique(batch.genes, axis=0)) == len(batch) == 8


def test_one_network_of_a_space_of_one_is_repeated_as_often_as_wanted():
    from latlas_ops.spaces.mobile import MobileSpace, Stage

    space = MobileSpace(
        name="one", version=1, in_channels=1, classes=2, resolutions=(32,), stem_channels=8,
        stem_stride=2, stages=(Stage(16, 1),), depths=(1,), kernels=(3,), expansions=(2,),
        head_channels=16,
    )  # fmt: skip
    assert len(cover_networks(space, 3, np.random.default_rng(0))) == 3


def test_only_the_ops_of_allowed_choices_are_covered():
    space = get_space("digits")
    allowed = {space.resolution_gene: [0, 2]}
    batch = cover_networks(space, 2, np.random.default_rng(0), allowed)
    assert set(batch.genes[:, space.resolution_gene].tolist()) == {0, 2}
    counts = occurrences(space, batch)
    wanted = [op in covered_ops(space, allowed) for op in space.slot_entries.ops]
    assert (counts[wanted] >= 2).all()
    assert not counts[np.logical_not(wanted)].any()
    whole = cover_networks(space, 2, np.random.default_rng(0))
    assert len(batch) < 0.75 * len(whole)


def test_all_ops_are_covered_where_everything_is_allowed():
    space = get_space("digits")
    assert covered_ops(space, {}) == space.slot_entries.ops
