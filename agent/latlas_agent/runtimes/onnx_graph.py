"""A reader for the graph of an ONNX file that needs neither `onnx` nor `protobuf`.

It walks the protobuf wire format (https://protobuf.dev/programming-guides/encoding) and reads
just what attribution needs: names, operator types and wiring. Weights are skipped, not copied.
Field numbers are those of `onnx.proto`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from latlas_ops.errors import CorruptProgramError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_EXTERNAL = 1  # TensorProto.DataLocation.EXTERNAL


@dataclass(frozen=True)
class OnnxNode:
    """One node of a graph; `name` may be empty, empty tensor names stand for absent ones."""

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class OnnxGraph:
    """The top-level graph of a model.

    Attributes:
        nodes: in the file's order, which ONNX requires to be topological.
        has_external_data: whether a tensor anywhere in the graph points to another file.
    """

    nodes: tuple[OnnxNode, ...]
    has_external_data: bool


def read_graph(model: bytes | memoryview) -> OnnxGraph:
    """The graph of a serialised ONNX model.

    Raises:
        CorruptProgramError: the bytes are not an ONNX model.
    """
    view = memoryview(model)
    graphs = [value for field, value in _fields(view) if field == 7 and not isinstance(value, int)]
    if len(graphs) != 1:
        raise CorruptProgramError(f"not an ONNX model: it holds {len(graphs)} graphs")
    nodes = tuple(
        _node(value)
        for field, value in _fields(graphs[0])
        if field == 1 and not isinstance(value, int)
    )
    return OnnxGraph(nodes, any(_is_external(tensor) for tensor in _tensors(graphs[0])))


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field numbers and values of a message; strings and sub-messages as views."""
    position, end = 0, len(message)
    while position < end:
        tag, position = _varint(message, position)
        field, wire_type = tag >> 3, tag & 7
        if wire_type == _VARINT:
            value, position = _varint(message, position)
            yield field, value
            continue
        if wire_type == _BYTES:
            length, position = _varint(message, position)
        elif wire_type in (_FIXED64, _FIXED32):
            length = 8 if wire_type == _FIXED64 else 4
        else:
            raise CorruptProgramError(f"not an ONNX model: wire type {wire_type} is unknown")
        if length > end - position:
            raise CorruptProgramError("not an ONNX model: it is cut short")
        yield field, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message) or shift > 63:
            raise CorruptProgramError("not an ONNX model: it is cut short")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _children(message: memoryview, *wanted: int) -> Iterator[memoryview]:
    for field, value in _fields(message):
        if field in wanted and not isinstance(value, int):
            yield value


def _node(message: memoryview) -> OnnxNode:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: []}
    for field, value in _fields(message):
        if field in texts and not isinstance(value, int):
            texts[field].append(bytes(value).decode("utf-8", errors="replace"))
    return OnnxNode(
        name="".join(texts[3][-1:]),
        op_type="".join(texts[4][-1:]),
        inputs=tuple(texts[1]),
        outputs=tuple(texts[2]),
    )


def _tensors(graph: memoryview) -> Iterator[memoryview]:
    """Every tensor of a graph: initialisers, attributes of nodes, and those of inner graphs."""
    yield from _children(graph, 5)
    for sparse in _children(graph, 15):
        yield from _children(sparse, 1, 2)
    for node in _children(graph, 1):
        for attribute in _children(node, 5):
            yield from _children(attribute, 5, 10)
            for sparse in _children(attribute, 22, 23):
                yield from _children(sparse, 1, 2)
            for inner in _children(attribute, 6, 11):
                yield from _tensors(inner)


def _is_external(tensor: memoryview) -> bool:
    return any(
        (field == 14 and value == _EXTERNAL) or field == 13 for field, value in _fields(tensor)
    )
