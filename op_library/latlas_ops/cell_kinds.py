"""Kinds of op that cells are made of: NAS-Bench-201 (Dong & Yang, 2020), DARTS (Liu et al., 2019).

Batch norms are folded into the convolutions before them, whose bias they become.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from latlas_ops.errors import InvalidInputError
from latlas_ops.graph import ACTIVATIONS, GraphBuilder
from latlas_ops.kind_schema import Attribute, Kind
from latlas_ops.opspec import OpSpec


def _lower_activation(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    return graph.activation("act", inputs[0], str(op.attribute("activation")))


def _lower_add(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """Sum of all inputs, one after another, as runtimes and frameworks add."""
    tensor = inputs[0]
    for index, other in enumerate(inputs[1:], start=1):
        tensor = graph.add(f"add{index}", tensor, other)
    return tensor


def _lower_concat(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    return graph.concat("concat", inputs)


def _lower_zero(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    return graph.zero("zero", inputs[0])


def _lower_conv_add(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """A convolution of the first input that is added to the second; the activation of the sum."""
    tensor = graph.conv(
        "conv",
        inputs[0],
        op.integer("out_channels"),
        kernel=op.integer("kernel"),
        stride=op.integer("stride"),
    )
    tensor = graph.add("add", tensor, inputs[1])
    return graph.activation("act", tensor, str(op.attribute("activation")))


def _lower_sep_conv(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """Activation, depthwise, pointwise, twice; the first depthwise has the stride (DARTS)."""
    tensor = inputs[0]
    activation, kernel = str(op.attribute("activation")), op.integer("kernel")
    channels = graph.shape(tensor)[0]
    for turn, stride, out_channels in (
        (1, op.integer("stride"), channels),
        (2, 1, op.integer("out_channels")),
    ):
        tensor = graph.activation(f"act{turn}", tensor, activation)
        tensor = graph.conv(
            f"depthwise{turn}", tensor, channels, kernel=kernel, stride=stride, groups=channels
        )
        tensor = graph.conv(f"pointwise{turn}", tensor, out_channels)
    return tensor


def _lower_dil_conv(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """Activation, dilated depthwise, pointwise (DARTS)."""
    tensor = graph.activation("act", inputs[0], str(op.attribute("activation")))
    channels = graph.shape(tensor)[0]
    tensor = graph.conv(
        "depthwise",
        tensor,
        channels,
        kernel=op.integer("kernel"),
        stride=op.integer("stride"),
        groups=channels,
        dilation=op.integer("dilation"),
    )
    return graph.conv("pointwise", tensor, op.integer("out_channels"))


def _lower_factorized_reduce(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """Activation, and half the channels each from the even and the odd pixels (DARTS)."""
    _, height, width = op.inputs[0]
    channels = op.integer("out_channels")
    if height % 2 or width % 2 or channels % 2:
        raise InvalidInputError(
            f"factorized_reduce halves the image and splits its channels: {height}x{width} and "
            f"out_channels={channels} must be even"
        )
    tensor = graph.activation("act", inputs[0], str(op.attribute("activation")))
    even = graph.conv("even", tensor, channels // 2, stride=2)
    odd = graph.conv("odd", graph.crop("shift", tensor), channels // 2, stride=2)
    return graph.concat("concat", (even, odd))


def _lower_reduction_block(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """Two convolutions with their activations before them, beside pooling (NAS-Bench-201)."""
    _, height, width = op.inputs[0]
    if height % 2 or width % 2:
        raise InvalidInputError(f"reduction_block halves the image: {height}x{width} must be even")
    activation, channels = str(op.attribute("activation")), op.integer("out_channels")
    tensor = graph.activation("act1", inputs[0], activation)
    tensor = graph.conv("conv1", tensor, channels, kernel=3, stride=2)
    tensor = graph.activation("act2", tensor, activation)
    tensor = graph.conv("conv2", tensor, channels, kernel=3)
    # A window of 2 needs no padding where the sides are even.
    shortcut = graph.pool("pool", inputs[0], "avg", 2, 2, padding=0)
    shortcut = graph.conv("shortcut", shortcut, channels)
    return graph.add("add", shortcut, tensor)


def _lower_classifier(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """Optional batch norm and activation, global pooling, linear layer.

    A batch norm that follows a sum has no convolution to be folded into. It is a depthwise
    convolution of kernel 1: a scale and a bias per channel.
    """
    tensor = inputs[0]
    if op.attribute("norm"):
        channels = graph.shape(tensor)[0]
        tensor = graph.conv("norm", tensor, channels, groups=channels)
    tensor = graph.activation("act", tensor, str(op.attribute("activation")))
    tensor = graph.flatten("flatten", graph.global_avg_pool("pool", tensor))
    return graph.linear("classifier", tensor, op.integer("classes"))


_CHANNELS, _KERNEL, _STRIDE = Attribute(int), Attribute(int), Attribute(int, 1)
_RELU = Attribute.activation("relu")
_IMAGE_OR_SEQUENCE = (2, 3)

CELL_KINDS: Mapping[str, Kind] = {
    "activation": Kind(
        {"activation": Attribute(str, "relu", choices=ACTIVATIONS[1:])},
        (_IMAGE_OR_SEQUENCE,),
        _lower_activation,
    ),
    "add": Kind({}, (_IMAGE_OR_SEQUENCE,) * 2, _lower_add, variadic=True),
    "concat": Kind({}, (3, 3), _lower_concat, variadic=True),
    "zero": Kind({}, (_IMAGE_OR_SEQUENCE,), _lower_zero),
    "conv_add": Kind(
        {
            "out_channels": _CHANNELS,
            "kernel": _KERNEL,
            "stride": _STRIDE,
            "activation": Attribute.activation("none"),
        },
        (3, 3),
        _lower_conv_add,
    ),
    "sep_conv": Kind(
        {"out_channels": _CHANNELS, "kernel": _KERNEL, "stride": _STRIDE, "activation": _RELU},
        (3,),
        _lower_sep_conv,
    ),
    "dil_conv": Kind(
        {
            "out_channels": _CHANNELS,
            "kernel": _KERNEL,
            "stride": _STRIDE,
            "dilation": Attribute(int, 2),
            "activation": _RELU,
        },
        (3,),
        _lower_dil_conv,
    ),
    "factorized_reduce": Kind(
        {"out_channels": _CHANNELS, "activation": _RELU}, (3,), _lower_factorized_reduce
    ),
    "reduction_block": Kind(
        {"out_channels": _CHANNELS, "activation": _RELU}, (3,), _lower_reduction_block
    ),
    "classifier": Kind(
        {
            "classes": Attribute(int),
            "norm": Attribute(bool, False),
            "activation": Attribute.activation("none"),
        },
        (3,),
        _lower_classifier,
    ),
}
