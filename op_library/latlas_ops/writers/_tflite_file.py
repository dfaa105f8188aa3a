"""A TFLite FlatBuffer while it grows. Imports ai-edge-litert: load it through `tflite_writer`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from latlas_ops.errors import InvalidInputError

_VERSION = 3
_IDENTIFIER = b"TFL3"
_ALIGNMENT = 16
_BYTES_BEYOND_THE_DATA = 1 << 20
_TYPES = {"float32": schema.TensorType.FLOAT32, "int32": schema.TensorType.INT32}
_LARGEST_OLD_CODE = 127


def record(kind: Callable[[], Any], **fields: Any) -> Any:
    """An object of the schema; releases before 2 take no fields when they make one."""
    made = kind()
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class _Buffer:
    """Bytes of a constant, aligned to 16, as the schema asks and the object API does not do."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def Pack(self, builder: Any) -> int:  # the object API's name
        """Writes the buffer; the object API calls it."""
        offset = None
        if self.data:
            builder.StartVector(1, len(self.data), _ALIGNMENT)
            builder.head -= len(self.data)
            builder.Bytes[builder.head : builder.head + len(self.data)] = self.data
            offset = builder.EndVector()
        schema.BufferStart(builder)
        if offset is not None:
            schema.BufferAddData(builder, offset)
        packed: int = schema.BufferEnd(builder)
        return packed


class TfliteFile:
    """Collects tensors and operators, which refer to tensors by name; then gives the bytes."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._indices: dict[str, int] = {}
        self._buffers: dict[bytes, int] = {}
        self._data: list[_Buffer] = [_Buffer(b"")]  # buffer 0 means: no data
        self._operators: list[Any] = []
        self._codes: dict[tuple[int, int], int] = {}

    def tensor(
        self, name: str, shape: Sequence[int], dtype: str = "float32", buffer: int = 0
    ) -> None:
        """A tensor; `shape` includes the batch axis.

        Raises:
            InvalidInputError: there is one of that name.
        """
        if name in self._indices:
            raise InvalidInputError(f"two tensors of the model are called {name!r}")
        self._indices[name] = len(self._tensors)
        self._tensors.append(
            record(
                schema.TensorT,
                shape=[int(size) for size in shape],
                type=_TYPES[dtype],
                buffer=buffer,
                name=name,
                hasRank=True,
            )
        )

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """A constant, float32 or int32; equal bytes are stored once. Returns its name.

        A name that is already there stands for what it stood for: callers name constants by value.
        """
        if name not in self._indices:
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            data = little.tobytes()
            digest = hashlib.sha256(data).digest()
            if digest not in self._buffers:
                self._buffers[digest] = len(self._data)
                self._data.append(_Buffer(data))
            self.tensor(name, array.shape, array.dtype.name, self._buffers[digest])
        return name

    def operator(
        self,
        code: str,
        inputs: Sequence[str],
        output: str,
        shape: Sequence[int],
        options: Any = None,
        *,
        version: int = 1,
    ) -> str:
        """An operator and the tensor that it writes; returns the tensor's name.

        Args:
            code: name of a builtin operator, such as `CONV_2D`.
            inputs: names of tensors that are there.
            output: name of a tensor that is not.
            shape: its shape with the batch axis.
            options: one of the schema's option objects, or None.
            version: version of the operator that its options need.
        """
        self.tensor(output, shape)
        builtin = getattr(schema.BuiltinOperator, code)
        index = self._codes.setdefault((builtin, version), len(self._codes))
        kind = 0
        if options is not None:
            kind = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        self._operators.append(
            record(
                schema.OperatorT,
                opcodeIndex=index,
                inputs=[self._indices[name] for name in inputs],
                outputs=[self._indices[output]],
                builtinOptionsType=kind,
                builtinOptions=options,
            )
        )
        return output

    def finish(self, input_tensor: str, output_tensor: str, name: str) -> bytes:
        """The FlatBuffer, with one subgraph and its signature `serving_default`.

        Raises:
            InvalidInputError: it would exceed 2 GB.
        """
        inputs, outputs = self._indices[input_tensor], self._indices[output_tensor]
        model = record(
            schema.ModelT,
            version=_VERSION,
            description="latlas",
            operatorCodes=[
                record(
                    schema.OperatorCodeT,
                    builtinCode=code,
                    deprecatedBuiltinCode=min(code, _LARGEST_OLD_CODE),
                    version=version,
                )
                for code, version in self._codes
            ],
            subgraphs=[
                record(
                    schema.SubGraphT,
                    tensors=self._tensors,
                    inputs=[inputs],
                    outputs=[outputs],
                    operators=self._operators,
                    name=name,
                )
            ],
            buffers=self._data,
            signatureDefs=[
                record(
                    schema.SignatureDefT,
                    signatureKey="serving_default",
                    inputs=[record(schema.TensorMapT, name=input_tensor, tensorIndex=inputs)],
                    outputs=[record(schema.TensorMapT, name=output_tensor, tensorIndex=outputs)],
                )
            ],
        )
        size = sum(len(buffer.data) + _ALIGNMENT for buffer in self._data)
        try:
            builder = flatbuffers.Builder(size + _BYTES_BEYOND_THE_DATA)
            builder.Finish(model.Pack(builder), _IDENTIFIER)
        except flatbuffers.builder.BuilderSizeError as error:
            raise InvalidInputError(
                f"the weights take {size / 2**30:.1f} GiB, a TFLite model holds less than 2"
            ) from error
        return bytes(builder.Output())
