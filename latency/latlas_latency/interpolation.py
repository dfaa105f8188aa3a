"""Entries for ops that were not measured, between measured ones that differ in size alone.

An op is interpolated along one *axis*: over `resolution` (all else equal, smaller and larger images
on both sides) or over `channels` (any channel counts, squeezing and expansion included). Along
either, latency is taken for an overhead plus a rate times the op's work, its multiply-accumulates
(the memory of its activations where it has none): at fixed channels these grow with the area of the
image. Overhead and rate are those of the two nearest measured siblings, so that a step of the cache
spoils one interval and no other. Nothing is extrapolated, and nothing rests on what is itself
interpolated.

How far that errs is found by leaving out: every measured entry with siblings on both sides is
predicted from the others. The span between its neighbours is then wider than any that it serves as
a neighbour of, so that curvature is over- rather than underestimated. See `interpolation_error`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from latlas_latency.entries import INTERPOLATED, MEASURED, TableEntry, relative_errors
from latlas_latency.interpolation_error import (
    ALL_KINDS,
    InterpolationCheck,
    InterpolationError,
    LeftOut,
    interpolation_errors,
)
from latlas_latency.siblings import Sizes, describe, families, within
from latlas_ops.costs import op_cost
from latlas_ops.opspec import OpSpec

RESOLUTION = "resolution"
AXES: Mapping[str, tuple[str, ...]] = {
    RESOLUTION: ("resolution",),
    "channels": ("channels", "expansion"),
}
"""Axis → the directions that siblings may differ in; see `siblings.DIRECTIONS`."""

_Family = tuple[object, ...]


@dataclass(frozen=True)
class _Member:
    """A measured op among its siblings."""

    entry: TableEntry
    sizes: Sizes
    work: int


@dataclass(frozen=True)
class _Between:
    """The nearest measured siblings of an op, and how far it lies from the first to the second."""

    below: TableEntry
    above: TableEntry
    share: float

    @property
    def mean_ms(self) -> float:
        return self.below.mean_ms + self.share * (self.above.mean_ms - self.below.mean_ms)


@dataclass(frozen=True, eq=False)
class Interpolation:
    """What can be interpolated between the measured entries of a table.

    Attributes:
        entries: of the table; interpolated ones among them are passed over.
        check: what whole networks say about interpolating over resolution, if there were any.
    """

    entries: Sequence[TableEntry]
    check: InterpolationCheck | None = None

    def entry(self, op: OpSpec) -> TableEntry | None:
        """The interpolated entry of an op, along the axis that errs less.

        None where siblings were not measured on both sides.
        """
        found = []
        for axis in AXES:
            between = self._between(op, axis)
            if between is not None:
                error = self._error_of(axis, op.kind)
                noise = math.hypot(
                    (1 - between.share) * self._noise_ms[between.below.op],
                    between.share * self._noise_ms[between.above.op],
                )
                mean_ms = between.mean_ms
                entry = TableEntry(
                    op=op,
                    mean_ms=mean_ms,
                    spread_ms=math.hypot(error.scatter * mean_ms, noise),
                    n_occurrences=0,
                    n_visits=0,
                    kind=INTERPOLATED,
                    shared_error=error.shared,
                )
                found.append((math.hypot(error.scatter, error.shared), entry))
        return min(found, key=lambda one: one[0])[1] if found else None

    def reaches(self, op: OpSpec) -> bool:
        """Whether an op lies between measured siblings."""
        return any(self._between(op, axis) is not None for axis in AXES)

    @cached_property
    def errors(self) -> tuple[InterpolationError, ...]:
        """Per axis the error of all kinds together, then of each kind that could be left out."""
        return tuple(
            error
            for axis in AXES
            for error in interpolation_errors(
                axis, list(self._left_out(axis)), self.check if axis == RESOLUTION else None
            )
        )

    def _error_of(self, axis: str, kind: str) -> InterpolationError:
        by_kind = {one.kind: one for one in self.errors if one.axis == axis}
        return by_kind.get(kind, by_kind[ALL_KINDS])

    def _left_out(self, axis: str) -> Iterator[LeftOut]:
        for family in self._families[axis]:
            members = self._members(axis, family)
            for index, one in enumerate(members):
                others = members[:index] + members[index + 1 :]
                between = _nearest(one.sizes, one.work, others)
                if between is not None:
                    yield LeftOut(
                        axis=axis,
                        kind=one.entry.op.kind,
                        place=(index, len(members)),
                        measured_ms=one.entry.mean_ms,
                        predicted_ms=between.mean_ms,
                    )

    def _between(self, op: OpSpec, axis: str) -> _Between | None:
        described = describe(op)
        family = described.family(AXES[axis])
        if family not in self._families[axis]:
            return None
        return _nearest(described.along(AXES[axis]), _work(op), self._members(axis, family))

    def _members(self, axis: str, family: _Family) -> list[_Member]:
        """The measured ops of a family, the least work first."""
        known = self._known_members
        if (axis, family) not in known:
            members = [
                _Member(self._by_op[op], describe(op).along(AXES[axis]), _work(op))
                for op in self._families[axis][family]
            ]
            known[axis, family] = sorted(members, key=lambda one: one.work)
        return known[axis, family]

    @cached_property
    def _known_members(self) -> dict[tuple[str, _Family], list[_Member]]:
        return {}

    @cached_property
    def _families(self) -> dict[str, dict[_Family, list[OpSpec]]]:
        return {axis: families(self._by_op, directions) for axis, directions in AXES.items()}

    @cached_property
    def _by_op(self) -> dict[OpSpec, TableEntry]:
        return {entry.op: entry for entry in self.entries if entry.kind == MEASURED}

    @cached_property
    def _noise_ms(self) -> dict[OpSpec, float]:
        """Standard error of each measured entry."""
        errors = relative_errors(list(self._by_op.values()))
        return {op: errors[op] * entry.mean_ms for op, entry in self._by_op.items()}


def _nearest(sizes: Sizes, work: int, members: Sequence[_Member]) -> _Between | None:
    """The nearest of `members`, rising in work, that are no bigger and no smaller in any size."""
    below = [one for one in members if one.work < work and within(one.sizes, sizes)]
    above = [one for one in members if one.work > work and within(sizes, one.sizes)]
    if not below or not above:
        return None
    first, second = below[-1], above[0]
    share = (work - first.work) / (second.work - first.work)
    return _Between(first.entry, second.entry, share)


def _work(op: OpSpec) -> int:
    cost = op_cost(op)
    return cost.macs or cost.activation_bytes
