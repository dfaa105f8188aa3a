"""Table entries that are faster than the entry of a smaller op, beyond their error."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from latlas_latency.entries import MEASURED, TableEntry, relative_errors
from latlas_latency.siblings import DIRECTIONS, describe, families, within
from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import OpSpec

LEAST_RATIO = 1.05
"""A bigger op may be faster by less: some channel counts do fill vectors and caches better."""

LEAST_SIGMAS = 4.0
"""With some thousand pairs in a table, three standard errors would find several by chance."""

_LEAST_ERROR = 1e-3
"""No ratio is trusted further than 0.1 %, even in imported tables without any spread."""


@dataclass(frozen=True)
class MonotonicityBreak:
    """Two ops, equal but for one direction, of which the bigger is the faster.

    Which of the two is wrong the pair does not say, so both deserve another visit. Hardware can
    be like that, too: a break that stays after measuring again is a finding.

    Attributes:
        smaller: the op that took longer.
        bigger: the op that took less.
        direction: what it is bigger in, one of `DIRECTIONS`.
        ratio: time of the smaller over time of the bigger, above 1.
        sigmas: logarithm of the ratio in standard errors of the two entries together.
    """

    smaller: OpSpec
    bigger: OpSpec
    direction: str
    ratio: float
    sigmas: float


def monotonicity_breaks(
    entries: Sequence[TableEntry],
    *,
    least_ratio: float = LEAST_RATIO,
    least_sigmas: float = LEAST_SIGMAS,
) -> tuple[MonotonicityBreak, ...]:
    """Every pair of measured entries in which more work took clearly less time.

    Two ops are compared if they agree in all but one direction and none of its sizes is smaller
    in the bigger op. Squeeze channels go with the expansion. Interpolated entries are left out:
    they repeat the faults of those that they lie between.

    Args:
        entries: of one table; `LookupTable.entries`.
        least_ratio: the least factor that counts, at least 1.
        least_sigmas: the least significance that counts, in standard errors; above 0.

    Returns:
        The breaks, most significant first.

    Raises:
        InvalidInputError: an argument is out of range.
    """
    if not (math.isfinite(least_ratio) and least_ratio >= 1):
        raise InvalidInputError(f"least_ratio {least_ratio} is less than 1")
    if not (math.isfinite(least_sigmas) and least_sigmas > 0):
        raise InvalidInputError(f"least_sigmas {least_sigmas} is not above 0")
    measured = [entry for entry in entries if entry.kind == MEASURED]
    errors = relative_errors(measured)
    found = []
    for direction, family in _families(measured):
        sizes = {entry.op: describe(entry.op).along((direction,)) for entry in family}
        for one, other in itertools.combinations(family, 2):
            swapped = sizes[one.op] > sizes[other.op]
            smaller, bigger = (other, one) if swapped else (one, other)
            ratio = smaller.mean_ms / bigger.mean_ms
            if ratio < least_ratio or not within(sizes[smaller.op], sizes[bigger.op]):
                continue
            error = max(math.hypot(errors[smaller.op], errors[bigger.op]), _LEAST_ERROR)
            sigmas = math.log(ratio) / error
            if sigmas >= least_sigmas:
                found.append(MonotonicityBreak(smaller.op, bigger.op, direction, ratio, sigmas))
    return tuple(sorted(found, key=lambda broken: -broken.sigmas))


def _families(entries: Sequence[TableEntry]) -> Iterator[tuple[str, list[TableEntry]]]:
    """Entries that agree in all but one direction, with the name of that direction."""
    by_op = {entry.op: entry for entry in entries}
    for direction in DIRECTIONS:
        for family in families(by_op, (direction,)).values():
            yield direction, [by_op[op] for op in family]
