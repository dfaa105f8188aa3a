"""What residual networks are made of: what the kinds lower to, and which shapes they refuse."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from latlas_ops import Network, OpSpec
from latlas_ops.costs import op_cost
from latlas_ops.errors import InvalidInputError
from latlas_ops.lowering import lower
from latlas_ops.weights import random_weights
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
