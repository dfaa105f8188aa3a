"""What a kind of op consists of: attributes, inputs and a lowering."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from latlas_ops.graph import ACTIVATIONS, GraphBuilder
from latlas_ops.opspec import AttributeValue, OpSpec, Shape

Lowering = Callable[[OpSpec, GraphBuilder, Sequence[str]], str]


@dataclass(frozen=True)
class Attribute:
    """What one attribute may be. Without a default it must be given."""

    type: type[int] | type[str] | type[bool]
    default: AttributeValue | None = None
    minimum: int = 1
    choices: tuple[str, ...] = ()

    @classmethod
    def activation(cls, default: str) -> Attribute:
        """The name of an activation."""
        return cls(str, default, choices=ACTIVATIONS)


@dataclass(frozen=True)
class Kind:
    """A kind of op.

    Attributes:
        attributes: schema by name.
        input_ranks: number of axes of each input, without the batch axis; several where any of
            them will do.
        lower: emits the primitive nodes and returns the output tensor's name.
        variadic: any number of inputs from that of `input_ranks` on, the last rank repeated.
    """

    attributes: Mapping[str, Attribute]
    input_ranks: tuple[int | tuple[int, ...], ...]
    lower: Lowering
    variadic: bool = False

    @property
    def ranks_in_words(self) -> str:
        """`3, 3`, or `2 or 3` where both will do."""
        return ", ".join(
            " or ".join(map(str, rank)) if isinstance(rank, tuple) else str(rank)
            for rank in self.input_ranks
        )

    def takes(self, inputs: Sequence[Shape]) -> bool:
        """Whether the number of inputs and of their axes is right."""
        surplus = len(inputs) - len(self.input_ranks)
        ranks = self.input_ranks
        if self.variadic and surplus > 0:
            ranks += (ranks[-1],) * surplus
        return len(inputs) == len(ranks) and all(
            len(shape) in (allowed if isinstance(allowed, tuple) else (allowed,))
            for shape, allowed in zip(inputs, ranks, strict=True)
        )
