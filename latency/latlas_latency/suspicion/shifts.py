"""Stretches of a series in which everything ran slower, or faster, by a common factor.

A power limit, a neighbour on the machine or a changed clock slows whatever is measured meanwhile.
One value cannot tell that from noise; its neighbours can. In short:

1. Outliers of a few items are clipped towards the running median, for a burst is no shift.
2. The logarithms are cut into segments of constant level: least squares plus a price per cut,
   solved exactly (optimal partitioning with pruning; Killick, Fearnhead and Eckley, 2012).
3. Neighbouring segments that depart alike are joined and each is held against the rest. How far
   the mean of so many neighbours strays by itself is measured in the same series, length by
   length, so that autocorrelation and slow drift raise the bar as much as they should. Most items
   of a stretch must stand out as well, or a few outliers side by side would pass for one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlas_latency.measurement.statistics import robust_standard_deviation
from latlas_ops.errors import InvalidInputError

Floats = NDArray[np.float64]

LEAST_RATIO = 1.03
"""Slower or faster by less than this is left alone, however significant: boards drift so far."""

SIGNIFICANCE = 0.01
"""Chance of finding anything at all in a series in which nothing shifted.

It is kept by heavy tails, bursts and neighbours that hang together (correlation 0.8). Only a short
series that wanders has more: of 100 items with a correlation of 0.95, one in seven.
"""

LEAST_ITEMS = 5
"""Shortest stretch that is told from a burst."""

_LEAST_NOISE = 1e-3
"""No series is trusted further than 0.1 %, even if rounded latencies happen to repeat exactly."""

_CLIP = 3.0
"""Items are clipped at so many standard deviations from their running median."""

_PASSES = 5
"""Rounds of telling the noise without the stretches found; two or three suffice in practice."""

_NORMAL_QUARTER, _NORMAL_HALF = 0.3186, 0.6745
"""A quarter, and half, of normal values lie within so many standard deviations of their mean."""

_LEAST_BLOCKS = 16
"""So many separate means of a length must fit into a series for their spread to be measured."""


@dataclass(frozen=True)
class Shift:
    """A stretch that ran slower or faster than the rest of its series.

    Attributes:
        start: index of its first item.
        stop: index after its last item.
        ratio: its level over that of the rest; above 1 is slower.
        sigmas: distance of the levels in standard deviations of the mean of so many neighbours.
        p_value: chance of so distant a stretch anywhere in a series in which nothing shifted.
    """

    start: int
    stop: int
    ratio: float
    sigmas: float
    p_value: float

    @property
    def n_items(self) -> int:
        """Length of the stretch."""
        return self.stop - self.start


def find_shifts(
    values: ArrayLike,
    *,
    least_ratio: float = LEAST_RATIO,
    significance: float = SIGNIFICANCE,
    least_items: int = LEAST_ITEMS,
) -> tuple[Shift, ...]:
    """The stretches of a series that shifted, in their order.

    The rest is what most of the series does: with more than half of it shifted, the other part is
    reported. Stretches that follow one another at different levels are reported one by one.

    Args:
        values: measured over expected latency (or the repeated latency of one thing), positive,
            in the order of measuring, `(n,)`. Time O(n²) at worst: 0.1 s for 2,000.
        least_ratio: the least factor, slower or faster, that counts; above 1.
        significance: chance of a false alarm per series, between 0 and 1. The test reckons with
            every stretch that might have been picked.
        least_items: shortest stretch looked for, at least 2.

    Raises:
        InvalidInputError: an argument out of range, values that are not finite and positive, or
            too few of them (fewer than four times `least_items`) to tell what is usual.
    """
    logs = _checked_logs(values, least_ratio, significance, least_items)
    tamed = _without_outliers(logs, least_items)
    bounds = _partition(tamed, _price_of_a_cut(tamed, least_items), least_items)
    margin = math.log(least_ratio)
    shifted = np.zeros(len(logs), dtype=bool)
    found: tuple[Shift, ...] = ()
    for _ in range(_PASSES):
        rest = tamed[~shifted]
        usual = float(np.median(rest))
        noise = _noise_of_means(rest - usual)
        found = tuple(
            shift
            for stretch in _candidates(tamed, bounds, usual, margin)
            if (shift := _judge(logs, tamed, stretch, ~shifted, usual, noise)).p_value
            <= significance
        )
        previous, shifted = shifted, np.zeros(len(logs), dtype=bool)
        for shift in found:
            shifted[shift.start : shift.stop] = True
        if (shifted == previous).all() or 2 * np.count_nonzero(shifted) > len(logs):
            break
    return found


def _checked_logs(
    values: ArrayLike, least_ratio: float, significance: float, least_items: int
) -> Floats:
    if not (math.isfinite(least_ratio) and least_ratio > 1):
        raise InvalidInputError(f"least_ratio {least_ratio} is not above 1")
    if not 0 < significance < 1:
        raise InvalidInputError(f"significance {significance} is not between 0 and 1")
    if least_items < 2:
        raise InvalidInputError(f"least_items {least_items} is less than 2")
    series = np.asarray(values, dtype=np.float64)
    if series.ndim != 1:
        raise InvalidInputError(f"a series has one axis, not shape {series.shape}")
    if len(series) < 4 * least_items:
        raise InvalidInputError(
            f"a series of {len(series)} values is too short to tell what is usual; "
            f"it needs {4 * least_items}"
        )
    bad = np.flatnonzero(~(np.isfinite(series) & (series > 0)))
    if len(bad):
        raise InvalidInputError(f"value {bad[0]} of the series is {series[bad[0]]}, not positive")
    return np.asarray(np.log(series), dtype=np.float64)


def _without_outliers(logs: Floats, least_items: int) -> Floats:
    """`logs`, each clipped to the neighbourhood of its running median, `(n,)`.

    The window is twice the shortest stretch less one, so that a stretch fills the median of its
    own items and keeps its edges, while anything shorter is outvoted.
    """
    half = least_items - 1
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(logs, half, mode="reflect"), 2 * half + 1
    )
    running = np.median(windows, axis=1)
    reach = _CLIP * max(robust_standard_deviation(logs - running), _LEAST_NOISE)
    return np.asarray(np.clip(logs, running - reach, running + reach), dtype=np.float64)


def _noise_of_means(residuals: Floats) -> Floats:
    """Standard deviations of the mean of 1, 2, 4, 8 ... neighbours, as far as they reach.

    Independent noise falls with the root of the length; a mean is never taken to be better than
    that, but may be worse. Where the series is too short to measure it, the root takes over.

    The measure is the lower quartile of the distance, or the median if that tells of less: several
    stretches not yet told from the rest spoil half of the longer means, but hardly three quarters.
    """
    sums = np.concatenate(([0.0], np.cumsum(residuals)))
    noise = [max(robust_standard_deviation(residuals), _LEAST_NOISE)]
    length = 2
    while length <= len(residuals):
        least = noise[-1] / math.sqrt(2)
        if length * _LEAST_BLOCKS <= len(residuals):
            means = (sums[length:] - sums[:-length]) / length
            spreads = np.quantile(np.abs(means), (0.25, 0.5)) / (_NORMAL_QUARTER, _NORMAL_HALF)
            least = max(least, float(spreads.min()))
        noise.append(least)
        length *= 2
    return np.array(noise)


def _noise_of_mean(noise: Floats, length: int) -> float:
    """The standard deviation of the mean of `length` neighbours, from those of powers of two."""
    power = min(length.bit_length(), len(noise)) - 1
    return float(noise[power]) * math.sqrt(2**power / length)


def _price_of_a_cut(tamed: Floats, least_items: int) -> float:
    """What a further segment must save in squared error: `2 log(n)` variances (Yao, 1988).

    The variance is that of one item as means over the shortest stretch show it, which is more
    than its own where neighbours stray together.
    """
    noise = _noise_of_means(tamed - np.median(tamed))
    variance = least_items * _noise_of_mean(noise, least_items) ** 2
    return float(2 * math.log(len(tamed)) * variance)


def _partition(tamed: Floats, price: float, least_items: int) -> list[int]:
    """Bounds of the segments of constant level that cost least, from 0 to n.

    A segment costs its squared error about its mean plus `price`. Beginnings that can no longer
    win are dropped for good.
    """
    n = len(tamed)
    centred = tamed - np.median(tamed)
    sums = np.concatenate(([0.0], np.cumsum(centred)))
    squares = np.concatenate(([0.0], np.cumsum(centred**2)))
    least_cost = np.full(n + 1, np.inf)
    least_cost[0] = -price
    previous = np.zeros(n + 1, dtype=np.int64)
    starts, expiry = np.array([0]), np.array([2 * n])
    for stop in range(least_items, n + 1):
        error = squares[stop] - squares[starts]
        error -= (sums[stop] - sums[starts]) ** 2 / (stop - starts)
        costs = least_cost[starts] + error
        best = int(np.argmin(costs))
        least_cost[stop] = costs[best] + price
        previous[stop] = starts[best]
        # A beginning that costs more than a cut here loses to that cut once there is room for it.
        expiry = np.where(costs > least_cost[stop], np.minimum(expiry, stop + least_items), expiry)
        alive = expiry > stop + 1
        starts, expiry = starts[alive], expiry[alive]
        newcomer = stop + 1 - least_items
        if newcomer >= least_items:
            starts, expiry = np.append(starts, newcomer), np.append(expiry, 2 * n)
    bounds = [n]
    while bounds[-1]:
        bounds.append(int(previous[bounds[-1]]))
    return bounds[::-1]


def _candidates(
    tamed: Floats, bounds: Sequence[int], usual: float, margin: float
) -> list[tuple[int, int]]:
    """Segments that depart from the usual level by `margin`, neighbours of like level joined.

    Levels are alike where they differ by less than `margin`, or by less than half of what the
    nearer one departs from the usual: bursts do not stop while a board is slow.
    """
    joined: list[tuple[int, int]] = []
    for start, stop in itertools.pairwise(bounds):
        level = float(np.mean(tamed[start:stop])) - usual
        if abs(level) < margin:
            continue
        if joined and joined[-1][1] == start:
            before = float(np.mean(tamed[joined[-1][0] : start])) - usual
            if abs(level - before) < max(margin, min(abs(level), abs(before)) / 2):
                joined[-1] = (joined[-1][0], stop)
                continue
        joined.append((start, stop))
    return joined


def _judge(
    logs: Floats,
    tamed: Floats,
    stretch: tuple[int, int],
    rest: NDArray[np.bool_],
    usual: float,
    noise: Floats,
) -> Shift:
    """A stretch beside the rest: its mean must be far off, and so must most of its items.

    The second test keeps outliers that happen to gather from passing for a shift: it counts the
    items beyond half the distance, as measured, and asks how often so many would fall into the
    stretch if they were as frequent there as in the rest.
    """
    start, stop = stretch
    n, length = len(logs), stop - start
    distance = float(np.mean(tamed[start:stop])) - usual
    error = math.hypot(_noise_of_mean(noise, length), _noise_of_mean(noise, max(n - length, 1)))
    sigmas = abs(distance) / error
    beyond = np.abs(logs - usual - distance) < np.abs(logs - usual)
    others = beyond[rest & ((np.arange(n) < start) | (np.arange(n) >= stop))]
    share = (np.count_nonzero(others) + 1) / (len(others) + 2)
    by_count = _chance_of_so_many(int(np.count_nonzero(beyond[start:stop])), length, share)
    by_mean = math.erfc(sigmas / math.sqrt(2))
    p_value = min(1.0, _n_rivals(n, length) * max(by_mean, by_count))
    return Shift(start, stop, math.exp(distance), sigmas, p_value)


def _n_rivals(n_items: int, length: int) -> float:
    """What the chance of one stretch is multiplied by, for all those that might have been picked.

    There are about n²/2, but mostly long ones that overlap; a plain Bonferroni correction would
    spend almost nothing on the short. Here every length L gets a share of the false alarms as
    1/L, the n stretches of a length share it evenly, and the shares add up to at most one.
    """
    return n_items * length * (1 + math.log(n_items))


def _chance_of_so_many(n_found: int, n_items: int, share: float) -> float:
    """P(X >= n_found) for binomial X out of `n_items` with probability `share`."""
    counts = np.arange(n_items + 1)
    factorials = np.concatenate(([0.0], np.cumsum(np.log(counts[1:]))))
    ways = factorials[-1] - factorials - factorials[::-1]
    chances = np.exp(ways + counts * math.log(share) + counts[::-1] * math.log1p(-share))
    return min(1.0, float(chances[n_found:].sum()))
