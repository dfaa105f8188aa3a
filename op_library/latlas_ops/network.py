"""`Network`: ops and how they are wired. What a program, a prediction and a subnet are about."""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import OpSpec, Shape

NETWORK_INPUT = -1
"""The index by which wiring refers to the network's own input."""


@dataclass(frozen=True)
class Network:
    """A directed acyclic graph of ops with one input; op `i` is at *position* `i`.

    Attributes:
        ops: the ops in execution order.
        wiring: for every op the positions its inputs come from, `NETWORK_INPUT` for the input
            of the network. The output of the network is that of the last op; the output of
            every other op is read by some later op.

    Raises:
        InvalidInputError: no ops, wiring that does not fit them, shapes that do not match, an op
            whose output nobody reads, or no op that reads the input.
    """

    ops: tuple[OpSpec, ...]
    wiring: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.ops:
            raise InvalidInputError("a network needs at least one op")
        if len(self.wiring) != len(self.ops):
            raise InvalidInputError(f"{len(self.ops)} ops but {len(self.wiring)} rows of wiring")
        read = {source for sources in self.wiring for source in sources}
        if NETWORK_INPUT not in read:
            raise InvalidInputError("no op of the network reads its input")
        for position, (op, sources) in enumerate(zip(self.ops, self.wiring, strict=True)):
            if len(sources) != len(op.inputs):
                raise InvalidInputError(
                    f"op {position} ({op.kind}) takes {len(op.inputs)} inputs, not {len(sources)}"
                )
            for source, shape in zip(sources, op.inputs, strict=True):
                self._check_source(position, source, shape)
        for position, op in enumerate(self.ops[:-1]):
            if position not in read:
                raise InvalidInputError(f"nobody reads the output of op {position} ({op.kind})")

    def _check_source(self, position: int, source: int, shape: Shape) -> None:
        who = f"op {position} ({self.ops[position].kind})"
        if not NETWORK_INPUT <= source < position:
            raise InvalidInputError(f"{who} reads from {source}, which is not before it")
        given = self.input_shape if source == NETWORK_INPUT else self.ops[source].outputs[0]
        if given != shape:
            name = "the input" if source == NETWORK_INPUT else f"op {source}"
            raise InvalidInputError(f"{who} expects {shape}, {name} gives {given}")

    @classmethod
    def chain(cls, ops: Iterable[OpSpec]) -> Network:
        """Ops one after another; one with several inputs reads the op before it in all of them."""
        ops = tuple(ops)
        return cls(ops, tuple((position - 1,) * len(op.inputs) for position, op in enumerate(ops)))

    @cached_property
    def input_shape(self) -> Shape:
        """Shape of the network's input, without the batch axis."""
        return next(
            shape
            for op, sources in zip(self.ops, self.wiring, strict=True)
            for source, shape in zip(sources, op.inputs, strict=False)
            if source == NETWORK_INPUT
        )

    @cached_property
    def key(self) -> str:
        """The subject of a whole network: `net:` and a SHA-256 over op keys and wiring."""
        text = json.dumps(
            [[op.key, list(sources)] for op, sources in zip(self.ops, self.wiring, strict=True)],
            separators=(",", ":"),
        )
        return "net:" + hashlib.sha256(text.encode()).hexdigest()

    def to_json(self) -> str:
        """Canonical JSON that `from_json` reads back."""
        return json.dumps(
            {"ops": [op.key for op in self.ops], "wiring": [list(row) for row in self.wiring]},
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> Network:
        """The network of `to_json`; raises `InvalidInputError` for anything else."""
        try:
            record = json.loads(text)
            ops = tuple(OpSpec.from_key(key) for key in record["ops"])
            wiring = tuple(
                tuple(operator.index(source) for source in row) for row in record["wiring"]
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInputError(f"not a network: {text!r:.120} ({error!r})") from error
        return cls(ops, wiring)
