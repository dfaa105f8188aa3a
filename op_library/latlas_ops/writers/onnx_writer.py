"""Networks as ONNX models, written node by node with `onnx.helper`.

A model says twice which op each of its nodes belongs to: node names begin with the position and
digest of the op, and `OnnxProgram.tensor_positions` maps output tensors to positions. A runtime
that optimises a model may keep only one of the two: onnxruntime's blocked convolutions keep the
node's name and rename its output, an inlined HardSwish loses its name and keeps its output. What
is written as several nodes gives all of them the name of the one primitive, with a part behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas_ops.errors import MissingDependencyError
from latlas_ops.graph import INPUT_TENSOR, MASKED, OUTPUT_TENSOR, Graph, Node
from latlas_ops.network import Network
from latlas_ops.weights import Weights
from latlas_ops.writers._prepare import prepare

if TYPE_CHECKING:
    import onnx

OPSET = 17
"""Operator set of the models; onnxruntime reads it from version 1.12 on."""

IR_VERSION = 8
"""Format version of the models; the one that belongs to `OPSET`."""

_CONSTANTS: Mapping[str, Mapping[str, NDArray[Any]]] = {
    "relu6": {
        "relu6_min": np.array(0, dtype=np.float32),
        "relu6_max": np.array(6, dtype=np.float32),
    },
    "crop": {
        "crop_starts": np.array([1, 1], dtype=np.int64),
        "crop_ends": np.array([np.iinfo(np.int64).max] * 2, dtype=np.int64),
        "crop_axes": np.array([2, 3], dtype=np.int64),
    },
}
"""Inputs that every node of a primitive shares, stored once in a model that has such a node."""


@dataclass(frozen=True)
class OnnxProgram:
    """An ONNX model and where its tensors come from.

    Attributes:
        model_bytes: the serialised model; equal networks and weights give equal bytes.
        tensor_positions: output tensor name → position in the network of the op it belongs to.
    """

    model_bytes: bytes
    tensor_positions: dict[str, int]


def write_onnx(
    network: Network,
    weights: Weights | None = None,
    *,
    batch: int = 1,
    seed: int = 0,
    name: str = "latlas",
) -> OnnxProgram:
    """The ONNX model of a network, with tensors `input` and `output`, float32, NCHW.

    Args:
        network: one op, a chain or a whole architecture.
        weights: parameter name → float32 array; random ones if None.
        batch: size of the batch axis, fixed in the model.
        seed: seed of the random weights; without effect where `weights` is given.
        name: name of the graph inside the model.

    Raises:
        InvalidInputError: an op is not float32, the weights do not fit, `batch` is not positive.
        MissingDependencyError: the package `onnx` is not installed.
    """
    try:
        from onnx import TensorProto, helper
    except ImportError as error:
        raise MissingDependencyError(
            'writing an ONNX model needs the package onnx: pip install "latlas[coordinator]"'
        ) from error

    graph, weights = prepare(network, weights, seed, batch)

    def value(tensor: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(tensor, TensorProto.FLOAT, (batch, *shape))

    parts = [part for node in graph.nodes for part in _parts(node)]
    nodes = [
        helper.make_node(part.operator, part.inputs, [part.output], part.name, **part.attributes)
        for part in parts
    ]
    initializers = [
        helper.make_tensor(
            name,
            TensorProto.INT64 if array.dtype == np.int64 else TensorProto.FLOAT,
            array.shape,
            _little_endian(array),
            raw=True,
        )
        for name, array in _constants(graph, weights, parts).items()
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            name,
            [value(INPUT_TENSOR, graph.input_shape)],
            [value(OUTPUT_TENSOR, graph.output_shape)],
            initializers,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="latlas",
    )
    positions = {part.output: part.position for part in parts}
    return OnnxProgram(model.SerializeToString(deterministic=True), positions)


@dataclass(frozen=True)
class _Part:
    """A node of the model: all of a primitive, or a part of it.

    Attributes:
        operator: ONNX operator.
        name: name of the node.
        position: position of the op that it belongs to.
        inputs: names of tensors, weights and constants.
        output: name of its output.
        attributes: of the operator.
        constants: constants among the inputs, which are not weights, by name; a name stands for
            its value.
    """

    operator: str
    name: str
    position: int
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]
    constants: Mapping[str, NDArray[Any]]


def _parts(node: Node) -> list[_Part]:
    """The nodes that a primitive is written as, in execution order."""
    if node.primitive in _COMPOSED:
        return _COMPOSED[node.primitive](node)
    constants = _CONSTANTS.get(node.primitive, {})
    parameters = tuple(parameter.name for parameter in node.parameters)
    # A product with 0 would be folded into the convolution before it.
    tensors = node.inputs * 2 if node.primitive == "zero" else node.inputs
    attributes = _ATTRIBUTES.get(node.primitive, _no_attributes)(node)
    return [
        _Part(
            _OPERATORS[node.primitive],
            node.name,
            node.position,
            (*tensors, *parameters, *constants),
            node.output,
            attributes,
            constants,
        )
    ]


def _constants(graph: Graph, weights: Weights, parts: Sequence[_Part]) -> dict[str, NDArray[Any]]:
    """Everything the model stores: the weights in execution order, then shared constants."""
    constants: dict[str, NDArray[Any]] = {}
    for node in graph.nodes:
        for parameter in node.parameters:
            array = weights[parameter.name]
            transposed = node.primitive == "linear" and len(node.shape) > 1 and array.ndim == 2
            constants[parameter.name] = array.T if transposed else array
    for part in parts:
        constants |= part.constants
    return constants


def _little_endian(array: NDArray[Any]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


class _Composer:
    """Collects the nodes of one primitive."""

    def __init__(self, node: Node) -> None:
        self.parts: list[_Part] = []
        self._node = node

    def add(
        self, operator: str, part: str, *inputs: str | Mapping[str, NDArray[Any]], **attributes: Any
    ) -> str:
        """A node; returns the name of its output.

        Args:
            operator: ONNX operator.
            part: what the node does, which ends its name; empty for the last node of the primitive.
            inputs: names of tensors and weights, or constants by name.
            attributes: of the operator.
        """
        node = self._node
        name = f"{node.name}/{part}" if part else node.name
        constants: dict[str, NDArray[Any]] = {}
        names: list[str] = []
        for given in inputs:
            if isinstance(given, str):
                names.append(given)
            else:
                constants |= given
                names += given
        output = name if part else node.output
        self.parts.append(
            _Part(operator, name, node.position, tuple(names), output, attributes, constants)
        )
        return output


def _scalar(name: str, value: float) -> dict[str, NDArray[Any]]:
    return {name: np.array(value, dtype=np.float32)}


def _integers(name: str, *values: int) -> dict[str, NDArray[Any]]:
    return {name: np.array(values, dtype=np.int64)}


def _linear(node: Node) -> list[_Part]:
    """`Gemm` on a vector; on a sequence product and sum, as exporters write it."""
    made = _Composer(node)
    weight, bias = (parameter.name for parameter in node.parameters)
    if len(node.shape) == 1:
        made.add("Gemm", "", *node.inputs, weight, bias, transB=1)
    else:
        made.add("Add", "", made.add("MatMul", "product", *node.inputs, weight), bias)
    return made.parts


def _gelu(node: Node) -> list[_Part]:
    """`x (1 + erf(x / sqrt 2)) / 2`, node by node as exporters write it; runtimes fuse it."""
    made = _Composer(node)
    (tensor,) = node.inputs
    scaled = made.add("Div", "scaled", tensor, _scalar("gelu_root_of_two", math.sqrt(2)))
    shifted = made.add("Add", "shifted", made.add("Erf", "erf", scaled), _scalar("gelu_one", 1))
    gated = made.add("Mul", "gated", tensor, shifted)
    made.add("Mul", "", gated, _scalar("gelu_half", 0.5))
    return made.parts


def _silu(node: Node) -> list[_Part]:
    """`x sigmoid(x)`, as exporters write it; runtimes fuse it."""
    made = _Composer(node)
    made.add("Mul", "", *node.inputs, made.add("Sigmoid", "gate", *node.inputs))
    return made.parts


def _unflatten(node: Node) -> list[_Part]:
    made = _Composer(node)
    made.add("Reshape", "", *node.inputs, _integers("one_pixel", 0, -1, 1, 1))
    return made.parts


def _tokens(node: Node) -> list[_Part]:
    """Pixels in a row, then features last; 0 in a shape keeps an axis."""
    made = _Composer(node)
    row = made.add("Reshape", "row", *node.inputs, _integers("pixels_in_a_row", 0, 0, -1))
    made.add("Transpose", "", row, perm=[0, 2, 1])
    return made.parts


def _attention(node: Node) -> list[_Part]:
    """Heads split, scored, mixed and merged, as exporters write it; 0 in a shape keeps an axis."""
    made = _Composer(node)
    (_, width), heads = node.shape, node.attributes["heads"]
    each = width // heads
    split = _integers(f"split_{heads}x{each}", 0, 0, heads, each)
    tensors = [
        made.add(
            "Transpose",
            f"{name}_heads",
            made.add("Reshape", f"{name}_split", tensor, split),
            perm=[0, 2, 3, 1] if name == "key" else [0, 2, 1, 3],
        )
        for name, tensor in zip(("query", "key", "value"), node.inputs, strict=True)
    ]
    scores = made.add("MatMul", "scores", tensors[0], tensors[1])
    scale = _scalar(f"attention_scale_{each}", 1 / math.sqrt(each))
    scaled = made.add("Mul", "scaled", scores, scale)
    if "causal" in node.attributes:
        mask = np.triu(np.full((node.shape[0],) * 2, MASKED, dtype=np.float32), 1)
        scaled = made.add("Add", "masked", scaled, {f"causal_mask_{node.shape[0]}": mask})
    shares = made.add("Softmax", "shares", scaled, axis=-1)
    mixed = made.add("MatMul", "mixed", shares, tensors[2])
    merged = made.add("Transpose", "merged", mixed, perm=[0, 2, 1, 3])
    made.add("Reshape", "", merged, _integers(f"merge_{width}", 0, 0, width))
    return made.parts


def _shuffle(node: Node) -> list[_Part]:
    """Groups split, exchanged with the channels in them, and merged, as exporters write it."""
    made = _Composer(node)
    channels, height, width = node.shape
    split = (node.attributes["groups"], channels // node.attributes["groups"], height, width)
    wanted = _integers("split_" + "x".join(map(str, split)), 0, *split)
    parts = made.add("Reshape", "split", *node.inputs, wanted)
    dealt = made.add("Transpose", "dealt", parts, perm=[0, 2, 1, 3, 4])
    whole = _integers("whole_" + "x".join(map(str, node.shape)), 0, *node.shape)
    made.add("Reshape", "", dealt, whole)
    return made.parts


def _slice(node: Node) -> list[_Part]:
    made = _Composer(node)
    (length, features), start = node.shape, node.attributes["start"]
    made.add(
        "Slice",
        "",
        *node.inputs,
        _integers(f"slice_start_{start}", start, 0),
        _integers(f"slice_end_{start + length}x{features}", start + length, features),
        _integers("slice_axes", 1, 2),
    )
    return made.parts


_COMPOSED: Mapping[str, Callable[[Node], list[_Part]]] = {
    "linear": _linear,
    "gelu": _gelu,
    "silu": _silu,
    "unflatten": _unflatten,
    "tokens": _tokens,
    "attention": _attention,
    "shuffle": _shuffle,
    "slice": _slice,
}
"""Primitives that ONNX has no single operator for, or several."""

_OPERATORS: Mapping[str, str] = {
    "conv": "Conv",
    "relu": "Relu",
    "relu6": "Clip",
    "hswish": "HardSwish",
    "hsigmoid": "HardSigmoid",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "max_pool": "MaxPool",
    "avg_pool": "AveragePool",
    "global_avg_pool": "GlobalAveragePool",
    "flatten": "Flatten",
    "add": "Add",
    "mul": "Mul",
    "concat": "Concat",
    "crop": "Slice",
    "zero": "Sub",
    "layer_norm": "LayerNormalization",
    "softmax": "Softmax",
    "token_mean": "ReduceMean",
}


def _no_attributes(node: Node) -> dict[str, Any]:
    return {}


def _window(node: Node) -> dict[str, Any]:
    kernel, stride, padding = (node.attributes[key] for key in ("kernel", "stride", "padding"))
    return {
        "kernel_shape": [kernel, kernel],
        "strides": [stride, stride],
        "pads": [padding] * 4,
    }


def _conv(node: Node) -> dict[str, Any]:
    attributes = {**_window(node), "group": node.attributes["groups"]}
    if "dilation" in node.attributes:
        attributes["dilations"] = [node.attributes["dilation"]] * 2
    return attributes


_ATTRIBUTES: Mapping[str, Callable[[Node], dict[str, Any]]] = {
    "conv": _conv,
    "hsigmoid": lambda node: {"alpha": 1 / 6, "beta": 0.5},
    "max_pool": _window,
    "avg_pool": lambda node: {**_window(node), "count_include_pad": 0},
    "flatten": lambda node: {"axis": 1},
    "concat": lambda node: {"axis": 1},
    "layer_norm": lambda node: {"axis": -1, "epsilon": node.epsilon},
    "softmax": lambda node: {"axis": -1},
    "token_mean": lambda node: {"axes": [1], "keepdims": 0},
}
