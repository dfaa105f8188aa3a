"""How each primitive is written in TFLite. Imports ai-edge-litert: load it by `tflite_writer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from latlas_ops.graph import INPUT_TENSOR, OUTPUT_TENSOR, Graph, Node
from latlas_ops.opspec import Shape
from latlas_ops.weights import Weights
from latlas_ops.writers._tflite_file import TfliteFile, record
from latlas_ops.writers._tflite_plan import (
    Step,
    fuse_activations,
    order_matters,
    padding_scheme,
    reordered_features,
    tensor_shapes,
)
from latlas_ops.writers._tflite_sequence_nodes import attention, layer_norm, shuffle, sliced

_ACTIVATIONS = {
    "none": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
}
_PADDINGS = {"same": schema.Padding.SAME, "valid": schema.Padding.VALID}

_DILATED_DEPTHWISE_VERSION = 2
_GROUPED_CONV_VERSION = 6
_KEEPING_AXES_VERSION = 5

_SEQUENCE_RANK = 2


def build(graph: Graph, weights: Weights, batch: int, name: str) -> tuple[bytes, dict[str, int]]:
    """The FlatBuffer of a graph, and output tensor name → position of the op it belongs to."""
    model = _Model(graph, weights, batch)
    model.file.tensor(INPUT_TENSOR, model.layout(graph.input_shape))
    for step in fuse_activations(graph):
        _WRITERS[step.node.primitive](model, step)
    return model.file.finish(INPUT_TENSOR, OUTPUT_TENSOR, name), model.positions


class _Model:
    """The file, and what the writers of the primitives look up."""

    def __init__(self, graph: Graph, weights: Weights, batch: int) -> None:
        self.file = TfliteFile()
        self.positions: dict[str, int] = {}
        self.shapes = tensor_shapes(graph)
        self.reordered = reordered_features(graph, self.shapes)
        self.nonnegative = {
            node.output for node in graph.nodes if node.primitive in ("relu", "relu6", "hsigmoid")
        }
        self._weights, self._batch = weights, batch

    def layout(self, shape: Shape) -> tuple[int, ...]:
        """`(c, h, w)` → `(batch, h, w, c)`; sequences and vectors as they are."""
        if len(shape) == _SEQUENCE_RANK:
            return (self._batch, *shape)
        return (self._batch, *shape[1:], shape[0])

    def weights(self, node: Node) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weight and bias of a node."""
        weight, bias = node.parameters
        return self._weights[weight.name], self._weights[bias.name]

    def parameters(self, node: Node, weight: NDArray[np.float32]) -> tuple[str, str]:
        """Stores the weight, rearranged for TFLite, and the bias; returns their names."""
        names = [parameter.name for parameter in node.parameters]
        _, bias = self.weights(node)
        return self.file.constant(names[0], weight), self.file.constant(names[1], bias)

    def add(
        self,
        step: Step,
        code: str,
        inputs: tuple[str, ...],
        options: Any = None,
        *,
        part: str = "",
        shape: tuple[int, ...] | None = None,
        version: int = 1,
    ) -> str:
        """An operator of a step; returns the tensor that it writes.

        Args:
            step: the step.
            code: name of the builtin operator.
            inputs: names of its tensors.
            options: the schema's options.
            part: what the operator does, where it is not the last one of the step; its tensor
                is then called `<node name>/<part>`.
            shape: shape of its output; without, that of the node's.
            version: version of the operator.
        """
        output = f"{step.node.name}/{part}" if part else step.output
        self.positions[output] = step.node.position
        shape = self.layout(step.node.shape) if shape is None else shape
        return self.file.operator(code, inputs, output, shape, options, version=version)

    def scalar(self, name: str, value: float) -> str:
        """A float32 constant without axes."""
        return self.file.constant(name, np.array(value, dtype=np.float32))

    def integers(self, name: str, *values: int) -> str:
        """An int32 constant."""
        return self.file.constant(name, np.array(values, dtype=np.int32))


def _padded(model: _Model, step: Step, fill: float = 0.0) -> tuple[str, int]:
    """The input of a window, padded if need be, and the schema's padding for the window."""
    node = step.node
    (tensor,) = node.inputs
    channels, height, width = model.shapes[tensor]
    scheme = padding_scheme(node, (height, width))
    if scheme != "explicit":
        return tensor, _PADDINGS[scheme]
    padding = node.attributes["padding"]
    borders = np.array([[0, 0], [padding] * 2, [padding] * 2, [0, 0]], dtype=np.int32)
    code, options = "PAD", record(schema.PadOptionsT)
    inputs: tuple[str, ...] = (tensor, model.file.constant(f"borders_{padding}", borders))
    if fill:
        code, options = "PADV2", record(schema.PadV2OptionsT)
        inputs += (model.scalar("lowest", fill),)
    shape = model.layout((channels, height + 2 * padding, width + 2 * padding))
    return model.add(step, code, inputs, options, part="pad", shape=shape), schema.Padding.VALID


def _conv(model: _Model, step: Step) -> None:
    node = step.node
    weight, _ = model.weights(node)  # (out, in / groups, k, k)
    groups = node.attributes["groups"]
    depthwise = groups > 1 and weight.shape[1] == 1
    tensor, padding = _padded(model, step)
    dilation = node.attributes.get("dilation", 1)
    window = {
        "padding": padding,
        "strideW": node.attributes["stride"],
        "strideH": node.attributes["stride"],
        "dilationWFactor": dilation,
        "dilationHFactor": dilation,
        "fusedActivationFunction": _ACTIVATIONS[step.activation],
    }
    if depthwise:
        inputs = (tensor, *model.parameters(node, weight.transpose(1, 2, 3, 0)))
        options = record(
            schema.DepthwiseConv2DOptionsT, **window, depthMultiplier=weight.shape[0] // groups
        )
        version = _DILATED_DEPTHWISE_VERSION if dilation > 1 else 1
        model.add(step, "DEPTHWISE_CONV_2D", inputs, options, version=version)
    else:
        inputs = (tensor, *model.parameters(node, weight.transpose(0, 2, 3, 1)))
        version = _GROUPED_CONV_VERSION if groups > 1 else 1
        model.add(step, "CONV_2D", inputs, record(schema.Conv2DOptionsT, **window), version=version)


def _linear(model: _Model, step: Step) -> None:
    weight, _ = model.weights(step.node)  # (out, in)
    (tensor,) = step.node.inputs
    if tensor in model.reordered:
        images = weight.reshape(-1, *model.reordered[tensor])
        weight = images.transpose(0, 2, 3, 1).reshape(weight.shape)
    options = record(
        schema.FullyConnectedOptionsT,
        fusedActivationFunction=_ACTIVATIONS[step.activation],
        keepNumDims=len(step.node.shape) == _SEQUENCE_RANK,
    )
    inputs = (tensor, *model.parameters(step.node, weight))
    version = _KEEPING_AXES_VERSION if options.keepNumDims else 1
    model.add(step, "FULLY_CONNECTED", inputs, options, version=version)


def _max_pool(model: _Model, step: Step) -> None:
    """Zeros pad what a ReLU wrote: they never win there, and more delegates take PAD than PADV2."""
    lowest = 0.0 if step.node.inputs[0] in model.nonnegative else float(np.finfo(np.float32).min)
    tensor, padding = _padded(model, step, fill=lowest)
    model.add(step, "MAX_POOL_2D", (tensor,), _window(step.node, padding, step.activation))


def _avg_pool(model: _Model, step: Step) -> None:
    """SAME leaves the padding out of the mean; explicit zeros are in it and divided out again."""
    tensor, padding = _padded(model, step)
    if tensor in step.node.inputs:
        model.add(step, "AVERAGE_POOL_2D", (tensor,), _window(step.node, padding, step.activation))
        return
    mean = model.add(
        step, "AVERAGE_POOL_2D", (tensor,), _window(step.node, padding, "none"), part="mean"
    )
    shape = model.shapes[step.node.inputs[0]]
    name = "_".join(map(str, ("border_factors", *shape[1:], *step.node.attributes.values())))
    factor = model.file.constant(name, _border_factors(step.node, shape))
    options = record(schema.MulOptionsT, fusedActivationFunction=_ACTIVATIONS[step.activation])
    model.add(step, "MUL", (mean, factor), options)


def _border_factors(node: Node, shape: Shape) -> NDArray[np.float32]:
    """Pixels of the window over those of it that lie in the image, `(1, h, w, 1)`."""
    kernel, stride, padding = (node.attributes[key] for key in ("kernel", "stride", "padding"))
    factors = []
    for length, size in zip(shape[1:], node.shape[1:], strict=True):
        starts = np.arange(size) * stride - padding
        inside = np.minimum(starts + kernel, length) - np.maximum(starts, 0)
        factors.append(kernel / inside)
    return np.outer(*factors).astype(np.float32)[None, :, :, None]


def _window(node: Node, padding: int, activation: str) -> Any:
    kernel, stride = node.attributes["kernel"], node.attributes["stride"]
    return record(
        schema.Pool2DOptionsT,
        padding=padding,
        strideW=stride,
        strideH=stride,
        filterWidth=kernel,
        filterHeight=kernel,
        fusedActivationFunction=_ACTIVATIONS[activation],
    )


def _global_avg_pool(model: _Model, step: Step) -> None:
    inputs = (*step.node.inputs, model.integers("image_axes", 1, 2))
    model.add(step, "MEAN", inputs, record(schema.ReducerOptionsT, keepDims=True))


def _flatten(model: _Model, step: Step) -> None:
    (tensor,) = step.node.inputs
    shape = model.shapes[tensor]
    if order_matters(shape) and step.node.output not in model.reordered:
        batch, height, width, channels = model.layout(shape)
        tensor = model.add(
            step,
            "TRANSPOSE",
            (tensor, model.integers("channels_first", 0, 3, 1, 2)),
            record(schema.TransposeOptionsT),
            part="channels_first",
            shape=(batch, channels, height, width),
        )
    target = model.layout(step.node.shape)
    inputs = (tensor, model.integers(f"shape_{target[1]}", *target))
    model.add(step, "RESHAPE", inputs, record(schema.ReshapeOptionsT, newShape=list(target)))


def _add(model: _Model, step: Step) -> None:
    options = record(schema.AddOptionsT, fusedActivationFunction=_ACTIVATIONS[step.activation])
    model.add(step, "ADD", step.node.inputs, options)


def _mul(model: _Model, step: Step) -> None:
    options = record(schema.MulOptionsT, fusedActivationFunction=_ACTIVATIONS[step.activation])
    model.add(step, "MUL", step.node.inputs, options)


def _hsigmoid(model: _Model, step: Step) -> None:
    """`relu6(x + 3) / 6`, in the two operators that converters write."""
    shifted = model.add(
        step,
        "ADD",
        (*step.node.inputs, model.scalar("three", 3.0)),
        record(schema.AddOptionsT, fusedActivationFunction=_ACTIVATIONS["relu6"]),
        part="shifted",
    )
    model.add(step, "MUL", (shifted, model.scalar("sixth", 1 / 6)), record(schema.MulOptionsT))


def _silu(model: _Model, step: Step) -> None:
    gate = model.add(step, "LOGISTIC", step.node.inputs, part="gate")
    model.add(step, "MUL", (*step.node.inputs, gate), record(schema.MulOptionsT))


def _reshaped(model: _Model, step: Step) -> None:
    """Features are last already: a row of pixels, or a vector that becomes a pixel."""
    target = model.layout(step.node.shape)
    inputs = (*step.node.inputs, model.integers("shape_" + "x".join(map(str, target)), *target))
    model.add(step, "RESHAPE", inputs, record(schema.ReshapeOptionsT, newShape=list(target)))


def _token_mean(model: _Model, step: Step) -> None:
    inputs = (*step.node.inputs, model.integers("token_axis", 1))
    model.add(step, "MEAN", inputs, record(schema.ReducerOptionsT, keepDims=False))


def _zero(model: _Model, step: Step) -> None:
    model.add(
        step, "MUL", (*step.node.inputs, model.scalar("zero", 0.0)), record(schema.MulOptionsT)
    )


def _crop(model: _Model, step: Step) -> None:
    shape = model.layout(step.node.shape)
    begin = model.integers("crop_begin", 0, 1, 1, 0)
    size = model.integers("crop_size_" + "x".join(map(str, shape)), *shape)
    model.add(step, "SLICE", (*step.node.inputs, begin, size), record(schema.SliceOptionsT))


def _concat(model: _Model, step: Step) -> None:
    axis = 1 if len(step.node.shape) == _SEQUENCE_RANK else 3
    model.add(
        step, "CONCATENATION", step.node.inputs, record(schema.ConcatenationOptionsT, axis=axis)
    )


def _unary(
    code: str, options: Callable[[], Any] | None = None, **fields: Any
) -> Callable[[_Model, Step], None]:
    def write(model: _Model, step: Step) -> None:
        model.add(step, code, step.node.inputs, record(options, **fields) if options else None)

    return write


_WRITERS: Mapping[str, Callable[[_Model, Step], None]] = {
    "conv": _conv,
    "linear": _linear,
    "relu": _unary("RELU"),
    "relu6": _unary("RELU6"),
    "hswish": _unary("HARD_SWISH", schema.HardSwishOptionsT),
    "hsigmoid": _hsigmoid,
    "gelu": _unary("GELU", schema.GeluOptionsT, approximate=False),
    "sigmoid": _unary("LOGISTIC"),
    "silu": _silu,
    "tanh": _unary("TANH"),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": _global_avg_pool,
    "flatten": _flatten,
    "add": _add,
    "mul": _mul,
    "concat": _concat,
    "crop": _crop,
    "zero": _zero,
    "layer_norm": layer_norm,
    "softmax": _unary("SOFTMAX", schema.SoftmaxOptionsT, beta=1.0),
    "attention": attention,
    "shuffle": shuffle,
    "slice": sliced,
    "unflatten": _reshaped,
    "tokens": _reshaped,
    "token_mean": _token_mean,
}
