"""`TableEntry`: the latency of one op in a lookup table, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import OpSpec

MEASURED = "measured"
INTERPOLATED = "interpolated"
ENTRY_KINDS = (MEASURED, INTERPOLATED)

_PRIOR_VISITS = 6
"""Visits that the typical relative spread of a table counts for beside an entry's own."""


@dataclass(frozen=True)
class TableEntry:
    """Latency of one op.

    Attributes:
        op: the op.
        mean_ms: its latency inside networks, before calibration.
        spread_ms: robust standard deviation of single visits about it; of an interpolated entry
            the standard error of its own, which others do not share.
        n_occurrences: places (network and position) that it was measured in.
        n_visits: visits it was measured in, over all places, rounds and boards.
        kind: `measured`, or `interpolated` between measured entries.
        shared_error: relative standard error that an interpolated entry has in common with the
            others of its table; 0 for measured ones.
        error_ms: standard error of `mean_ms` where it was solved for together with other unknowns,
            from chains and frames; None where it follows from the spread and the places.
    """

    op: OpSpec
    mean_ms: float
    spread_ms: float
    n_occurrences: int
    n_visits: int
    kind: str = MEASURED
    shared_error: float = 0.0
    error_ms: float | None = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.mean_ms) and self.mean_ms > 0):
            raise InvalidInputError(f"entry {self.op}: mean_ms {self.mean_ms} is not positive")
        for name in ("spread_ms", "shared_error", "error_ms"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value >= 0):
                raise InvalidInputError(f"entry {self.op}: {name} {value} is negative")
        if self.kind not in ENTRY_KINDS:
            raise InvalidInputError(
                f"entry {self.op}: kind {self.kind!r} is not one of {', '.join(ENTRY_KINDS)}"
            )


def relative_errors(entries: Sequence[TableEntry]) -> dict[OpSpec, float]:
    """Relative standard error of each entry, by op; without what interpolated ones share.

    The spread of a few visits is itself uncertain, so it is drawn towards the typical relative
    spread of the entries, which counts as `_PRIOR_VISITS` visits. Visits of one place share its
    surroundings, so that only places count as independent. Interpolated entries, and those with an
    `error_ms`, state their own, which nothing is drawn towards.
    """
    errors = {
        entry.op: (entry.spread_ms if entry.error_ms is None else entry.error_ms) / entry.mean_ms
        for entry in entries
    }
    measured = [entry for entry in entries if entry.kind == MEASURED and entry.error_ms is None]
    if not measured:
        return errors
    relative = np.array([errors[entry.op] for entry in measured])
    visits = np.array([entry.n_visits for entry in measured], dtype=np.float64)
    places = np.array([entry.n_occurrences for entry in measured], dtype=np.float64)
    typical = float(np.median(relative))
    variance = (_PRIOR_VISITS * typical**2 + visits * relative**2) / (_PRIOR_VISITS + visits)
    found = np.sqrt(variance / np.maximum(places, 1))
    for entry, error in zip(measured, found.tolist(), strict=True):
        errors[entry.op] = error
    return errors
