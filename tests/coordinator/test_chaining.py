"""Chains and frames of a space: which, how long, and that they can be solved."""

from collections import Counter

import numpy as np
import pytest

from latlas_coordinator.chaining import (
    FRAME_COPIES,
    LEAST_LONGEST,
    LONGEST,
    alone_programs,
    chain_lengths,
    chain_programs,
)
from latlas_latency.chains import is_repeatable
from latlas_ops import OpSpec, get_space
from latlas_ops.costs import op_cost
from latlas_ops.errors import InvalidInputError
from latlas_ops.network import NETWORK_INPUT
from latlas_ops.spaces import SPACE_NAMES
from latlas_ops.spaces.mobile import MobileSpace, Stage

SPACE = get_space("digits")


@pytest.fixture(scope="module")
def groups():
    return chain_programs(SPACE)


def test_an_op_that_keeps_its_shape_is_repeated_at_three_lengths(groups):
    chains = [group for group in groups if len({op for net in group for op in net.ops}) == 1]
    assert len(chains) == sum(map(is_repeatable, SPACE.slot_entries.ops))
    for group in chains:
        lengths = [len(network.ops) for network in group]
        assert lengths == sorted(set(lengths))
        assert len(lengths) == 3
        assert lengths[-1] >= 4 * lengths[0]


def test_long_chains_of_heavy_ops_would_fill_the_cache():
    op = OpSpec.of("conv", (256, 8, 8), out_channels=256, kernel=3)
    n_bytes = op_cost(op).weight_bytes
    assert chain_lengths(op, 100 * n_bytes) == (2, 5, LONGEST)
    assert chain_lengths(op, 6 * n_bytes) == (1, 3, 6)
    assert chain_lengths(op, n_bytes) == (1, 2, LEAST_LONGEST)


@pytest.mark.parametrize("name", SPACE_NAMES)
def test_every_op_can_be_solved_for(name):
    space = get_space(name)
    found = chain_programs(space)
    known = {group[0].ops[0] for group in found if len(set(group[0].ops)) == 1 and len(group) == 3}
    unknown = [op for op in space.slot_entries.ops if op not in known]
    column = {op: index for index, op in enumerate(unknown)}
    rows = []
    for group in found:
        for network in group:
            row = np.zeros(len(column))
            for op, count in Counter(network.ops).items():
                if op in column:
                    row[column[op]] += count
            if row.any():
                rows.append(row)
    assert np.linalg.matrix_rank(np.array(rows)) == len(unknown)


def test_an_op_that_reads_two_shapes_follows_ops_that_give_them():
    space = get_space("hat")
    mixed = [op for op in space.slot_entries.ops if len(set(op.inputs)) > 1]
    assert len(mixed) == 2 * 36
    found = {group[0].ops[-1]: group for group in chain_programs(space)}
    for op in mixed:
        for n_copies, network in zip(FRAME_COPIES, found[op], strict=True):
            assert [one.kind for one in network.ops] == ["slice"] * 2 + ["decoder_layer"] * n_copies
            assert network.input_shape == (60, 640)
            for position, sources in enumerate(network.wiring[2:], start=2):
                memory = {network.ops[source].outputs[0] for source in sources[1:]}
                assert memory == {op.inputs[1]}
                assert position == 2 or sources[0] == position - 1
    with pytest.raises(InvalidInputError, match="takes inputs of different shapes"):
        chain_programs(space, mixed)
    with pytest.raises(InvalidInputError, match="--no-stand-alone"):
        alone_programs(space)


def test_a_frame_holds_its_op_once_between_ops_that_keep_their_shape(groups):
    framed = [op for op in SPACE.slot_entries.ops if not is_repeatable(op)]
    frames = [group for group in groups if len({op for net in group for op in net.ops}) > 1]
    assert len(frames) == len(framed)
    for op, group in zip(framed, frames, strict=True):
        assert len(group) == 2
        for network in group:
            assert network.ops.count(op) == 1
            others = [one for one in network.ops if one != op and not is_repeatable(one)]
            # A stem is led on to a shape that some op keeps.
            assert len(others) == (op.kind == "stem")


def test_variants_of_one_place_have_the_same_neighbours(groups):
    def neighbours(op, network):
        place = network.ops.index(op)
        return network.ops[:place], network.ops[place + 1 :]

    openers = {}
    for group in groups:
        for op in group[0].ops:
            if op.kind == "mbconv" and op.integer("stride") == 2 and op in group[0].ops:
                key = op.inputs[0], op.outputs[0]
                openers.setdefault(key, set()).add(neighbours(op, group[0]))
    assert openers
    assert all(len(found) == 1 for found in openers.values())


def test_where_no_op_keeps_its_shape_there_are_frames_of_the_op_itself():
    space = MobileSpace(
        name="flat", version=1, in_channels=3, classes=10, resolutions=(32,), stem_channels=8,
        stem_stride=2, stages=(Stage(16, 2), Stage(24, 2)), depths=(1,), kernels=(3,),
        expansions=(4,), head_channels=32,
    )  # fmt: skip
    groups = chain_programs(space)
    assert len(groups) == len(space.slot_entries.ops)
    assert all(len(group) == 1 for group in groups)


def test_ops_of_several_inputs_read_as_many_tensors():
    def sources(name, kind):
        return [
            (position, row)
            for group in chain_programs(get_space(name))
            for network in group
            for position, (op, row) in enumerate(zip(network.ops, network.wiring, strict=True))
            if op.kind == kind
        ]

    for kind in ("add", "conv_add"):
        found = sources("nas-bench-201", kind)
        assert found
        for position, row in found:
            assert row[0] == position - 1
            assert row[1] == NETWORK_INPUT
    # Between three copies of an op that keeps its shape there are four tensors of it.
    joined = [row for position, row in sources("darts", "concat") if position == FRAME_COPIES[1]]
    assert joined
    assert all(row == (2, NETWORK_INPUT, 0, 1) for row in joined)


def test_ops_alone_are_models_of_one_op():
    groups = alone_programs(SPACE)
    assert [group[0].ops for group in groups] == [(op,) for op in SPACE.slot_entries.ops]
