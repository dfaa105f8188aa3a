"""What residual networks are made of: what the kinds lower to, and which shapes they refuse."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from latlas_ops import Network, OpSpec
from latlas_ops.costs import op_cost
from latlas_ops.errors import InvalidInputError
from latlas_ops.graph import INPUT_TENSOR, GraphBuilder
from latlas_ops.lowering import lower
from latlas_ops.weights import random_weights
from latlas_ops.writers._torch_module import NetworkModule
from latlas_ops.writers.torch_writer import torch_module


def parts(op: OpSpec) -> list[str]:
    return [node.name.rpartition("/")[2] for node in lower(Network.chain([op])).nodes]


def bottleneck(shape: tuple[int, int, int], **changes: Any) -> OpSpec:
    return OpSpec.of("bottleneck", shape, **{"out_channels": 16, "mid_channels": 4, **changes})


def test_a_bottleneck_narrows_convolves_widens_and_rectifies_the_sum() -> None:
    op = bottleneck((16, 5, 7))
    inside = ["reduce", "reduce_act", "spatial", "spatial_act", "expand"]
    assert parts(op) == [*inside, "add", "act"]
    assert op.outputs == ((16, 5, 7),)
    assert op_cost(op).macs == 5 * 7 * (16 * 4 + 4 * 4 * 9 + 4 * 16)


def test_a_projected_shortcut_averages_before_its_convolution_where_there_is_a_stride() -> None:
    op = bottleneck((8, 6, 4), stride=2, project=True)
    assert parts(op)[-4:] == ["shortcut_pool", "shortcut", "add", "act"]
    assert op.outputs == ((16, 3, 2),)
    assert op_cost(op).macs == 6 * 4 * 8 * 4 + 3 * 2 * (4 * 4 * 9 + 4 * 16 + 8 * 16)
    assert "shortcut_pool" not in parts(bottleneck((8, 5, 5), project=True))


def test_a_bottleneck_computes_what_torch_computes_by_hand() -> None:
    network = Network.chain([bottleneck((8, 6, 4), stride=2, project=True)])
    weights = random_weights(lower(network), np.random.default_rng(0))
    image = torch.randn(2, 8, 6, 4, generator=torch.Generator().manual_seed(0))

    def conv(part: str, x: torch.Tensor, **how: int) -> torch.Tensor:
        weight, bias = (
            torch.from_numpy(weights[f"0.{part}.{role}"]) for role in ("weight", "bias")
        )
        return functional.conv2d(x, weight, bias, **how)

    inside = conv("reduce", image).relu()
    inside = conv("spatial", inside, stride=2, padding=1).relu()
    expected = (conv("expand", inside) + conv("shortcut", functional.avg_pool2d(image, 2))).relu()
    with torch.inference_mode():
        torch.testing.assert_close(torch_module(network, weights)(image), expected)


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((8, 6, 6), {}, "stride 1 and 16 channels out of 8 need project=True"),
        ((16, 6, 6), {"stride": 2}, "stride 2 and 16 channels out of 16 need project=True"),
        ((16, 7, 6), {"stride": 2, "project": True}, "2x2 pixels, which do not divide 7x6"),
    ],
)
def test_a_shortcut_that_does_not_fit_is_refused(
    shape: tuple[int, int, int], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        bottleneck(shape, **changes)


def test_a_deep_stem_quarters_the_image_with_or_without_its_middle() -> None:
    full, short = (
        OpSpec.of("deep_stem", (3, 32, 24), mid_channels=8, out_channels=16, residual=residual)
        for residual in (True, False)
    )
    assert full.outputs == short.outputs == ((16, 8, 6),)
    assert [part for part in parts(full) if part not in parts(short)] == [
        "conv2",
        "conv2_act",
        "conv2_skip",
    ]
    assert op_cost(full).macs - op_cost(short).macs == 16 * 12 * 8 * 8 * 9


def test_a_block_in_groups_computes_what_torch_computes_by_hand() -> None:
    op = OpSpec.of("grouped_mbconv", (6, 5, 7), out_channels=6, expanded_channels=12, kernel=3)
    assert parts(op) == [
        *("expand", "expand_act", "shuffle", "depthwise", "depthwise_act", "project")
    ]
    assert op_cost(op).macs == 5 * 7 * (6 * 12 // 2 + 12 * 9 + 12 * 6 // 2)
    network = Network.chain([op])
    weights = random_weights(lower(network), np.random.default_rng(0))
    image = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(0))

    def conv(part: str, x: torch.Tensor, **how: int) -> torch.Tensor:
        weight, bias = (
            torch.from_numpy(weights[f"0.{part}.{role}"]) for role in ("weight", "bias")
        )
        return functional.conv2d(x, weight, bias, **how)

    inside = functional.channel_shuffle(conv("expand", image, groups=2).relu(), 2)
    inside = conv("depthwise", inside, padding=1, groups=12).relu()
    expected = conv("project", inside, groups=2)
    with torch.inference_mode():
        torch.testing.assert_close(torch_module(network, weights)(image), expected)


def test_a_shuffle_deals_the_channels_of_the_groups_out_in_turn() -> None:
    graph = GraphBuilder(shapes={INPUT_TENSOR: (6, 1, 1)})
    graph.begin(0, "digest")
    graph.shuffle("shuffle", INPUT_TENSOR, 2)
    image = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert NetworkModule(graph.finish(), {})(image).flatten().tolist() == [0, 3, 1, 4, 2, 5]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": 4}, "expand: 4 groups do not divide 6 into 12 channels"),
        ({"expand": False}, "without expansion expanded_channels=12 must equal the input's 6"),
        (
            {"expand": False, "expanded_channels": 6, "groups": 4},
            "shuffle: 4 groups do not divide 6 channels",
        ),
    ],
)
def test_a_block_whose_groups_do_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    attributes = {"out_channels": 6, "expanded_channels": 12, "kernel": 3, **changes}
    with pytest.raises(InvalidInputError, match=message):
        OpSpec.of("grouped_mbconv", (6, 5, 7), **attributes)
