"""NAS-Bench-201: all of its 15,625 architectures, and what a deployed network runs of them."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from latlas_ops import ArchBatch, OpSpec, get_space
from latlas_ops.costs import network_cost
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import INACTIVE
from latlas_ops.spaces import _nas_bench_cell
from latlas_ops.spaces._nas_bench_cell import CELL_INPUT, EDGES, OPERATIONS, Cell, wire_cell
from latlas_ops.spaces.nas_bench_201 import NasBench201Space
from latlas_ops.writers.torch_writer import torch_module

ALL_CONV_3X3 = (
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
)
Array = np.ndarray[Any, np.dtype[np.float64]]


@pytest.fixture(scope="module")
def space() -> NasBench201Space:
    found = get_space("nas-bench-201")
    assert isinstance(found, NasBench201Space)
    return found


@pytest.fixture(scope="module")
def everything(space: NasBench201Space) -> ArchBatch:
    return ArchBatch(space, space.canonical(np.array(list(np.ndindex(*space.sizes)))))


def kinds(space: NasBench201Space, text: str, cell: int = 2) -> list[str]:
    """Kinds of the ops of a cell of the first stage."""
    genes = space.arch_from_string(text).genes
    ops = [
        space.slot_op(index, genes)
        for index, slot in enumerate(space.slots)
        if slot.name.startswith(f"stage0.cell{cell}.")
    ]
    return [op.kind for op in ops if op is not None]


# -- size and cost -----------------------------------------------------------------------------


def test_it_has_the_size_of_the_benchmark(space: NasBench201Space) -> None:
    count = space.count()
    assert (count.flat, count.distinct, count.distinct_per_resolution) == (15_625,) * 3


def test_the_largest_network_has_its_published_parameters_and_macs(
    space: NasBench201Space,
) -> None:
    arch = space.arch_from_string(ALL_CONV_3X3)
    assert arch == space.archs(space.extremes())[1]
    network = space.network(arch)
    cost = network_cost(network)
    # A batch norm has two parameters per channel; folded, it leaves one, the convolution's bias.
    normalised = sum(
        op.integer("out_channels") for op in network.ops if op.kind in ("conv", "conv_add")
    )
    normalised += 2 * (32 + 64) - (32 + 64)  # two per reduction, whose shortcut has none
    assert cost.parameters + normalised == 1_531_546
    assert cost.macs == pytest.approx(220.12e6, abs=0.005e6)


def test_a_network_has_the_shape_of_the_benchmark(space: NasBench201Space) -> None:
    network = space.network(space.arch_from_string(ALL_CONV_3X3))
    assert network.input_shape == (3, 32, 32)
    assert network.ops[0].outputs == ((16, 32, 32),)
    assert [op.outputs for op in network.ops if op.kind == "reduction_block"] == [
        ((32, 16, 16),),
        ((64, 8, 8),),
    ]
    assert network.ops[-1].outputs == ((10,),)
    # Six convolutions, which rectify their own output but before and after each stage.
    assert [op.kind for op in network.ops].count("activation") == 3
    assert len(network.ops) == 4 + 15 * 6 + 3


# -- the benchmark's string --------------------------------------------------------------------


def test_a_string_names_operation_and_source_of_each_edge(space: NasBench201Space) -> None:
    text = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"
    arch = space.arch_from_string(text)
    assert [OPERATIONS[gene] for gene in arch.genes] == [
        "nor_conv_3x3",
        "none",
        "skip_connect",
        "avg_pool_3x3",
        "none",
        "nor_conv_1x1",
    ]
    assert [gene.name for gene in space.genes][:3] == ["edge0-1.op", "edge0-2.op", "edge1-2.op"]


def test_every_architecture_is_found_again_by_its_string(
    space: NasBench201Space, everything: ArchBatch
) -> None:
    archs = space.archs(everything)[::37]
    assert [space.arch_from_string(space.describe(arch)) for arch in archs] == archs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not an architecture of NAS-Bench-201"),
        ("|none~0|+|none~0|none~1|", "expected |OP~0|+|OP~0|OP~1|+|OP~0|OP~1|OP~2|"),
        (ALL_CONV_3X3 + "|none~3|", "not an architecture"),
        (ALL_CONV_3X3.replace("3x3~2", "5x5~2"), "not an edge from node 2: 'nor_conv_5x5~2'"),
        (ALL_CONV_3X3.replace("~2", "~1"), "expected OP~2 with OP one of none, skip_connect"),
        (ALL_CONV_3X3.replace("~2", ""), "not an edge from node 2"),
    ],
)
def test_a_string_that_is_none_is_refused(space: NasBench201Space, text: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        space.arch_from_string(text)
    assert message in str(caught.value)


# -- what is run -------------------------------------------------------------------------------


def test_three_wired_cells_compute_what_three_unpruned_ones_do(everything: ArchBatch) -> None:
    rng = np.random.default_rng(0)
    convolutions = {(edge, k): rng.normal(size=(5, 5)) for edge in EDGES for k in (1, 3)}
    pooling, start = rng.normal(size=(5, 5)), rng.normal(size=5)

    def operate(gene: int, edge: tuple[int, int], tensor: Array) -> Array:
        if OPERATIONS[gene] in ("none", "skip_connect"):
            return tensor * (gene > 0)
        if OPERATIONS[gene] == "avg_pool_3x3":
            return pooling @ tensor
        kernel = 1 if OPERATIONS[gene] == "nor_conv_1x1" else 3
        return convolutions[edge, kernel] @ np.maximum(tensor, 0)

    def unpruned(genes: Sequence[int], tensor: Array) -> Array:
        nodes = [tensor, *[np.zeros(5)] * 3]
        for edge, gene in zip(EDGES, genes, strict=True):
            nodes[edge[1]] = nodes[edge[1]] + operate(gene, edge, nodes[edge[0]])
        return nodes[3]

    for genes in everything.genes.tolist():
        wired = expected = start
        for cell in range(3):
            wired = run(
                wire_cell(genes, first=cell == 0, last=cell == 2), wired, pooling, convolutions
            )
            expected = unpruned(genes, expected)
        np.testing.assert_allclose(wired, expected, rtol=1e-9, atol=1e-9)


def run(cell: Cell, start: Array, pooling: Array, convolutions: dict[Any, Array]) -> Array:
    """Executes the steps in the order of their places."""
    values: dict[int, Array] = {CELL_INPUT: start}
    edges = dict(zip((7, 8), EDGES[1:3], strict=True)) | {3: EDGES[0]}
    edges |= dict(zip((13, 14, 15), EDGES[3:], strict=True))
    for place in sorted(cell.steps):
        step = cell.steps[place]
        tensors = [values[source] for source in step.sources]
        if step.what == "zero":
            values[place] = tensors[0] * 0
        elif step.what == "pool":
            values[place] = pooling @ tensors[0]
        elif step.what == "relu":
            values[place] = np.maximum(tensors[0], 0)
        elif step.what == "add":
            values[place] = tensors[0] + tensors[1]
        else:
            values[place] = convolutions[edges[place], int(step.what[4])] @ tensors[0]
            if "_add" in step.what:
                values[place] = values[place] + tensors[1]
            if step.what.endswith("_relu"):
                values[place] = np.maximum(values[place], 0)
    return values[cell.output]


def test_nothing_is_run_in_vain_or_twice(everything: ArchBatch) -> None:
    for genes, first in itertools.product(everything.genes.tolist(), (True, False)):
        cell = wire_cell(genes, first=first, last=False)
        read = {source for step in cell.steps.values() for source in step.sources}
        assert set(cell.steps) <= read | {cell.output}
        shared = [step for step in cell.steps.values() if not step.what.startswith("conv")]
        assert len(set(shared)) == len(shared)


def test_edges_without_a_way_to_the_output_are_not_run(space: NasBench201Space) -> None:
    dead_end = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|avg_pool_3x3~0|none~1|none~2|"
    unreached = "|none~0|+|none~0|nor_conv_3x3~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|"
    assert kinds(space, dead_end) == kinds(space, unreached) == ["pool"]


def test_a_skip_runs_nothing(space: NasBench201Space) -> None:
    arch = space.arch_from_string("|none~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|")
    assert [op.kind for op in space.ops(arch)] == [
        "conv",
        "reduction_block",
        "reduction_block",
        "classifier",
    ]
    assert arch == space.archs(space.extremes())[0]


def test_one_pooling_serves_all_edges_that_pool_the_same_tensor(space: NasBench201Space) -> None:
    text = "|skip_connect~0|+|none~0|none~1|+|avg_pool_3x3~0|avg_pool_3x3~1|none~2|"
    assert kinds(space, text) == ["pool", "add"]
    network = space.network(space.arch_from_string(text))
    # The sum of a tensor with itself.
    add = next(index for index, op in enumerate(network.ops) if op.kind == "add")
    assert network.wiring[add] == (add - 1, add - 1)


def test_one_rectified_copy_serves_all_convolutions_of_a_tensor(space: NasBench201Space) -> None:
    text = "|none~0|+|nor_conv_3x3~0|none~1|+|nor_conv_1x1~0|none~1|skip_connect~2|"
    assert kinds(space, text, cell=0) == ["activation", "conv", "conv_add"]


def test_a_convolution_rectifies_its_output_where_nobody_reads_it_otherwise(
    space: NasBench201Space,
) -> None:
    def activations(text: str) -> list[str]:
        ops = space.ops(space.arch_from_string(text))
        return [f"{op.kind} {op.attribute('activation')}" for op in ops[1:11]]

    alone = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|none~0|none~1|nor_conv_3x3~2|"
    # From the stem, whose output is rectified by an op of its own, through the stage.
    assert activations(alone) == ["activation relu", *["conv relu"] * 9]
    last = space.ops(space.arch_from_string(alone))[16]
    assert (last.kind, last.attribute("activation")) == ("conv", "none")
    assert last.outputs == ((16, 32, 32),)
    skipped = "|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|none~0|skip_connect~1|nor_conv_1x1~2|"
    assert activations(skipped)[:6] == [
        "activation relu",
        "conv none",  # node 1 is read as it is, too
        "activation relu",
        "conv relu",
        "conv_add relu",
        "conv none",
    ]


def test_a_cell_without_a_path_is_a_constant_and_says_so(space: NasBench201Space) -> None:
    text = "|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|"
    assert (kinds(space, text, cell=0), kinds(space, text, cell=1)) == (["zero"], [])
    network = space.network(space.arch_from_string(text))
    assert [op.kind for op in network.ops].count("zero") == 3  # one per stage
    module = torch_module(network)
    with torch.inference_mode():
        first, second = module(torch.randn(2, 3, 32, 32)).unbind()
    assert torch.equal(first, second)


def test_the_341_architectures_without_a_path_are_the_constant_ones(
    space: NasBench201Space, everything: ArchBatch
) -> None:
    zeros = [index for index, op in enumerate(space.slot_entries.ops) if op.kind == "zero"]
    constant = np.isin(space.entry_indices(everything), zeros).any(axis=1)
    there = dict(zip(EDGES, everything.genes.T > 0, strict=True))
    paths = [[(0, 3)], [(0, 1), (1, 3)], [(0, 2), (2, 3)], [(0, 1), (1, 2), (2, 3)]]
    connected = np.any([np.all([there[edge] for edge in path], axis=0) for path in paths], axis=0)
    np.testing.assert_array_equal(constant, ~connected)
    assert constant.sum() == 341


# -- one walk ----------------------------------------------------------------------------------


def test_entries_of_all_architectures_are_the_ops_of_their_walk(
    space: NasBench201Space, everything: ArchBatch
) -> None:
    entries = space.slot_entries.ops
    for row, arch in zip(space.entry_indices(everything), space.archs(everything), strict=True):
        assert [entries[index] for index in row if index != INACTIVE] == space.ops(arch)


def test_a_cell_is_wired_once_per_set_of_edges_that_are_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wired: list[object] = []
    whole = _nas_bench_cell._shared
    monkeypatch.setattr(
        _nas_bench_cell, "_shared", lambda edges: (wired.append(dict(edges)), whole(edges))[1]
    )
    assert len(NasBench201Space().slot_entries.ops) == 40
    assert len(wired) == len({tuple(edges.items()) for edges in wired}) == 9444


def test_every_tenth_architecture_is_a_valid_network_of_these_ops(
    space: NasBench201Space, everything: ArchBatch
) -> None:
    for arch in space.archs(everything)[::10]:
        assert list(space.network(arch).ops) == space.ops(arch)


def test_it_consists_of_40_distinct_ops_and_all_occur(
    space: NasBench201Space, everything: ArchBatch
) -> None:
    assert len(set(space.slot_entries.ops)) == len(space.slot_entries.ops) == 40
    assert set(np.unique(space.entry_indices(everything))) == set(range(-1, 40))
    assert OpSpec.of("zero", (16, 32, 32)) in space.slot_entries.ops
