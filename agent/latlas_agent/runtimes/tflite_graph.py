"""A reader for TFLite files that checks the references of the graph before a native reader follows.

Checked is that these lie within the file: the lists of operator codes, graphs, tensors, nodes and
buffers; the contents of buffers; shapes, names and quantisation vectors of tensors; inputs, outputs
and custom options of nodes; names of custom operators and graphs. And that the buffers, tensors and
operator codes that are named by number exist. Not looked at are the built-in options of nodes,
sparsity, quantisation details, metadata and signatures, nor whether any value makes sense to its
operator: a file that passes may still crash a runtime, and fails in its worker then.

It walks the FlatBuffers wire format (https://flatbuffers.dev/internals): a table begins with the
distance to its vtable, which holds the place of each field or 0; strings, vectors and tables are
reached by distances that must stay within the file. LiteRT checks files itself; tflite-runtime does
not, and crashes on a file that is cut short, or measures what happens to be left of it. Field
numbers are those of TensorFlow Lite's `schema.fbs`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from latlas_ops.errors import CorruptProgramError

IDENTIFIER = b"TFL3"
"""Stands in the bytes 4 to 8 of every TFLite file."""

_U16, _U32, _I32, _U64 = (struct.Struct(code) for code in ("<H", "<I", "<i", "<Q"))
_OFFSET_BYTES = 4
_QUANTISATION_VECTORS = ((0, 4), (1, 4), (2, 4), (3, 8))  # lowest, highest, scales, zero points
_NO_TENSOR = -1
"""Stands for an input or output that a node does without."""


def check_tflite(model: bytes) -> int:
    """Checks a serialised TFLite model and returns the number of nodes of its main graph.

    Raises:
        CorruptProgramError: the bytes are no TFLite model, or something in it points beyond it.
    """
    if model[4:8] != IDENTIFIER:
        raise CorruptProgramError(
            f"not a TFLite model: its bytes 4 to 8 are not {IDENTIFIER.decode()}"
        )
    root = _File(model).table(0)
    n_codes = 0
    for code in root.tables(1):
        n_codes += 1
        code.require_string(1)
    n_buffers = 0
    for buffer in root.tables(4):
        n_buffers += 1
        buffer.require_vector(0, item_bytes=1)
        if buffer.number(1, _U64) + buffer.number(2, _U64) > len(model):
            raise _cut_short()
    n_nodes = [_check_subgraph(subgraph, n_codes, n_buffers) for subgraph in root.tables(2)]
    if not n_nodes:
        raise CorruptProgramError("not a TFLite model: it holds no graph")
    return n_nodes[0]


def read_tables(model: bytes) -> _Table:
    """The root of a model that `check_tflite` has passed; field numbers as in `schema.fbs`."""
    return _File(model).table(0)


def _check_subgraph(subgraph: _Table, n_codes: int, n_buffers: int) -> int:
    """Checks what a graph refers to; returns the number of its nodes."""
    subgraph.require_string(4)
    n_tensors = 0
    for tensor in subgraph.tables(0):
        n_tensors += 1
        for field in (0, 7):  # the shape, and with free axes
            tensor.require_vector(field, item_bytes=4)
        tensor.require_string(3)
        _check_quantisation(tensor)
        _require_within("buffer", (tensor.number(2, _U32),), range(n_buffers))
    tensors = range(n_tensors)
    _require_within("tensor", subgraph.integers(1), tensors)
    _require_within("tensor", subgraph.integers(2), tensors)
    n_nodes = 0
    for operator in subgraph.tables(3):
        n_nodes += 1
        _require_within("operator code", (operator.number(0, _U32),), range(n_codes))
        for field in (1, 2):
            named = [tensor for tensor in operator.integers(field) if tensor != _NO_TENSOR]
            _require_within("tensor", named, tensors)
        operator.require_vector(5, item_bytes=1)  # custom options
    return n_nodes


def _check_quantisation(tensor: _Table) -> None:
    quantisation = tensor.table(4)
    if quantisation is not None:
        for field, item_bytes in _QUANTISATION_VECTORS:
            quantisation.require_vector(field, item_bytes)


def _require_within(what: str, numbers: Sequence[int], there: range) -> None:
    for number in numbers:
        if number not in there:
            raise CorruptProgramError(
                f"the TFLite model is damaged: {what} {number} is named, but it holds {len(there)}"
            )


def _cut_short() -> CorruptProgramError:
    return CorruptProgramError("the TFLite model is damaged or cut short")


class _File:
    """The bytes of a model; whatever lies beyond them is damage."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, place: int, kind: struct.Struct) -> int:
        """The number at a place."""
        if place < 0:
            raise _cut_short()
        try:
            (value,) = kind.unpack_from(self.data, place)
        except struct.error:
            raise _cut_short() from None
        return int(value)

    def follow(self, place: int) -> int:
        """Where the distance at a place leads."""
        return place + self.read(place, _U32)

    def table(self, place: int) -> _Table:
        """The table that the distance at a place leads to."""
        return _Table(self, self.follow(place))


class _Table:
    """A table, whose fields are read by number."""

    def __init__(self, file: _File, place: int) -> None:
        self._file = file
        self._place = place
        self._vtable = place - file.read(place, _I32)
        self._vtable_bytes = file.read(self._vtable, _U16)

    def _field(self, number: int) -> int:
        """Where a field is; 0 if it is left out."""
        entry = 4 + 2 * number
        if entry + 2 > self._vtable_bytes:
            return 0
        distance = self._file.read(self._vtable + entry, _U16)
        return self._place + distance if distance else 0

    def number(self, field: int, kind: struct.Struct) -> int:
        """A number, 0 where it is left out."""
        place = self._field(field)
        return self._file.read(place, kind) if place else 0

    def require_vector(self, field: int, item_bytes: int) -> tuple[int, int]:
        """Where the items of a vector begin and how many there are; checks that they are there."""
        place = self._field(field)
        if not place:
            return 0, 0
        vector = self._file.follow(place)
        n_items = self._file.read(vector, _U32)
        first = vector + _OFFSET_BYTES
        if first + n_items * item_bytes > len(self._file.data):
            raise _cut_short()
        return first, n_items

    def require_string(self, field: int) -> None:
        """Checks that a string is there as a whole, with the NUL that ends it."""
        if self._field(field):
            first, n_bytes = self.require_vector(field, item_bytes=1)
            if self._file.data[first + n_bytes : first + n_bytes + 1] != b"\0":
                raise _cut_short()

    def table(self, field: int) -> _Table | None:
        """A table; None where it is left out."""
        place = self._field(field)
        return self._file.table(place) if place else None

    def integers(self, field: int) -> tuple[int, ...]:
        """A vector of int32."""
        first, n_items = self.require_vector(field, item_bytes=4)
        return struct.unpack_from(f"<{n_items}i", self._file.data, first)

    def tables(self, field: int) -> Iterator[_Table]:
        """A vector of tables."""
        first, n_items = self.require_vector(field, item_bytes=_OFFSET_BYTES)
        for index in range(n_items):
            yield self._file.table(first + _OFFSET_BYTES * index)
