"""Spaces and networks that others published: their sizes, parameters and MACs.

Parameters are published with two per channel of a batch norm. Folded, it leaves one, the bias of
the convolution before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest

from latlas_ops import ArchBatch, ArchConfig, Network, SearchSpace, get_space
from latlas_ops.costs import network_cost, space_costs
from latlas_ops.errors import InvalidInputError
from latlas_ops.lowering import lower
from latlas_ops.spaces.choice_blocks import BlockSpace
from latlas_ops.spaces.mobile import MobileSpace, Stage
from latlas_ops.spaces.mobile_spaces import MCUNET_RESOLUTIONS, MCUNET_WIDTHS, mcunet

PROXYLESS_MOBILE = (  # kernel and expansion per layer; None: left out
    ((5, 3), (3, 3), None, None),
    ((7, 3), (3, 3), (5, 3), (5, 3)),
    ((7, 6), (5, 3), (5, 3), (5, 3)),
    ((5, 6), (5, 3), (5, 3), (5, 3)),
    ((7, 6), (7, 6), (7, 3), (7, 3)),
    ((7, 6),),
)
FBNET_A = (
    "skip k3_e3 k3_e1 skip skip k5_e6 k3_e3 k5_e1 k3_e3 k5_e6 k5_e3 k5_e1_g2 k5_e6 "
    "k3_e6 k5_e1_g2 k5_e3 k3_e1_g2 k5_e6 k5_e6 k5_e3 k5_e6 k5_e6"
)
FBNET_B = (
    "k3_e1 k3_e6 k5_e1 k3_e1 k3_e1 k5_e6 k5_e3 k3_e6 k5_e6 k5_e6 k5_e6 skip k5_e3 "
    "k5_e6 k3_e1 k5_e1 k5_e3 k5_e6 k5_e1 k5_e6 k5_e6 k3_e6"
)
FBNET_C = (
    "k3_e1 k3_e6 skip k3_e1 k3_e1 k5_e6 k5_e3 k5_e6 k3_e6 k5_e6 k5_e3 k5_e6 k5_e6 "
    "k5_e6 k5_e6 k5_e6 k5_e3 k5_e6 k5_e6 k5_e6 k5_e6 k3_e6"
)
MCUNET_320KB = (  # kernel and expansion per layer
    ((7, 3), (3, 5), (7, 5), (5, 4)),
    ((5, 5), (5, 5), (5, 5)),
    ((3, 5), (7, 6), (5, 4)),
    ((5, 5), (7, 5), (3, 5)),
    ((3, 6), (7, 5), (3, 4)),
    ((7, 5),),
)


def published_parameters(network: Network) -> int:
    nodes = lower(network).nodes
    normalised = sum(node.shape[0] for node in nodes if node.primitive == "conv")
    return network_cost(network).parameters + normalised


def block_space(name: str) -> BlockSpace:
    space = get_space(name)
    assert isinstance(space, BlockSpace)
    return space


def arch_of(space: SearchSpace, values: Mapping[str, int | float]) -> ArchConfig:
    """The architecture with these values, the first choice of every other gene."""
    assert set(values) <= {gene.name for gene in space.genes}
    row = [
        gene.choices.index(values[gene.name]) if gene.name in values else 0 for gene in space.genes
    ]
    return space.archs(ArchBatch(space, space.canonical(np.array([row]))))[0]


def mobile_values(layers: Sequence[Sequence[tuple[int, int]]]) -> dict[str, int | float]:
    values: dict[str, int | float] = {}
    for stage, rows in enumerate(layers):
        values[f"stage{stage}.depth"] = len(rows)
        for layer, (kernel, expansion) in enumerate(rows):
            values[f"stage{stage}.layer{layer}.kernel"] = kernel
            values[f"stage{stage}.layer{layer}.expansion"] = expansion
    return values


def macs_at(name: str, resolution: int) -> tuple[float, float]:
    """MACs of the smallest and the largest network at a resolution."""
    space = get_space(name)
    genes = space.extremes().genes.copy()
    genes[:, 0] = space.genes[0].choices.index(resolution)
    smallest, largest = space_costs(ArchBatch(space, genes)).macs
    return smallest, largest


# -- Once-for-All --------------------------------------------------------------------------

STAGE = 9**2 + 9**3 + 9**4
"""Choices of a stage of two to four layers, each of three kernels and three expansions."""


def test_the_released_supernets_have_the_sizes_that_their_choices_give() -> None:
    assert get_space("ofa-mobilenetv3-w1.2").count().distinct_per_resolution == STAGE**5
    assert get_space("ofa-proxyless").count().distinct_per_resolution == STAGE**5 * 9
    stem, widths = 2 * 3**2, 3**4
    layers = (3**2 + 3**3 + 3**4) ** 3 * (3**4 + 3**5 + 3**6)
    assert get_space("ofa-resnet50").count().distinct_per_resolution == stem * widths * layers


def test_width_is_multiplied_and_rounded_as_in_the_released_supernets() -> None:
    wide = get_space("ofa-mobilenetv3-w1.2")
    ops = wide.ops(wide.archs(wide.extremes())[0])
    channels = [op.outputs[0][0] for op in ops]
    assert [channels[0], *channels[1:-1:2]] == [24, 32, 48, 96, 136, 192]
    assert (ops[-1].integer("expanded_channels"), ops[-1].integer("feature_channels")) == (
        1152,
        1536,
    )
    proxyless = get_space("ofa-proxyless")
    ops = proxyless.ops(proxyless.archs(proxyless.extremes())[0])
    channels = [op.outputs[0][0] for op in ops]
    assert [*channels[:2], *channels[2:-1:2]] == [40, 24, 32, 56, 104, 128, 248, 416]
    assert ops[-1].integer("expanded_channels") == 1664
    assert {op.attribute("activation") for op in ops} == {"relu6"}
    assert not any(op.integer("se_channels") for op in ops if op.kind == "mbconv")


def test_mobilenet_v2_of_the_parts_of_ofa_proxyless_has_its_published_cost() -> None:
    plan = ((24, 2, 2), (32, 2, 3), (64, 2, 4), (96, 1, 3), (160, 2, 3), (320, 1, 1))
    space = MobileSpace(
        name="mobilenet-v2",
        version=1,
        in_channels=3,
        classes=1000,
        resolutions=(224,),
        stem_channels=32,
        stem_stride=2,
        stem_activation="relu6",
        first_channels=16,
        stages=[Stage(width, stride, "relu6", depths=(n,)) for width, stride, n in plan],
        depths=(1,),
        kernels=(3,),
        expansions=(6,),
        head_channels=1280,
        head_activation="relu6",
    )
    assert space.count().distinct == 1
    network = space.network(space.archs(space.extremes())[0])
    assert published_parameters(network) == 3_504_872  # torchvision's mobilenet_v2
    assert network_cost(network).macs == pytest.approx(300e6, rel=0.005)  # Sandler et al., table 4


def test_the_middle_of_ofa_resnet50_is_resnet50_d() -> None:
    space = get_space("ofa-resnet50")
    values: dict[str, int | float] = {"resolution": 224, "stem.depth": 3}
    for gene in space.genes:
        if gene.family in ("width", "inner_width"):
            values[gene.name] = 1.0
        elif gene.family == "expansion":
            values[gene.name] = 0.25
    values |= {f"stage{stage}.depth": depth for stage, depth in enumerate((3, 4, 6, 3))}
    network = space.network(arch_of(space, values))
    assert published_parameters(network) == 25_576_264  # timm's resnet50d
    assert network_cost(network).macs == pytest.approx(4.3e9, rel=0.01)  # He et al., table 5


def test_ofa_resnet50_spans_the_macs_of_its_released_networks() -> None:
    # They are called by their MACs, from 0.6 to 4.1 billion.
    assert macs_at("ofa-resnet50", 128)[0] < 0.6e9
    assert macs_at("ofa-resnet50", 224)[1] > 4.1e9


def test_the_stem_of_ofa_resnet50_may_lack_its_middle_convolution() -> None:
    space = get_space("ofa-resnet50")
    stems = [space.ops(arch_of(space, {"stem.depth": depth}))[0] for depth in (2, 3)]
    assert [stem.attribute("residual") for stem in stems] == [False, True]


# -- ProxylessNAS --------------------------------------------------------------------------


def test_proxylessnas_has_seven_choices_where_a_layer_may_be_left_out_and_six_elsewhere() -> None:
    count = get_space("proxylessnas").count()
    assert count.distinct_per_resolution == 6**6 * 7**15 == 221_502_229_807_900_608
    assert count.flat == count.distinct


def proxyless_names(layers: Sequence[Sequence[tuple[int, int] | None]]) -> list[str]:
    return [
        "zero" if layer is None else f"{layer[0]}x{layer[0]}_MBConv{layer[1]}"
        for stage in layers
        for layer in stage
    ]


def test_proxylessnas_mobile_has_its_published_cost() -> None:
    space = block_space("proxylessnas")
    names = proxyless_names(PROXYLESS_MOBILE)
    # The network that was released has 32 channels in its first stage, the search code 24.
    released = replace(space, stages=(replace(space.stages[0], channels=32), *space.stages[1:]))
    network = released.network(released.arch_from_blocks(names, 224))
    assert published_parameters(network) == 4_080_512  # imgclsmob's proxylessnas_mobile
    assert network_cost(network).macs == pytest.approx(320e6, rel=0.005)
    narrower = network_cost(space.network(space.arch_from_blocks(names, 224)))
    assert 0.9 * 320e6 < narrower.macs < 320e6


def test_a_layer_that_is_left_out_runs_nothing() -> None:
    space = block_space("proxylessnas")
    smallest, largest = (space.ops(arch) for arch in space.archs(space.extremes()))
    assert len(largest) == 2 + 21 + 1
    assert len(smallest) == 2 + 6 + 1


def test_an_architecture_is_named_by_its_blocks() -> None:
    space = block_space("proxylessnas")
    names = proxyless_names(PROXYLESS_MOBILE)
    arch = space.arch_from_blocks(names, 160)
    assert space.describe(arch) == f"resolution 160, block {' '.join(names)}"
    with pytest.raises(InvalidInputError, match="has 21 layers, not 20"):
        space.arch_from_blocks(names[1:], 160)
    with pytest.raises(InvalidInputError, match="has no resolution 100; it has 128, 160"):
        space.arch_from_blocks(names, 100)
    with pytest.raises(InvalidInputError, match=r"stage0\.layer0\.block cannot be 'zero'; it can"):
        space.arch_from_blocks(["zero", *names[1:]], 160)


def test_a_stage_of_blocks_needs_one_number_of_layers() -> None:
    space = block_space("proxylessnas")
    with pytest.raises(
        InvalidInputError, match=r"stage 0 needs one number of layers, not \(1, 2\)"
    ):
        replace(space, stages=(Stage(24, 2, depths=(1, 2)),))


# -- FBNet ---------------------------------------------------------------------------------


def test_fbnet_has_nine_choices_for_each_of_22_layers() -> None:
    space = block_space("fbnet")
    assert space.version == 2  # the first lacked the blocks that shuffle channels
    assert len(space.genes[1:]) == 22
    names = "skip k3_e1_g2 k3_e1 k3_e3 k3_e6 k5_e1_g2 k5_e1 k5_e3 k5_e6"
    assert " ".join(space.genes[1].labels) == names
    assert space.count().distinct_per_resolution == 9**22
    assert pytest.approx(9**22, rel=0.02) == 1e21  # section 3.1


@pytest.mark.parametrize(
    ("blocks", "head_channels", "macs", "parameters"),
    [
        (FBNET_A, 1504, 249.4e6, 4.3e6),
        (FBNET_B, 1984, 295.6e6, 4.8e6),
        (FBNET_C, 1984, 383.0e6, 5.5e6),
    ],
    ids=["FBNet-A", "FBNet-B", "FBNet-C"],
)
def test_fbnets_have_their_published_costs(
    blocks: str, head_channels: int, macs: float, parameters: float
) -> None:
    space = replace(block_space("fbnet"), head_channels=head_channels)
    network = space.network(space.arch_from_blocks(blocks.split(), 224))
    # The list of their authors, facebookresearch/mobile-vision, counts something else besides, 4.6
    # to 5 million of each; in table 3 of the paper FBNet-C has 375.
    assert network_cost(network).macs == pytest.approx(macs, rel=0.02)
    # There they are in tenths of a million.
    assert published_parameters(network) == pytest.approx(parameters, rel=0.015)


def test_a_block_in_groups_saves_half_the_macs_of_its_pointwise_convolution() -> None:
    space = block_space("fbnet")
    plain = ["k3_e1"] * 22
    grouped = [*plain[:3], "k3_e1_g2", *plain[4:]]
    costs = [network_cost(space.network(space.arch_from_blocks(b, 224))) for b in (plain, grouped)]
    assert costs[0].macs - costs[1].macs == 56 * 56 * 24 * 12
    assert costs[0].parameters - costs[1].parameters == 24 * 12


def test_a_skip_of_fbnet_that_changes_the_shape_is_a_convolution() -> None:
    space = block_space("fbnet")
    ops = space.ops(space.archs(space.extremes())[0])
    assert [op.kind for op in ops] == ["stem", *["conv"] * 6, "head"]
    assert [op.integer("stride") for op in ops[1:-1]] == [2, 2, 2, 1, 2, 1]


# -- MCUNet --------------------------------------------------------------------------------


def test_tinynas_has_its_published_size() -> None:
    whole = mcunet("whole", widths=MCUNET_WIDTHS, resolutions=MCUNET_RESOLUTIONS)
    n_pairs = len(MCUNET_WIDTHS) * len(MCUNET_RESOLUTIONS)
    assert n_pairs == 108  # section 3.1
    of_one_pair = whole.count().flat // n_pairs
    assert of_one_pair == 3**5 * 12**21
    # The paper's 3.3e25 is that with three depths of the last stage; in the code it has one layer.
    assert 3 * of_one_pair == pytest.approx(3.3e25, rel=0.02)


def test_the_mcunet_for_320_kb_has_its_published_cost() -> None:
    space = get_space("mcunet")
    values = mobile_values(MCUNET_320KB) | {"resolution": 176, "width": 0.5}
    network = space.network(arch_of(space, values))
    assert network_cost(network).macs == pytest.approx(81.8e6, rel=0.001)  # its authors' list
    assert published_parameters(network) == pytest.approx(0.74e6, rel=0.01)
    assert network_cost(network).activation_bytes / 4 < 350e3  # elements; 293 kB in int8


def test_one_width_holds_for_a_whole_network() -> None:
    space = get_space("mcunet")
    for width, channels in (
        (0.3, [16, 8, 8, 16, 24, 32, 56, 96]),
        (0.5, [16, 8, 16, 24, 40, 48, 96, 160]),
    ):
        ops = space.ops(arch_of(space, {"width": width}))
        assert [op.outputs[0][0] for op in (ops[0], *ops[1:-1:2], ops[-2])] == channels
    assert [gene.name for gene in space.genes[:3]] == ["resolution", "width", "stage0.depth"]
