"""Networks as ONNX models, written node by node with `onnx.helper`.

A model says twice which op each of its nodes belongs to: node names begin with the position and
digest of the op, and `OnnxProgram.tensor_positions` maps output tensors to positions. A runtime
that optimises a model may keep only one of the two: onnxruntime's blocked convolutions keep the
node's name and rename its output, an inlined HardSwish loses its name and keeps its output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas_ops.errors import MissingDependencyError
from latlas_ops.graph import INPUT_TENSOR, OUTPUT_TENSOR, Graph, Node
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

    nodes = [
        helper.make_node(
            _OPERATORS[node.primitive],
            [*_tensor_inputs(node), *_constant_inputs(node)],
            [node.output],
            node.name,
            **_ATTRIBUTES.get(node.primitive, _no_attributes)(node),
        )
        for node in graph.nodes
    ]
    initializers = [
        helper.make_tensor(
            name,
            TensorProto.INT64 if array.dtype == np.int64 else TensorProto.FLOAT,
            array.shape,
            _little_endian(array),
            raw=True,
        )
        for name, array in _constants(graph, weights).items()
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
    return OnnxProgram(model.SerializeToString(deterministic=True), graph.tensor_positions())


def _constants(graph: Graph, weights: Weights) -> dict[str, NDArray[Any]]:
    """Everything the model stores: the weights in execution order, then shared constants."""
    constants: dict[str, NDArray[Any]] = {
        parameter.name: weights[parameter.name] for parameter in graph.parameters()
    }
    present = {node.primitive for node in graph.nodes}
    for primitive, shared in _CONSTANTS.items():
        if primitive in present:
            constants |= shared
    return constants


def _little_endian(array: NDArray[Any]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _tensor_inputs(node: Node) -> tuple[str, ...]:
    # A product with 0 would be folded into the convolution before it.
    return node.inputs * 2 if node.primitive == "zero" else node.inputs


def _constant_inputs(node: Node) -> tuple[str, ...]:
    if node.primitive in _CONSTANTS:
        return tuple(_CONSTANTS[node.primitive])
    return tuple(parameter.name for parameter in node.parameters)


_OPERATORS: Mapping[str, str] = {
    "conv": "Conv",
    "linear": "Gemm",
    "relu": "Relu",
    "relu6": "Clip",
    "hswish": "HardSwish",
    "hsigmoid": "HardSigmoid",
    "max_pool": "MaxPool",
    "avg_pool": "AveragePool",
    "global_avg_pool": "GlobalAveragePool",
    "flatten": "Flatten",
    "add": "Add",
    "mul": "Mul",
    "concat": "Concat",
    "crop": "Slice",
    "zero": "Sub",
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
    "linear": lambda node: {"transB": 1},
    "hsigmoid": lambda node: {"alpha": 1 / 6, "beta": 0.5},
    "max_pool": _window,
    "avg_pool": lambda node: {**_window(node), "count_include_pad": 0},
    "flatten": lambda node: {"axis": 1},
    "concat": lambda node: {"axis": 1},
}
