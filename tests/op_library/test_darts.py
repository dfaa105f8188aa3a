"""DARTS: its size, the authors' genotypes, and how its cells are wired."""

import numpy as np
import pytest
import torch

from latlas_ops import get_space
from latlas_ops.costs import network_cost
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import INACTIVE
from latlas_ops.spaces.darts import OPERATIONS, DartsSpace, source_pairs
from latlas_ops.writers.torch_writer import torch_module

# Liu et al. (2019), figures 4 and 5: the cells found on CIFAR-10 with second-order approximation.
NORMAL = [
    ("sep_conv_3x3", 0),
    ("sep_conv_3x3", 1),
    ("sep_conv_3x3", 0),
    ("sep_conv_3x3", 1),
    ("sep_conv_3x3", 1),
    ("skip_connect", 0),
    ("skip_connect", 0),
    ("dil_conv_3x3", 2),
]
REDUCTION = [
    ("max_pool_3x3", 0),
    ("max_pool_3x3", 1),
    ("skip_connect", 2),
    ("max_pool_3x3", 1),
    ("max_pool_3x3", 0),
    ("skip_connect", 2),
    ("skip_connect", 2),
    ("max_pool_3x3", 1),
]


@pytest.fixture(scope="module")
def space() -> DartsSpace:
    found = get_space("darts")
    assert isinstance(found, DartsSpace)
    return found


@pytest.fixture(scope="module")
def small() -> DartsSpace:
    """As the authors search: 8 cells of 16 channels."""
    return DartsSpace(name="small", version=1, n_cells=8, channels=16)


def test_its_size_is_that_of_the_formula(space: DartsSpace) -> None:
    per_cell = (1 * 3 * 6 * 10) * 7**8  # section 3.1.1: about 1e9
    assert space.count().distinct == space.count().flat == per_cell**2


def test_the_cells_of_the_paper_have_their_published_parameters(space: DartsSpace) -> None:
    network = space.network(space.arch_from_genotype(NORMAL, REDUCTION))
    cost = network_cost(network)
    # A batch norm has two parameters per channel; folded, it leaves one, the convolution's bias.
    # In separable and dilated convolutions the depthwise layer, which has no batch norm, has the
    # other.
    normalised = sum(
        op.integer("out_channels") for op in network.ops if op.kind in ("conv", "factorized_reduce")
    )
    assert cost.parameters + normalised == 3_349_342
    assert network.input_shape == (3, 32, 32)
    assert network.ops[-1].outputs == ((10,),)


def test_a_genotype_leads_back_to_itself(space: DartsSpace) -> None:
    for arch in space.archs(space.sample(20, np.random.default_rng(0))):
        genotype = space.genotype(arch)
        assert space.arch_from_genotype(genotype["normal"], genotype["reduction"]) == arch


def test_an_architecture_is_described_node_by_node(space: DartsSpace) -> None:
    text = space.describe(space.arch_from_genotype(NORMAL, REDUCTION))
    assert text.startswith("normal sep_conv_3x3~0+sep_conv_3x3~1 | sep_conv_3x3~0+sep_conv_3x3~1")
    assert ", reduction max_pool_3x3~0+max_pool_3x3~1 | max_pool_3x3~1+skip_connect~2" in text


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (NORMAL[:6], "a normal cell has 8 edges, not 6"),
        ([("none", 0), *NORMAL[1:]], "'none' is not one of skip_connect, max_pool_3x3"),
        ([NORMAL[0], ("sep_conv_3x3", 0), *NORMAL[2:]], "node 0 cannot read 0 and 0"),
        ([NORMAL[0], ("sep_conv_3x3", 2), *NORMAL[2:]], "two different nodes of 0 to 1"),
    ],
)
def test_a_genotype_that_is_none_is_refused(
    space: DartsSpace, edges: list[tuple[str, int]], message: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        space.arch_from_genotype(edges, REDUCTION)
    assert message in str(caught.value)


def test_nodes_read_two_different_nodes_before_them() -> None:
    assert source_pairs(0) == ((0, 1),)
    assert source_pairs(1) == ((0, 1), (0, 2), (1, 2))
    assert [len(source_pairs(node)) for node in range(4)] == [1, 3, 6, 10]


def test_a_cell_is_wired_as_its_genotype_says(small: DartsSpace) -> None:
    network = small.network(small.arch_from_genotype(NORMAL, REDUCTION))
    ops, wiring = network.ops, network.wiring
    # The first cell after the stem and its rectified output.
    assert [op.kind for op in ops[:4]] == ["conv", "activation", "conv", "conv"]
    assert wiring[:4] == ((-1,), (0,), (1,), (1,))
    first, second = 2, 3
    kinds = [op.kind for op in ops[4:15]]
    assert kinds == [*["sep_conv", "sep_conv", "add"] * 2, "sep_conv", "add", "dil_conv", "add",
                     "concat"]  # fmt: skip
    assert wiring[4:10] == ((first,), (second,), (4, 5), (first,), (second,), (7, 8))
    # Node 2 skips from 0, node 3 skips from 0 and convolves node 0.
    assert wiring[10:14] == ((second,), (first, 10), (6,), (first, 12))
    assert wiring[14] == (6, 9, 11, 13)


def test_reduction_cells_halve_only_what_comes_from_outside(small: DartsSpace) -> None:
    network = small.network(small.arch_from_genotype(NORMAL, [("sep_conv_3x3", s) for _, s in
                                                              REDUCTION]))  # fmt: skip
    strides = [op.integer("stride") for op in network.ops if op.kind == "sep_conv"]
    assert strides.count(2) == 2 * 5  # edges from 0 and 1 in two reduction cells
    concats = [op.outputs[0] for op in network.ops if op.kind == "concat"]
    assert concats == [
        *[(64, 32, 32)] * 2,
        *[(128, 16, 16)] * 3,
        *[(256, 8, 8)] * 3,
    ]


def test_a_skip_that_reduces_is_a_factorized_reduction(small: DartsSpace) -> None:
    skips = [("skip_connect", source) for _, source in REDUCTION]
    ops = small.ops(small.arch_from_genotype(NORMAL, skips))
    # Five per reduction cell, and the input of the cell after each.
    reductions = [op for op in ops if op.kind == "factorized_reduce"]
    assert len(reductions) == 2 * 5 + 2
    assert [op.attribute("activation") for op in reductions].count("none") == 2


def test_every_op_occurs_in_some_architecture(small: DartsSpace) -> None:
    entries = small.entry_indices(small.sample(2000, np.random.default_rng(1)))
    assert set(np.unique(entries)) - {INACTIVE} == set(range(len(small.slot_entries.ops)))


def test_networks_of_different_depth_share_their_ops(small: DartsSpace) -> None:
    deep = DartsSpace(name="deep", version=1, n_cells=20, channels=16)
    assert set(deep.slot_entries.ops) == set(small.slot_entries.ops)


@pytest.mark.parametrize(
    ("n_cells", "channels", "message"),
    [(2, 16, "2 cells, but two of them reduce"), (8, 15, "channels=15 must be even")],
)
def test_an_impossible_network_is_refused(n_cells: int, channels: int, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        DartsSpace(name="mine", version=1, n_cells=n_cells, channels=channels)


@pytest.mark.parametrize("seed", range(3))
def test_signals_keep_their_scale_through_all_cells_and_depend_on_the_image(
    space: DartsSpace, seed: int
) -> None:
    network = space.network(space.archs(space.extremes())[1])
    module = torch_module(network, seed=seed)
    outputs: list[torch.Tensor] = []
    for op, cell in zip(network.ops, module.ops, strict=True):
        if op.kind == "concat":
            cell.register_forward_hook(lambda _cell, _inputs, output: outputs.append(output))
    images = np.random.default_rng(0).standard_normal((2, *network.input_shape), dtype=np.float32)
    with torch.inference_mode():
        module(torch.from_numpy(images))
    assert len(outputs) == 20
    for output in outputs:
        assert 0.1 < output.std() < 10
        assert (output[0] - output[1]).std() > 0.01 * output.std()


def test_operations_rise_in_cost(small: DartsSpace) -> None:
    archs = [
        small.arch_from_genotype([(operation, source) for _, source in NORMAL], REDUCTION)
        for operation in OPERATIONS[3:]
    ]
    macs = [network_cost(small.network(arch)).macs for arch in archs]
    assert macs == sorted(macs)
