"""Kinds of op that residual networks are made of: ResNet-D, and blocks in groups as in FBNet.

ResNet-D is that of He et al., CVPR 2019, section 4.

Batch norms are folded into the convolutions before them, whose bias they become.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from latlas_ops.errors import InvalidInputError
from latlas_ops.graph import GraphBuilder
from latlas_ops.kind_schema import Attribute, Kind
from latlas_ops.opspec import OpSpec


def _lower_bottleneck(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """1×1, K×K with the stride, 1×1, and a shortcut; the activation of the sum.

    A shortcut that is projected averages before its 1×1 convolution where there is a stride, so
    that no pixel is lost (figure 2c).
    """
    channels, height, width = op.inputs[0]
    activation, stride = str(op.attribute("activation")), op.integer("stride")
    out_channels = op.integer("out_channels")
    tensor = graph.conv("reduce", inputs[0], op.integer("mid_channels"))
    tensor = graph.activation("reduce_act", tensor, activation)
    tensor = graph.conv(
        "spatial",
        tensor,
        op.integer("mid_channels"),
        kernel=op.integer("kernel"),
        stride=stride,
    )
    tensor = graph.activation("spatial_act", tensor, activation)
    tensor = graph.conv("expand", tensor, out_channels)
    shortcut = inputs[0]
    if op.attribute("project"):
        if height % stride or width % stride:
            raise InvalidInputError(
                f"a projected shortcut pools {stride}x{stride} pixels, which do not divide "
                f"{height}x{width}"
            )
        if stride > 1:
            shortcut = graph.pool("shortcut_pool", shortcut, "avg", stride, stride, padding=0)
        shortcut = graph.conv("shortcut", shortcut, out_channels)
    elif stride > 1 or channels != out_channels:
        raise InvalidInputError(
            f"stride {stride} and {out_channels} channels out of {channels} need project=True"
        )
    tensor = graph.add("add", tensor, shortcut)
    return graph.activation("act", tensor, activation)


def _lower_deep_stem(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """Two 3×3 convolutions, an optional one with a shortcut between them, max pooling.

    The stem of OFA-ResNet50; in ResNet-D the middle convolution has no shortcut.
    """
    activation, mid = str(op.attribute("activation")), op.integer("mid_channels")
    tensor = graph.conv("conv1", inputs[0], mid, kernel=3, stride=2)
    tensor = graph.activation("conv1_act", tensor, activation)
    if op.attribute("residual"):
        block = graph.conv("conv2", tensor, mid, kernel=3)
        block = graph.activation("conv2_act", block, activation)
        tensor = graph.add("conv2_skip", block, tensor)
    tensor = graph.conv("conv3", tensor, op.integer("out_channels"), kernel=3)
    tensor = graph.activation("conv3_act", tensor, activation)
    return graph.pool("pool", tensor, "max", 3, 2)


def _lower_grouped_mbconv(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """Inverted residual whose 1×1 convolutions are in groups, channels shuffled between them.

    FBNet (Wu et al., CVPR 2019, section 3.1); the shuffle stands before the depthwise convolution,
    as in the authors' code.
    """
    activation, groups = str(op.attribute("activation")), op.integer("groups")
    expanded, tensor = op.integer("expanded_channels"), inputs[0]
    if op.attribute("expand"):
        tensor = graph.conv("expand", tensor, expanded, groups=groups)
        tensor = graph.activation("expand_act", tensor, activation)
    elif expanded != op.inputs[0][0]:
        raise InvalidInputError(
            f"without expansion expanded_channels={expanded} must equal the input's "
            f"{op.inputs[0][0]} channels"
        )
    tensor = graph.shuffle("shuffle", tensor, groups)
    tensor = graph.conv(
        "depthwise",
        tensor,
        expanded,
        kernel=op.integer("kernel"),
        stride=op.integer("stride"),
        groups=expanded,
    )
    tensor = graph.activation("depthwise_act", tensor, activation)
    tensor = graph.conv("project", tensor, op.integer("out_channels"), groups=groups)
    return graph.add("skip", tensor, inputs[0]) if op.attribute("skip") else tensor


RESIDUAL_KINDS: Mapping[str, Kind] = {
    "bottleneck": Kind(
        {
            "out_channels": Attribute(int),
            "mid_channels": Attribute(int),
            "kernel": Attribute(int, 3),
            "stride": Attribute(int, 1),
            "activation": Attribute.activation("relu"),
            "project": Attribute(bool, False),
        },
        (3,),
        _lower_bottleneck,
    ),
    "grouped_mbconv": Kind(
        {
            "out_channels": Attribute(int),
            "expanded_channels": Attribute(int),
            "expand": Attribute(bool, True),
            "kernel": Attribute(int),
            "stride": Attribute(int, 1),
            "groups": Attribute(int, 2),
            "activation": Attribute.activation("relu"),
            "skip": Attribute(bool, False),
        },
        (3,),
        _lower_grouped_mbconv,
    ),
    "deep_stem": Kind(
        {
            "mid_channels": Attribute(int),
            "out_channels": Attribute(int),
            "residual": Attribute(bool, True),
            "activation": Attribute.activation("relu"),
        },
        (3,),
        _lower_deep_stem,
    ),
}
