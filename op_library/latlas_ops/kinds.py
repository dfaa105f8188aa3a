"""The kinds of op: their attributes and how each lowers to primitive nodes.

To add a kind, write its lowering and one `Kind` entry in `KINDS`; shapes, costs and every model
writer follow from the primitives. What cells are made of stands in `latlas_ops.cell_kinds`,
what transformers are made of in `latlas_ops.sequence_kinds`, and the kind whose ops say themselves
how they lower in `latlas_ops.graph_kind`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from latlas_ops.cell_kinds import CELL_KINDS
from latlas_ops.errors import InvalidInputError
from latlas_ops.graph import INPUT_TENSOR, GraphBuilder, Node
from latlas_ops.graph_kind import GRAPH_KINDS
from latlas_ops.kind_schema import Attribute, Kind
from latlas_ops.opspec import AttributeValue, OpSpec, Shape
from latlas_ops.residual_kinds import RESIDUAL_KINDS
from latlas_ops.sequence_kinds import SEQUENCE_KINDS


def _lower_conv(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    tensor = graph.conv(
        "conv",
        inputs[0],
        op.integer("out_channels"),
        kernel=op.integer("kernel"),
        stride=op.integer("stride"),
        groups=op.integer("groups"),
    )
    return graph.activation("act", tensor, str(op.attribute("activation")))


def _lower_depthwise(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    channels = op.inputs[0][0]
    tensor = graph.conv(
        "depthwise",
        inputs[0],
        channels,
        kernel=op.integer("kernel"),
        stride=op.integer("stride"),
        groups=channels,
    )
    return graph.activation("act", tensor, str(op.attribute("activation")))


def _lower_mbconv(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """Inverted residual block (MobileNetV2 table 1; squeeze-excite and h-swish as MobileNetV3)."""
    tensor = inputs[0]
    activation = str(op.attribute("activation"))
    expanded = op.integer("expanded_channels")
    if op.attribute("expand"):
        tensor = graph.conv("expand", tensor, expanded)
        tensor = graph.activation("expand_act", tensor, activation)
    elif expanded != op.inputs[0][0]:
        raise InvalidInputError(
            f"without expansion expanded_channels={expanded} must equal the input's "
            f"{op.inputs[0][0]} channels"
        )
    tensor = graph.conv(
        "depthwise",
        tensor,
        expanded,
        kernel=op.integer("kernel"),
        stride=op.integer("stride"),
        groups=expanded,
    )
    tensor = graph.activation("depthwise_act", tensor, activation)
    if op.integer("se_channels"):
        gate = graph.global_avg_pool("se_pool", tensor)
        gate = graph.conv("se_reduce", gate, op.integer("se_channels"))
        gate = graph.activation("se_act", gate, "relu")
        gate = graph.conv("se_expand", gate, expanded)
        gate = graph.activation("se_gate", gate, "hsigmoid")
        tensor = graph.scale("se_scale", tensor, gate)
    tensor = graph.conv("project", tensor, op.integer("out_channels"))
    if op.attribute("skip"):
        tensor = graph.add("skip", tensor, inputs[0])
    return tensor


def _lower_pool(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    mode = str(op.attribute("mode"))
    kernel, stride = op.integer("kernel"), op.integer("stride")
    if mode == "global_avg":
        if (kernel, stride) != (1, 1):
            raise InvalidInputError("global_avg covers the whole image: no kernel and no stride")
        return graph.global_avg_pool("pool", inputs[0])
    return graph.pool("pool", inputs[0], mode, kernel, stride)


def _lower_linear(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    tensor = graph.linear("linear", inputs[0], op.integer("out_features"))
    return graph.activation("act", tensor, str(op.attribute("activation")))


def _lower_stem(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """First convolution and, where `separable`, the first block (expansion 1, kernel 3, skip)."""
    channels = op.integer("out_channels")
    tensor = graph.conv(
        "conv", inputs[0], channels, kernel=op.integer("kernel"), stride=op.integer("stride")
    )
    tensor = graph.activation("act", tensor, str(op.attribute("activation")))
    if op.attribute("separable"):
        block = graph.conv("depthwise", tensor, channels, kernel=3, groups=channels)
        block = graph.activation("depthwise_act", block, "relu")
        block = graph.conv("project", block, channels)
        tensor = graph.add("skip", block, tensor)
    return tensor


def _lower_head(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """1×1 convolution, pooling, optional feature mixing, classifier (MobileNetV3 figure 5)."""
    activation = str(op.attribute("activation"))
    tensor = graph.conv("expand", inputs[0], op.integer("expanded_channels"))
    tensor = graph.activation("expand_act", tensor, activation)
    tensor = graph.global_avg_pool("pool", tensor)
    if op.integer("feature_channels"):
        tensor = graph.conv("features", tensor, op.integer("feature_channels"))
        tensor = graph.activation("features_act", tensor, activation)
    tensor = graph.flatten("flatten", tensor)
    return graph.linear("classifier", tensor, op.integer("classes"))


_KERNEL = Attribute(int)
_STRIDE = Attribute(int, 1)

KINDS: Mapping[str, Kind] = {
    "conv": Kind(
        {
            "out_channels": Attribute(int),
            "kernel": _KERNEL,
            "stride": _STRIDE,
            "groups": Attribute(int, 1),
            "activation": Attribute.activation("none"),
        },
        (3,),
        _lower_conv,
    ),
    "depthwise": Kind(
        {"kernel": _KERNEL, "stride": _STRIDE, "activation": Attribute.activation("none")},
        (3,),
        _lower_depthwise,
    ),
    "mbconv": Kind(
        {
            "out_channels": Attribute(int),
            "expanded_channels": Attribute(int),
            "expand": Attribute(bool, True),
            "kernel": _KERNEL,
            "stride": _STRIDE,
            "activation": Attribute.activation("relu"),
            "se_channels": Attribute(int, 0, minimum=0),
            "skip": Attribute(bool, False),
        },
        (3,),
        _lower_mbconv,
    ),
    "pool": Kind(
        {
            "mode": Attribute(str, choices=("max", "avg", "global_avg")),
            "kernel": Attribute(int, 1),
            "stride": _STRIDE,
        },
        (3,),
        _lower_pool,
    ),
    "linear": Kind(
        {"out_features": Attribute(int), "activation": Attribute.activation("none")},
        ((1, 2),),
        _lower_linear,
    ),
    "stem": Kind(
        {
            "out_channels": Attribute(int),
            "kernel": Attribute(int, 3),
            "stride": Attribute(int, 2),
            "activation": Attribute.activation("hswish"),
            "separable": Attribute(bool, True),
        },
        (3,),
        _lower_stem,
    ),
    "head": Kind(
        {
            "expanded_channels": Attribute(int),
            "feature_channels": Attribute(int, 0, minimum=0),
            "classes": Attribute(int),
            "activation": Attribute.activation("hswish"),
        },
        (3,),
        _lower_head,
    ),
    **CELL_KINDS,
    **RESIDUAL_KINDS,
    **SEQUENCE_KINDS,
    **GRAPH_KINDS,
}


def complete_attributes(
    kind: str, given: Mapping[str, AttributeValue], inputs: tuple[Shape, ...]
) -> dict[str, AttributeValue]:
    """The attributes of an op with defaults filled in.

    Raises:
        InvalidInputError: unknown kind; missing, unknown or ill-typed attribute; bad shapes.
    """
    if kind not in KINDS:
        raise InvalidInputError(f"unknown op kind {kind!r}; known: {', '.join(KINDS)}")
    schema = KINDS[kind]
    unknown = sorted(set(given) - set(schema.attributes))
    if unknown:
        raise InvalidInputError(
            f"{kind} has no attribute {unknown[0]!r}; it has {', '.join(schema.attributes)}"
        )
    full: dict[str, AttributeValue] = {}
    for name, attribute in schema.attributes.items():
        value = given.get(name, attribute.default)
        if value is None:
            raise InvalidInputError(f"{kind} needs the attribute {name!r}")
        full[name] = _checked(kind, name, value, attribute)
    if not schema.takes(inputs):
        more = " or more like the last" if schema.variadic else ""
        raise InvalidInputError(
            f"{kind} takes inputs with {schema.ranks_in_words} axes{more}, not shapes {inputs}"
        )
    if any(size < 1 for shape in inputs for size in shape):
        raise InvalidInputError(f"{kind}: input shapes {inputs} must be positive")
    return full


def _checked(kind: str, name: str, value: object, attribute: Attribute) -> AttributeValue:
    if attribute.type is bool:
        if isinstance(value, bool):
            return value
    elif attribute.type is int:
        if isinstance(value, int) and not isinstance(value, bool):
            if value < attribute.minimum:
                raise InvalidInputError(f"{kind}: {name}={value} is less than {attribute.minimum}")
            return value
    elif isinstance(value, str):
        if attribute.choices and value not in attribute.choices:
            raise InvalidInputError(
                f"{kind}: {name}={value!r} is not one of {', '.join(attribute.choices)}"
            )
        return value
    raise InvalidInputError(f"{kind}: {name} must be {attribute.type.__name__}, not {value!r}")


def output_shapes(op: OpSpec) -> tuple[Shape, ...]:
    """Output shapes of an op without the batch axis, inferred by lowering it.

    Raises:
        InvalidInputError: the attributes do not fit the input shape.
    """
    graph, output = _lower_alone(op)
    return (graph.shape(output),)


def op_nodes(op: OpSpec) -> tuple[Node, ...]:
    """The primitive nodes of an op on its own, which reads the tensors of `op_input_names`."""
    graph, _ = _lower_alone(op)
    return tuple(graph.nodes)


def op_input_names(op: OpSpec) -> tuple[str, ...]:
    """What the tensors are called that an op on its own reads, one per input."""
    return tuple(f"{INPUT_TENSOR}{index}" for index in range(len(op.inputs)))


def _lower_alone(op: OpSpec) -> tuple[GraphBuilder, str]:
    """The nodes of an op, each of its inputs a tensor of its own, and the name of its output."""
    names = op_input_names(op)
    graph = GraphBuilder(shapes=dict(zip(names, op.inputs, strict=True)))
    try:
        return graph, KINDS[op.kind].lower(op, graph, names)
    except InvalidInputError as error:
        raise InvalidInputError(f"{op}: {error}") from error
