"""What cells are made of: what the kinds lower to, and which shapes they refuse."""

from typing import Any

import numpy as np
import pytest
import torch

from latlas_ops import Network, OpSpec
from latlas_ops.costs import op_cost
from latlas_ops.errors import InvalidInputError
from latlas_ops.lowering import lower
from latlas_ops.writers.torch_writer import torch_module


def parts(op: OpSpec) -> list[str]:
    return [node.name.rpartition("/")[2] for node in lower(Network.chain([op])).nodes]


def test_a_sum_of_many_is_added_one_by_one() -> None:
    assert parts(OpSpec.of("add", *[(4, 5, 5)] * 4)) == ["add1", "add2", "add3"]


def test_a_separable_convolution_is_two_of_them_with_activations_before() -> None:
    op = OpSpec.of("sep_conv", (8, 8, 8), out_channels=16, kernel=3, stride=2)
    turns = [f"{part}{turn}" for turn in (1, 2) for part in ("act", "depthwise", "pointwise")]
    assert parts(op) == turns
    assert op.outputs == ((16, 4, 4),)
    assert op_cost(op).macs == 16 * (8 * 9 + 8 * 8 + 8 * 9 + 8 * 16)


@pytest.mark.parametrize(("kernel", "dilation"), [(3, 2), (5, 2), (3, 3)])
def test_dilation_keeps_the_size_of_the_image(kernel: int, dilation: int) -> None:
    op = OpSpec.of("dil_conv", (4, 9, 9), out_channels=4, kernel=kernel, dilation=dilation)
    assert op.outputs == ((4, 9, 9),)


def test_a_factorized_reduction_sees_the_even_and_the_odd_pixels() -> None:
    op = OpSpec.of("factorized_reduce", (1, 4, 4), out_channels=2, activation="none")
    weights = {
        "0.even.weight": np.ones((1, 1, 1, 1), np.float32),
        "0.even.bias": np.zeros(1, np.float32),
        "0.odd.weight": np.ones((1, 1, 1, 1), np.float32),
        "0.odd.bias": np.zeros(1, np.float32),
    }
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    with torch.inference_mode():
        output = torch_module(Network.chain([op]), weights)(image)
    assert output[0, 0].tolist() == [[0, 2], [8, 10]]
    assert output[0, 1].tolist() == [[5, 7], [13, 15]]


def test_a_zero_op_gives_zeros() -> None:
    module = torch_module(Network.chain([OpSpec.of("zero", (3, 4, 4))]))
    with torch.inference_mode():
        assert not module(torch.ones(1, 3, 4, 4)).any()


def test_a_convolution_after_zeros_has_finite_weights() -> None:
    network = Network.chain(
        [OpSpec.of("zero", (3, 4, 4)), OpSpec.of("conv", (3, 4, 4), out_channels=2, kernel=1)]
    )
    with torch.inference_mode():
        assert torch.isfinite(torch_module(network)(torch.ones(1, 3, 4, 4))).all()


@pytest.mark.parametrize(
    ("kind", "inputs", "attributes", "message"),
    [
        ("add", [(4, 5, 5)], {}, "add takes inputs with 2 or 3, 2 or 3 axes or more like the last"),
        ("add", [(4, 5, 5), (4, 5, 6)], {}, "cannot add (4, 5, 5) and (4, 5, 6)"),
        ("concat", [(4, 5, 5), (4, 6, 5)], {}, "images or tokens of different size"),
        ("concat", [(4, 5, 5), (4,)], {}, "concat takes inputs with"),
        (
            "conv_add",
            [(4, 5, 5), (8, 5, 5)],
            {"out_channels": 4, "kernel": 3},
            "cannot add (4, 5, 5) and (8, 5, 5)",
        ),
        ("factorized_reduce", [(4, 5, 4)], {"out_channels": 4}, "5x4 and out_channels=4 must be"),
        ("factorized_reduce", [(4, 4, 4)], {"out_channels": 3}, "out_channels=3 must be even"),
        ("reduction_block", [(4, 4, 7)], {"out_channels": 8}, "4x7 must be even"),
        ("activation", [(4, 4, 4)], {"activation": "none"}, "'none' is not one of relu"),
    ],
)
def test_what_does_not_fit_is_refused(
    kind: str, inputs: list[tuple[int, ...]], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        OpSpec.of(kind, *inputs, **attributes)
    assert message in str(caught.value)
