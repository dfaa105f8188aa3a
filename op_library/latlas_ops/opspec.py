"""`OpSpec`: the value that names one operator or block, everywhere in Latlas.

What a kind's attributes mean, which shapes it produces and what it costs stands in
`latlas_ops.kinds`; this module only holds the value and its one canonical key.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from latlas_ops.errors import InvalidInputError

Shape = tuple[int, ...]
AttributeValue = int | float | str | bool

DTYPES = ("float32", "float16", "int8")

_LONGEST_SHOWN = 40


@dataclass(frozen=True)
class OpSpec:
    """One operator or block: kind, attributes, input shapes and logical dtype. Immutable.

    Build it with `OpSpec.of`, which checks the attributes against the kind's schema and fills in
    defaults, so that equal ops have equal keys.

    Attributes:
        kind: name of the kind, for example `"mbconv"`; see `latlas_ops.kinds`.
        attributes: `(name, value)` pairs sorted by name, every one the kind has.
        inputs: one shape per input, without the batch axis: `(channels, height, width)` for
            images, `(length, features)` for sequences, `(features,)` for vectors. The batch size
            belongs to the target.
        dtype: logical dtype, one of `DTYPES`.
    """

    kind: str
    attributes: tuple[tuple[str, AttributeValue], ...]
    inputs: tuple[Shape, ...]
    dtype: str = "float32"

    @classmethod
    def of(
        cls,
        kind: str,
        *inputs: Sequence[int],
        dtype: str = "float32",
        **attributes: AttributeValue,
    ) -> OpSpec:
        """A checked, canonical op.

        Raises:
            InvalidInputError: unknown kind; missing, unknown or ill-typed attribute; bad shape;
                attributes that do not fit the input shape or one another.
        """
        from latlas_ops.kinds import complete_attributes

        if dtype not in DTYPES:
            raise InvalidInputError(
                f"op {kind!r}: dtype {dtype!r} is not one of {', '.join(DTYPES)}"
            )
        try:
            shapes = tuple(tuple(operator.index(size) for size in shape) for shape in inputs)
        except TypeError as error:
            raise InvalidInputError(
                f"op {kind!r}: input shapes must be sequences of integers, not {inputs}"
            ) from error
        full = complete_attributes(kind, attributes, shapes)
        op = cls(kind, tuple(sorted(full.items())), shapes, dtype)
        _ = op.outputs  # infers the shapes, which refuses attributes that do not fit
        return op

    @cached_property
    def key(self) -> str:
        """The canonical key: compact JSON with sorted names. `from_key` is its inverse."""
        return json.dumps(
            {
                "attributes": dict(self.attributes),
                "dtype": self.dtype,
                "inputs": [list(shape) for shape in self.inputs],
                "kind": self.kind,
            },
            sort_keys=True,
            separators=(",", ":"),
        )

    @cached_property
    def digest(self) -> str:
        """First 12 hexadecimal digits of the key's SHA-256: short enough for a node name."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:12]

    @classmethod
    def from_key(cls, key: str) -> OpSpec:
        """The op of a canonical key.

        Raises:
            InvalidInputError: `key` is not the key of an op this version knows.
        """
        try:
            record = json.loads(key)
            kind, inputs, dtype = record["kind"], record["inputs"], record["dtype"]
            attributes = record["attributes"]
            return cls.of(kind, *inputs, dtype=dtype, **attributes)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInputError(f"not an op key: {key!r:.120} ({error!r})") from error

    def attribute(self, name: str) -> AttributeValue:
        """The value of one attribute; KeyError if the kind has none of that name."""
        return self._by_name[name]

    def integer(self, name: str) -> int:
        """The value of an integer attribute."""
        return int(self._by_name[name])

    @cached_property
    def _by_name(self) -> Mapping[str, AttributeValue]:
        return dict(self.attributes)

    @cached_property
    def outputs(self) -> tuple[Shape, ...]:
        """Output shapes, without the batch axis."""
        from latlas_ops.kinds import output_shapes

        return output_shapes(self)

    def __str__(self) -> str:
        """A line for people: kind, attributes that matter, shapes. Not a key; never parsed."""
        shown = ", ".join(f"{name}={_shortened(value)}" for name, value in self.attributes)
        shapes = " ".join("x".join(map(str, shape)) for shape in self.inputs)
        return f"{self.kind}({shapes}; {shown})"


def _shortened(value: AttributeValue) -> AttributeValue:
    """A long text, such as the description of a graph, by its digest."""
    if isinstance(value, str) and len(value) > _LONGEST_SHOWN:
        return "#" + hashlib.sha256(value.encode()).hexdigest()[:12]
    return value
