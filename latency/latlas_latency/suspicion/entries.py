"""Table entries that are faster than the entry of a smaller op, beyond their error."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from latlas_latency.table import MEASURED, TableEntry, relative_errors
from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import OpSpec

DIRECTIONS = ("channels", "kernel", "expansion", "resolution")
"""What an op may be bigger in. Anything else must be equal for two ops to be compared."""

LEAST_RATIO = 1.05
"""A bigger op may be faster by less: some channel counts do fill vectors and caches better."""

LEAST_SIGMAS = 4.0
"""With some thousand pairs in a table, three standard errors would find several by chance."""

_DIRECTION_OF = {
    "out_channels": "channels",
    "out_features": "channels",
    "feature_channels": "channels",
    "classes": "channels",
    "kernel": "kernel",
    "expanded_channels": "expansion",
    "se_channels": "expansion",
}

_LEAST_ERROR = 1e-3
"""No ratio is trusted further than 0.1 %, even in imported tables without any spread."""

_Sizes = dict[str, tuple[int, ...]]


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
    for direction, sizes, family in _families(measured):
        for one, other in itertools.combinations(family, 2):
            swapped = sizes[one.op] > sizes[other.op]
            smaller, bigger = (other, one) if swapped else (one, other)
            ratio = smaller.mean_ms / bigger.mean_ms
            if ratio < least_ratio or not _within(sizes[smaller.op], sizes[bigger.op]):
                continue
            error = max(math.hypot(errors[smaller.op], errors[bigger.op]), _LEAST_ERROR)
            sigmas = math.log(ratio) / error
            if sigmas >= least_sigmas:
                found.append(MonotonicityBreak(smaller.op, bigger.op, direction, ratio, sigmas))
    return tuple(sorted(found, key=lambda broken: -broken.sigmas))


def _families(
    entries: Sequence[TableEntry],
) -> Iterator[tuple[str, Mapping[OpSpec, tuple[int, ...]], list[TableEntry]]]:
    """Entries that agree in all but one direction: its name, each op's sizes in it, the entries."""
    described = {entry.op: _describe(entry.op) for entry in entries}
    for direction in DIRECTIONS:
        sizes = {op: sizes[direction] for op, (_, sizes) in described.items()}
        families: dict[object, list[TableEntry]] = defaultdict(list)
        for entry in entries:
            fixed, all_sizes = described[entry.op]
            others = tuple(all_sizes[name] for name in DIRECTIONS if name != direction)
            families[fixed, others].append(entry)
        for family in families.values():
            yield direction, sizes, family


def _describe(op: OpSpec) -> tuple[object, _Sizes]:
    """What must be equal for a comparison, and the sizes by direction."""
    sizes: dict[str, list[int]] = {direction: [] for direction in DIRECTIONS}
    fixed: list[object] = [op.kind, op.dtype, len(op.inputs)]
    expanding = dict(op.attributes).get("expand", True)
    for name, value in op.attributes:
        direction = _DIRECTION_OF.get(name)
        if direction is None:
            fixed.append((name, value))
            continue
        if name == "expanded_channels" and not expanding:
            direction = "channels"  # a block without expansion has its input's channels inside
        if name in {"se_channels", "feature_channels"}:
            fixed.append((name, bool(value)))  # with and without are different blocks
        sizes[direction].append(int(value))
    for shape in op.inputs:
        sizes["channels"].append(shape[0])
        sizes["resolution"].extend(shape[1:])
    return tuple(fixed), {direction: tuple(values) for direction, values in sizes.items()}


def _within(smaller: tuple[int, ...], bigger: tuple[int, ...]) -> bool:
    return all(one <= other for one, other in zip(smaller, bigger, strict=True))
