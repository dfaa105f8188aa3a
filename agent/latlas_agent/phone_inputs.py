"""Shapes of a TFLite program's inputs, and the flags with which `benchmark_model` takes them."""

from __future__ import annotations

import struct

from latlas_agent.runtimes.base import require_known_inputs, settled_shape
from latlas_agent.runtimes.tflite_graph import check_tflite
from latlas_latency.measurement import InputShapes, Target

_U16, _I32, _U32 = (struct.Struct(code) for code in ("<H", "<i", "<I"))
_SUBGRAPHS, _TENSORS, _INPUTS = 2, 0, 1
_SHAPE, _NAME, _SIGNATURE = 0, 3, 7

Declared = tuple[str, list[int | None]]
"""Name of an input, and its shape, None where an axis is free."""


def shape_flags(model: bytes, target: Target, shapes: InputShapes) -> tuple[str, ...]:
    """Flags that fix the shapes of a program's inputs; none where the program fixes them all.

    Raises:
        CorruptProgramError: the bytes are no TFLite program.
        InvalidInputError: the program does not fit the target or the shapes; see `settled_shape`.
    """
    check_tflite(model)
    inputs, given = list_inputs(model), dict(shapes)
    require_known_inputs(given, [name for name, _ in inputs])
    settled = [settled_shape(name, declared, target, given) for name, declared in inputs]
    if all(None not in declared for _, declared in inputs):
        return ()
    # The tool goes by the order of inputs, whatever they are called.
    names = ",".join(f"input{number}" for number in range(len(inputs)))
    sizes = ":".join(",".join(map(str, shape)) for shape in settled)
    return (f"--input_layer={names}", f"--input_layer_shape={sizes}")


def list_inputs(model: bytes) -> list[Declared]:
    """The inputs of a model that `check_tflite` has passed, in order."""
    graph = _tables(model, _U32.unpack_from(model)[0], _SUBGRAPHS)[0]
    tensors = _tables(model, graph, _TENSORS)
    found: list[Declared] = []
    for index in _integers(model, graph, _INPUTS):
        tensor = tensors[index]
        sizes = _integers(model, tensor, _SIGNATURE) or _integers(model, tensor, _SHAPE)
        start, length = _vector(model, tensor, _NAME)
        name = model[start : start + length].decode(errors="replace")
        found.append((name, [None if size < 0 else size for size in sizes]))
    return found


def _vector(model: bytes, table: int, field: int) -> tuple[int, int]:
    """Where the items of a vector begin, and how many there are; none if the field is absent."""
    layout = table - _I32.unpack_from(model, table)[0]
    entry = 4 + 2 * field
    offset = 0
    if entry < _U16.unpack_from(model, layout)[0]:
        offset = _U16.unpack_from(model, layout + entry)[0]
    if not offset:
        return 0, 0
    start = table + offset + _U32.unpack_from(model, table + offset)[0]
    return start + 4, _U32.unpack_from(model, start)[0]


def _integers(model: bytes, table: int, field: int) -> list[int]:
    start, length = _vector(model, table, field)
    return [_I32.unpack_from(model, start + 4 * number)[0] for number in range(length)]


def _tables(model: bytes, table: int, field: int) -> list[int]:
    start, length = _vector(model, table, field)
    places = [start + 4 * number for number in range(length)]
    return [place + _U32.unpack_from(model, place)[0] for place in places]
