"""Statistics of measurements and of predictions. Pure functions on numpy arrays.

A *round matrix* holds one row per measured thing (a network, say) and one column per round: the
median of the visit in nanoseconds, NaN where the round has no visit of it.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlas_ops.errors import InvalidInputError

Floats = NDArray[np.float64]

MAD_TO_STANDARD_DEVIATION = 1.4826
"""Scale of the median absolute deviation that makes it estimate a normal standard deviation."""

_HUBER_CLIP = 1.345
"""Residuals beyond so many standard deviations lose weight: 95 % efficiency on normal noise."""

_EXACT_SIGNED_RANKS = 100

_NORMAL_FROM_DEGREES = 1000
"""From so many degrees of freedom Student's t is taken for normal (error below 0.3 %)."""


# -- rounds ----------------------------------------------------------------------------------


def common_mode(matrix: Floats) -> Floats:
    """What the device as a whole did in each round, `(n_rounds,)`: 1.05 is 5 % slower than usual.

    Two rounds are compared by the median over the rows of one's value against the other's; a
    round's factor is the geometric mean of its comparisons with all rounds. (Comparing each round
    with a row's median instead would find nothing in three rounds: the median is one of them.)
    The usual is the median of the factors among rounds that have rows in common.

    Args:
        matrix: round matrix `(n, n_rounds)`. A round that shares no row with another gets 1.
    """
    logs = np.log(matrix)
    n_rounds = matrix.shape[1]
    comparisons = np.full((n_rounds, n_rounds), np.nan)
    for one in range(n_rounds):
        comparisons[one, one] = 0.0
        for other in range(one):
            differences = logs[:, one] - logs[:, other]
            differences = differences[~np.isnan(differences)]
            if differences.size:
                comparisons[one, other] = float(np.median(differences))
                comparisons[other, one] = -comparisons[one, other]
    comparable = ~np.isnan(comparisons)
    factors = np.where(comparable, comparisons, 0.0).sum(axis=1) / comparable.sum(axis=1)
    usual = [float(np.median(factors[mask])) for mask in comparable]
    return np.asarray(np.exp(factors - usual), dtype=np.float64)


def label_noise(matrix: Floats) -> float:
    """How far a network's label differs from itself: one half of the rounds against the other.

    Per row, the absolute difference between the median of the even and the median of the odd
    rounds, as a fraction of their mean; then the median over the rows, so that a burst in one
    visit does not speak for all. NaN if no row has two rounds.

    Args:
        matrix: round matrix `(n, n_rounds)`; every row's own rounds are dealt out in turn.
    """
    differences = []
    for row in matrix:
        known = row[~np.isnan(row)]
        if len(known) >= 2:
            even, odd = np.median(known[::2]), np.median(known[1::2])
            differences.append(2 * abs(even - odd) / (even + odd))
    return float(np.median(differences)) if differences else math.nan


def common_mode_free_noise(matrix: Floats) -> float:
    """`label_noise` after dividing each round by its `common_mode`: what error bars are held to."""
    return label_noise(matrix / common_mode(matrix))


# -- robust location and spread -------------------------------------------------------------


def robust_standard_deviation(values: Floats) -> float:
    """Standard deviation from the median absolute deviation; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    return float(MAD_TO_STANDARD_DEVIATION * np.median(np.abs(values - np.median(values))))


def huber_weights(residuals: Floats) -> Floats:
    """Weights in (0, 1] that bound the influence of outliers (Huber, 1964), same shape.

    1 within 1.345 robust standard deviations of zero, falling with the distance beyond.
    """
    distance = np.abs(residuals)
    clip = _HUBER_CLIP * MAD_TO_STANDARD_DEVIATION * float(np.median(distance))
    if clip == 0:
        return np.ones_like(distance)
    return np.asarray(clip / np.maximum(distance, clip), dtype=np.float64)


def robust_mean(values: Floats) -> float:
    """Huber's location of `(n,)` values: their mean where they agree, untouched by outliers."""
    location = float(np.median(values))
    if len(values) < 3:
        return float(np.mean(values))
    for _ in range(10):
        weights = huber_weights(values - location)
        location = float(weights @ values / weights.sum())
    return location


def median_interval(values: ArrayLike, level: float) -> tuple[float, float]:
    """Interval that holds the median of a distribution, from `(n,)` independent draws of it.

    Between two order statistics, of which the binomial distribution says how often the median lies
    between them (Hahn and Meeker, Statistical Intervals, 1991, section 5.2): nothing is assumed of
    the distribution, and bursts cannot widen it much. Infinite where there are too few draws for
    the level: 99 % takes eight of them.

    Raises:
        InvalidInputError: no values, or a level out of range.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not ordered.size:
        raise InvalidInputError("needs at least one value")
    require_level(level)
    n_draws = len(ordered)
    outside, rank = 0.0, 0
    while rank < n_draws // 2:
        outside += 2 * math.comb(n_draws, rank) / 2**n_draws
        if outside > 1 - level:
            break
        rank += 1
    if not rank:
        return -math.inf, math.inf
    return float(ordered[rank - 1]), float(ordered[n_draws - rank])


def pseudomedian_interval(values: ArrayLike, level: float) -> tuple[float, float]:
    """Interval that holds the centre of a symmetric distribution, from `(n,)` draws of it.

    Between two order statistics of the means of all pairs (Walsh averages), as Wilcoxon's signed
    ranks say (Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 2014, section 3.3).
    Narrower than `median_interval`, nearly as narrow as Student's on normal draws, and outliers do
    little to it. Infinite where there are too few draws for the level: 99 % takes eight of them.

    Raises:
        InvalidInputError: no values, or a level out of range.
    """
    draws = np.asarray(values, dtype=np.float64)
    if not draws.size:
        raise InvalidInputError("needs at least one value")
    require_level(level)
    n_outside = _signed_ranks_outside(len(draws), level)
    if n_outside < 1:
        return -math.inf, math.inf
    one, other = np.triu_indices(len(draws))
    means = np.sort((draws[one] + draws[other]) / 2)
    return float(means[n_outside - 1]), float(means[len(means) - n_outside])


def _signed_ranks_outside(n_draws: int, level: float) -> int:
    """How many sums of signed ranks, from 0 on, are too unlikely for an interval at `level`.

    Exact up to 100 draws; from there on the sum is taken for normal.
    """
    if n_draws > _EXACT_SIGNED_RANKS:
        spread = math.sqrt(n_draws * (n_draws + 1) * (2 * n_draws + 1) / 24)
        middle = n_draws * (n_draws + 1) / 4
        return math.floor(middle + NormalDist().inv_cdf((1 - level) / 2) * spread)
    # How likely each sum of ranks is: every rank is in it or not, with equal chance.
    likely = np.ones(1)
    for rank in range(1, n_draws + 1):
        longer = np.zeros(len(likely) + rank)
        longer[: len(likely)] += likely / 2
        longer[rank:] += likely / 2
        likely = longer
    return int(np.searchsorted(2 * np.cumsum(likely), 1 - level, side="right"))


# -- errors of predictions ------------------------------------------------------------------


def relative_errors(measured: ArrayLike, predicted: ArrayLike) -> Floats:
    """`(predicted - measured) / measured`, `(n,)`.

    Raises:
        InvalidInputError: no values, unequal lengths, or a measured value that is not positive.
    """
    truth, answer = _pair(measured, predicted, least=1)
    if truth.min() <= 0:
        raise InvalidInputError(f"a measured latency is {truth.min()}, not positive")
    return (answer - truth) / truth


def mape(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Mean absolute relative error, a fraction."""
    return float(np.mean(np.abs(relative_errors(measured, predicted))))


def max_error(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Largest absolute relative error, a fraction."""
    return float(np.max(np.abs(relative_errors(measured, predicted))))


def share_within(measured: ArrayLike, predicted: ArrayLike, bound: float) -> float:
    """Share of predictions whose absolute relative error is at most `bound`, a fraction."""
    return float(np.mean(np.abs(relative_errors(measured, predicted)) <= bound))


def r_squared(measured: ArrayLike, predicted: ArrayLike) -> float:
    """Coefficient of determination: 1 minus squared error over variance. NaN without variance."""
    truth, answer = _pair(measured, predicted, least=2)
    total = float(np.sum((truth - truth.mean()) ** 2))
    return 1 - float(np.sum((answer - truth) ** 2)) / total if total > 0 else math.nan


def average_ranks(values: ArrayLike) -> Floats:
    """Ranks from 1, `(n,)`; equal values share the average of their ranks."""
    array = np.asarray(values, dtype=np.float64)
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(((last - counts + 1 + last) / 2)[inverse], dtype=np.float64)


def spearman(left: ArrayLike, right: ArrayLike) -> float:
    """Spearman's rank correlation with average ranks; NaN where one side is constant."""
    first, second = (average_ranks(side) for side in _pair(left, right, least=2))
    first, second = first - first.mean(), second - second.mean()
    scale = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / scale if scale > 0 else math.nan


def kendall_tau_b(left: ArrayLike, right: ArrayLike) -> float:
    """Kendall's tau-b (ties corrected for); NaN where one side is constant. Time O(n²)."""
    first, second = _pair(left, right, least=2)
    concordance = untied_first = untied_second = 0
    for index in range(len(first) - 1):
        one = np.sign(first[index + 1 :] - first[index])
        other = np.sign(second[index + 1 :] - second[index])
        concordance += int(one @ other)
        untied_first += int(np.count_nonzero(one))
        untied_second += int(np.count_nonzero(other))
    scale = math.sqrt(untied_first * untied_second)
    return concordance / scale if scale > 0 else math.nan


def pair_order(
    macs: ArrayLike,
    measured: ArrayLike,
    predicted: ArrayLike,
    *,
    macs_within: float = 0.05,
    latency_beyond: float = 0.03,
) -> tuple[float, int]:
    """How often a prediction orders two networks rightly that MACs can hardly tell apart.

    Counted are the pairs whose multiply-accumulates differ by at most `macs_within` of the larger
    and whose measured latencies by more than `latency_beyond` of the larger, so that the right
    order is beyond doubt. A pair that is predicted equal counts half.

    Args:
        macs: multiply-accumulates, `(n,)`.
        measured: latencies, `(n,)`.
        predicted: predicted latencies, `(n,)`.
        macs_within: a fraction.
        latency_beyond: a fraction.

    Returns:
        The share that is ordered rightly (NaN without a pair), and the number of pairs.
    """
    truth, answer = _pair(measured, predicted, least=1)
    sizes, _ = _pair(macs, measured, least=1)
    one, other = np.triu_indices(len(truth), k=1)
    alike = np.abs(sizes[one] - sizes[other]) <= macs_within * np.maximum(sizes[one], sizes[other])
    apart = np.abs(truth[one] - truth[other]) > latency_beyond * np.maximum(
        truth[one], truth[other]
    )
    one, other = one[alike & apart], other[alike & apart]
    if not one.size:
        return math.nan, 0
    agreement = np.sign(truth[one] - truth[other]) * np.sign(answer[one] - answer[other])
    return float(np.mean((agreement + 1) / 2)), int(one.size)


def _pair(left: ArrayLike, right: ArrayLike, *, least: int) -> tuple[Floats, Floats]:
    first = np.asarray(left, dtype=np.float64)
    second = np.asarray(right, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise InvalidInputError(f"cannot compare arrays of shapes {first.shape} and {second.shape}")
    if len(first) < least:
        raise InvalidInputError(f"needs at least {least} values, got {len(first)}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise InvalidInputError("cannot compare values that are not finite")
    return first, second


# -- quantiles ------------------------------------------------------------------------------


def student_t_quantile(probability: float, degrees_of_freedom: int) -> float:
    """Quantile of Student's t distribution, by bisection of the exact distribution function.

    The distribution function for whole degrees of freedom is a finite trigonometric sum
    (Abramowitz and Stegun, 26.7.3 and 26.7.4).

    Args:
        probability: in (0, 1).
        degrees_of_freedom: at least 1.

    Raises:
        InvalidInputError: an argument out of range.
    """
    if not 0 < probability < 1:
        raise InvalidInputError(f"probability {probability} is not between 0 and 1")
    if degrees_of_freedom < 1:
        raise InvalidInputError(f"{degrees_of_freedom} degrees of freedom are fewer than 1")
    if degrees_of_freedom > _NORMAL_FROM_DEGREES:
        return NormalDist().inv_cdf(probability)
    central = abs(2 * probability - 1)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _central_probability(middle, degrees_of_freedom) < central:
            low = middle
        else:
            high = middle
    magnitude = math.tan((low + high) / 2) * math.sqrt(degrees_of_freedom)
    return math.copysign(magnitude, probability - 0.5) if probability != 0.5 else 0.0


def _central_probability(angle: float, degrees_of_freedom: int) -> float:
    """P(|T| <= t) for `angle` = arctan(t / sqrt(degrees_of_freedom))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees_of_freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for factor in range(odd, degrees_of_freedom - 1, 2):
        total += term
        term *= cosine**2 * (factor + 1) / (factor + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def conformal_quantile(scores: ArrayLike, level: float) -> float:
    """Bound that a new score stays under with probability `level`, given exchangeable scores.

    The `ceil((n + 1) level)`-th smallest of `n` scores (Vovk et al., 2005); with too few scores
    for the level, the largest of them.

    Args:
        scores: absolute errors on points that the model was not fitted on, `(n,)`.
        level: in (0, 1).

    Raises:
        InvalidInputError: no scores, or a level out of range.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    if not ordered.size:
        raise InvalidInputError("needs at least one score")
    require_level(level)
    rank = math.ceil((len(ordered) + 1) * level)
    return float(ordered[min(rank, len(ordered)) - 1])


def require_level(level: float) -> None:
    """Raises `InvalidInputError` unless `level` is a coverage between 0 and 1."""
    if not 0 < level < 1:
        raise InvalidInputError(f"interval level {level} is not between 0 and 1")
