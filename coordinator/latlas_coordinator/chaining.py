"""Which chains and frames measure the ops of a space without node times. Pure.

What they are, and why, stands in `latlas_latency.chains`. An op that keeps its shape gets chains of
itself at three lengths; every other op gets two frames: itself between one, and between three,
copies of the smallest op that keeps the shape at either end. Where no op keeps the shape that comes
out (between a stem and the first block, in most spaces), the smallest op that leads on to such a
shape stands between; where none keeps the shape that goes in, the op reads the model's input.

An op of several inputs reads the op before it in the first of them, and in each of the others
another tensor of that shape: the model's input, then what earlier ops gave. What is left of a bias:
the first op of a model reads its input in all of them (in chains part of the constant), as any op
does alone and where no op of a frame keeps its shape; and the model's input was not written just
before, as in a cell it may have been.

An op whose inputs differ in shape, such as a decoder layer that attends to a wider encoder, has one
and three copies behind the smallest ops that give it those shapes, from one input of the model.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

from latlas_latency.chains import is_repeatable
from latlas_ops.costs import op_cost, space_costs
from latlas_ops.errors import InvalidInputError
from latlas_ops.network import NETWORK_INPUT, Network
from latlas_ops.opspec import OpSpec, Shape
from latlas_ops.space import SearchSpace

FRAME_COPIES = (1, 3)
"""Copies of a known op at either end of a frame."""

LONGEST, LEAST_LONGEST = 8, 4
"""Copies in the longest chain of an op: few copies of a long op, more of a short one."""


def chain_programs(
    space: SearchSpace, wanted: Sequence[OpSpec] | None = None
) -> list[tuple[Network, ...]]:
    """The chains or frames of every distinct op of a space, those of one op together.

    Args:
        space: the space.
        wanted: the ops that are to be measured, if not all; they only stand beside each other.

    Raises:
        InvalidInputError: an op takes inputs of different shapes, which no ops of the space give
            it from one input.
    """
    ops = space.slot_entries.ops if wanted is None else wanted
    neighbours = _Neighbours.of(op for op in ops if len(set(op.inputs)) == 1)
    most_bytes = int(space_costs(space.extremes()).weight_bytes.max())
    groups = []
    for op in ops:
        if len(set(op.inputs)) > 1:
            givers = _givers(op, ops)
            if not givers:
                raise InvalidInputError(
                    f"space {space.name!r} cannot be measured in chains: {op} takes inputs of "
                    "different shapes; choose --method in-situ, on a runtime that times single "
                    "nodes"
                )
            groups.append(_fed_frames(op, givers))
        elif is_repeatable(op):
            groups.append(
                tuple(_in_a_row([op] * length) for length in chain_lengths(op, most_bytes))
            )
        else:
            groups.append(_frames(op, neighbours))
    return groups


def alone_programs(
    space: SearchSpace, wanted: Sequence[OpSpec] | None = None
) -> list[tuple[Network, ...]]:
    """A model for every distinct op of a space, or for those that are `wanted`.

    Raises:
        InvalidInputError: an op takes inputs of different shapes, which no model of it alone has.
    """
    ops = space.slot_entries.ops if wanted is None else wanted
    for op in ops:
        if len(set(op.inputs)) > 1:
            raise InvalidInputError(
                f"space {space.name!r} cannot be measured alone: {op} takes inputs of different "
                "shapes; choose another method, or leave ops alone out (--no-stand-alone)"
            )
    return [(Network.chain([op]),) for op in ops]


def chain_lengths(op: OpSpec, most_weight_bytes: int) -> tuple[int, ...]:
    """Copies of an op in its chains, rising: a quarter of the longest, the middle, the longest.

    Args:
        op: the op.
        most_weight_bytes: what the largest network of its space weighs; a chain that weighs more
            would show a cache that no network sees, and is cut down to `LEAST_LONGEST` copies.
    """
    copies = most_weight_bytes // max(1, op_cost(op).weight_bytes)
    longest = max(LEAST_LONGEST, min(LONGEST, copies))
    return longest // 4, (longest // 4 + longest) // 2, longest


class _Neighbours:
    """The ops that may stand beside a framed one: the smallest of each shape."""

    def __init__(
        self, repeatable: Mapping[Shape, OpSpec], onward: Mapping[Shape, Sequence[OpSpec]]
    ):
        self._repeatable, self._onward = repeatable, onward

    @classmethod
    def of(cls, ops: Iterable[OpSpec]) -> _Neighbours:
        """Ops by the shape that they take, the smallest first."""
        repeatable: dict[Shape, OpSpec] = {}
        onward: dict[Shape, list[OpSpec]] = {}
        for op in sorted(ops, key=lambda op: (op_cost(op).macs, op.key)):
            if is_repeatable(op):
                repeatable.setdefault(op.inputs[0], op)
            else:
                onward.setdefault(op.inputs[0], []).append(op)
        return cls(repeatable, onward)

    def before(self, shape: Shape, n_copies: int) -> list[OpSpec]:
        """Ops that give `shape` to their successor; none where no op keeps it."""
        return [self._repeatable[shape]] * n_copies if shape in self._repeatable else []

    def after(self, shape: Shape, n_copies: int) -> list[OpSpec]:
        """The shortest way on from `shape` to copies of an op that keeps its own; none if none."""
        ways: list[tuple[Shape, list[OpSpec]]] = [(shape, [])]
        seen = {shape}
        while ways:
            here, ops = ways.pop(0)
            if here in self._repeatable:
                return ops + [self._repeatable[here]] * n_copies
            for op in self._onward.get(here, ()):
                if op.outputs[0] not in seen:
                    seen.add(op.outputs[0])
                    ways.append((op.outputs[0], [*ops, op]))
        return []


def _frames(op: OpSpec, neighbours: _Neighbours) -> tuple[Network, ...]:
    """The frames of an op; one where there is nothing to put beside it."""
    networks = [
        _in_a_row(
            [
                *neighbours.before(op.inputs[0], n_copies),
                op,
                *neighbours.after(op.outputs[0], n_copies),
            ]
        )
        for n_copies in FRAME_COPIES
    ]
    return tuple({network.key: network for network in networks}.values())


def _givers(op: OpSpec, ops: Iterable[OpSpec]) -> dict[Shape, OpSpec]:
    """The smallest ops that give an op its shapes, all from one shape; empty without any."""
    found: dict[Shape, dict[Shape, OpSpec]] = {}  # what they read → what they give → the op
    for other in sorted(ops, key=lambda other: (op_cost(other).macs, other.key)):
        if len(other.inputs) == 1 and other.outputs[0] in op.inputs:
            found.setdefault(other.inputs[0], {}).setdefault(other.outputs[0], other)
    complete = (givers for givers in found.values() if givers.keys() == set(op.inputs))
    return next(complete, {})


def _fed_frames(op: OpSpec, givers: Mapping[Shape, OpSpec]) -> tuple[Network, ...]:
    """Models in which copies of an op follow the ops that give it tensors of its shapes."""
    positions = {shape: position for position, shape in enumerate(givers)}
    networks = []
    for n_copies in FRAME_COPIES if op.outputs[0] == op.inputs[0] else (1,):
        wiring: list[tuple[int, ...]] = [(NETWORK_INPUT,)] * len(givers)
        before = positions[op.inputs[0]]
        for _ in range(n_copies):
            wiring.append((before, *(positions[shape] for shape in op.inputs[1:])))
            before = len(wiring) - 1
        networks.append(Network((*givers.values(), *[op] * n_copies), tuple(wiring)))
    return tuple(networks)


def _in_a_row(ops: Sequence[OpSpec]) -> Network:
    """Ops one after another; an op reads as many tensors as it has inputs, if there are so many."""
    shapes = {NETWORK_INPUT: ops[0].inputs[0]}  # of the tensors that are there, by position
    wiring = []
    for position, op in enumerate(ops):
        before = position - 1
        others = [
            source for source, shape in shapes.items() if source != before and shape == op.inputs[0]
        ]
        wiring.append(tuple(itertools.islice(itertools.cycle([before, *others]), len(op.inputs))))
        shapes[position] = op.outputs[0]
    return Network(tuple(ops), tuple(wiring))
