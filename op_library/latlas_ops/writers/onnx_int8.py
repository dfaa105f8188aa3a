"""ONNX models in int8: quantised by `onnxruntime.quantization`, in its QDQ format.

Around everything that can be computed in integers stand `QuantizeLinear` and `DequantizeLinear`
nodes; a runtime that computes in int8 fuses them with what is between them, any other computes in
float and only rounds. Activations are unsigned and have one scale, weights are signed and have one
per channel. Weights use seven of their eight bits: processors of the x86 family without VNNI add
the products of two neighbours in 16 bits, which full weights overflow, silently. The seven bits
cost no time.

What has no integer kernel, such as HardSwish, stays float32 between two conversions, and so do
inputs and outputs of the model. So does what adds the mask of causal attention, and what reads the
sum: one scale for scores and for a mask of -30,000 would round every score to zero.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas_ops.errors import InvalidInputError, MissingDependencyError
from latlas_ops.writers.calibration import calibration_batches

if TYPE_CHECKING:
    import onnx

_MASKED_BELOW = -1000.0
_QUANTISE = "QuantizeLinear"
_PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")
"""Tells `quantize_static` that shapes are inferred; without it, it asks for that on every call."""


def quantise_onnx(model: bytes, calibration: NDArray[Any], *, reduce_range: bool = True) -> bytes:
    """The int8 model of a float32 one.

    Args:
        model: a serialised model with one input, of which only the first axis, the batch, may be
            free, and with weights inside the file.
        calibration: `(n, *input_shape)`, inputs as the model will see them, without the batch axis
            in `input_shape`. The range of every activation is what it takes on these.
        reduce_range: use seven bits of the weights; see the module's text.

    Returns:
        The model; equal arguments give equal bytes.

    Raises:
        InvalidInputError: the model or the calibration inputs do not fit each other, or the model
            cannot be quantised.
        MissingDependencyError: `onnx` or `onnxruntime` is not installed.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError as error:
        raise MissingDependencyError(
            'quantising an ONNX model needs onnx and onnxruntime: pip install "latlas[int8]"'
        ) from error

    try:
        prepared = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    except Exception as error:
        raise InvalidInputError(f"not an ONNX model that can be quantised: {error}") from error
    name, batch_shape = _input_of(prepared)
    batches = calibration_batches(calibration, batch_shape)
    for index, node in enumerate(prepared.graph.node):
        node.name = node.name or f"unnamed_{index}"  # those left in float are told by their names
    prepared.metadata_props.add(key=_PREPARED[0], value=_PREPARED[1])
    with tempfile.TemporaryDirectory(prefix="latlas-int8-") as folder:
        written = Path(folder) / "int8.onnx"
        try:
            quantization.quantize_static(
                prepared,
                written,
                _reader(quantization, ({name: batch} for batch in batches)),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=reduce_range,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=_masking(prepared.graph),
            )
        except Exception as error:
            text = " ".join(str(error).split())
            raise InvalidInputError(f"the model cannot be quantised: {text:.300}") from error
        quantised = onnx.load(written)
    kept = [entry for entry in quantised.metadata_props if entry.key != _PREPARED[0]]
    del quantised.metadata_props[:]
    quantised.metadata_props.extend(kept)
    serialised: bytes = quantised.SerializeToString(deterministic=True)
    return serialised


def _masking(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes that add a mask, and of those that read the masked sum."""
    from onnx import numpy_helper

    masks = {
        tensor.name
        for tensor in graph.initializer
        if (values := numpy_helper.to_array(tensor)).dtype.kind == "f"
        and values.size
        and values.min() <= _MASKED_BELOW
    }
    adds = [node for node in graph.node if node.op_type == "Add" and masks & set(node.input)]
    sums = {node.output[0] for node in adds}
    readers = [node for node in graph.node if sums & set(node.input)]
    return [node.name for node in (*adds, *readers)]


def int8_positions(model: bytes, positions: Mapping[str, int]) -> dict[str, int]:
    """Where the tensors of an int8 model come from.

    A quantisation belongs to the op whose output it rounds, a dequantisation to the op that reads
    it: what an op costs then does not depend on whether its neighbours compute in integers. A node
    that a ReLU was merged into keeps its name and writes the ReLU's tensor; it stays with its op.

    Args:
        model: of `quantise_onnx`.
        positions: output tensor of the float32 model → position in the network of its op. Nodes
            are named after what they write, as `write_onnx` does.

    Returns:
        The same for every tensor that a node of the int8 model writes.

    Raises:
        MissingDependencyError: `onnx` is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            'reading an ONNX model needs the package onnx: pip install "latlas[int8]"'
        ) from error

    nodes = onnx.load_from_string(model).graph.node
    reader: dict[str, str] = {}  # tensor → an output of the first node that reads it
    for node in reversed(nodes):
        reader.update(dict.fromkeys(node.input, node.output[0]))
    found: dict[str, int] = {}
    for node in reversed(nodes):
        for tensor in node.output:
            written = positions.get(tensor, found.get(reader.get(tensor, "")))
            position = positions.get(node.name, written)
            if position is not None:
                found[tensor] = position
    for node in nodes:
        if node.op_type == _QUANTISE and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def _input_of(model: onnx.ModelProto) -> tuple[str, tuple[int, ...]]:
    """Name and shape of the only input, with 1 for a free batch."""
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [entry for entry in model.graph.input if entry.name not in stored]
    if len(inputs) != 1:
        raise InvalidInputError(f"a model with {len(inputs)} inputs cannot be quantised, only one")
    (entry,) = inputs
    batch, *sizes = [axis.dim_value for axis in entry.type.tensor_type.shape.dim] or [0]
    if any(size < 1 for size in sizes):
        raise InvalidInputError(
            f"input {entry.name!r} has free axes beside the batch: fix its shape before it is "
            "quantised"
        )
    return entry.name, (max(batch, 1), *sizes)


def _reader(quantization: Any, feeds: Iterator[dict[str, NDArray[np.float32]]]) -> Any:
    """The inputs in the form that onnxruntime asks for."""

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            return next(feeds, None)

    return Reader()
