"""Latencies of ops from whole models alone, for runtimes that do not time single nodes.

*Chains.* An op whose output has the shape of its input is repeated inside one model, every copy
with weights of its own. At several lengths the latency lies on a line: what a call costs and what
happens once at either end (layouts are converted) is its constant, one copy in running surroundings
its slope.

*Frames.* An op that changes the shape cannot follow itself, and nothing maps its output back (no op
enlarges an image; and around a circle of ops only sums of latencies are known). It is measured by a
designed pair instead: a model in which it stands between short chains of ops that are known, less
the same without it. Stem and head are framed on the one side that they have. All variants of one
place share their neighbours, so that what a neighbour's error does to them is common to all, and
a network, which holds exactly one of them, leaves it to the calibration. Frames are solved
together by least squares, since one of them may hold two ops that are not known (no chain has the
shape between a stem and the first block of a network).

Least squares on whole networks instead of such frames fails: one op is a twentieth of a network,
whose label is itself off by a per cent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlas_latency.measurement.statistics import huber_weights, robust_standard_deviation
from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import OpSpec

LEAST_LENGTHS = 2
"""From one length the constant cannot be told from the slope."""

_MOST = 2 / 3
"""Share of the visits of a chain that are taken to be good."""

_FAR, _LEAST_FAR = 6.0, 0.1
"""A visit is in a burst from so many times the distance of the good ones on, but not below 10 %:
bursts take 1.4 to 3 times as long, and what is left out of the noise makes errors look small."""

_PASSES = 20
_SETTLED = 1e-6

_GUESS_WEIGHT = 1e-4
"""Weight, in visits, of what is guessed of an op beforehand, which may be off by all of it; a label
is off by some per cent of the model: (0.01 / 1)². It decides only what no frame tells apart."""


def is_repeatable(op: OpSpec) -> bool:
    """Whether an op can follow itself: every input has the shape of its output."""
    return all(shape == op.outputs[0] for shape in op.inputs)


@dataclass(frozen=True)
class ChainFit:
    """The line through the latencies of one op's chains.

    Attributes:
        per_copy_ns: slope, what one more copy takes; of either sign where an op takes next to
            nothing.
        fixed_ns: constant, what a model takes beside its copies.
        error_ns: standard error of `per_copy_ns`.
        spread_ns: robust standard deviation about it of what single visits, less the constant, say
            of a copy.
    """

    per_copy_ns: float
    fixed_ns: float
    error_ns: float
    spread_ns: float


def fit_chain(lengths: ArrayLike, latency_ns: ArrayLike) -> ChainFit:
    """Solves `latency = fixed + length · per_copy` over single visits.

    Least squares relative to the latency; outliers lose weight (Huber), and visits in a burst are
    left out. These are told by the line that two thirds of all visits are nearest to, which holds
    out where two of the three visits of one length are bad: no weight would, for a length has much
    leverage. The standard error contains what the latencies depart from a line by.

    Args:
        lengths: copies of the op in the model of each visit, `(n_visits,)`.
        latency_ns: median latency of each visit, `(n_visits,)`.

    Raises:
        InvalidInputError: fewer than `LEAST_LENGTHS` different lengths.
    """
    copies = np.asarray(lengths, dtype=np.float64)
    latencies = np.asarray(latency_ns, dtype=np.float64)
    n_lengths = len(set(copies.tolist()))
    if n_lengths < LEAST_LENGTHS:
        raise InvalidInputError(
            f"a chain needs at least {LEAST_LENGTHS} lengths, got {n_lengths}; measure more"
        )
    good = _near_most(copies, latencies)
    design = np.stack([np.ones_like(copies), copies], axis=1)[good] / latencies[good, None]
    fit = _robust_fit(design, np.ones(len(design)), np.zeros((0, 2)), np.zeros(0))
    fixed, per_copy = fit.values.tolist()
    spread_ns = robust_standard_deviation((latencies - fixed) / copies)
    return ChainFit(per_copy, fixed, float(fit.errors[1]), spread_ns)


def _near_most(copies: NDArray[np.float64], latencies: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which visits lie near the line through two visits whose `_MOST` nearest visits are nearest.

    After the least median of squares (Rousseeuw, 1984), with another share than half: half of the
    visits may be met by a line through the bad ones of one length and all of another.
    """
    one, other = np.nonzero(copies[:, None] < copies[None, :])
    slopes = (latencies[other] - latencies[one]) / (copies[other] - copies[one])
    lines = latencies[one, None] + slopes[:, None] * (copies[None, :] - copies[one, None])
    distances = np.abs(lines / latencies - 1)
    n_near = math.ceil(_MOST * len(copies))
    within = np.partition(distances, n_near - 1, axis=1)[:, n_near - 1]
    best = int(within.argmin())
    return np.asarray(distances[best] <= max(_FAR * float(within[best]), _LEAST_FAR))


@dataclass(frozen=True, eq=False)
class FrameFit:
    """Latencies of the ops that frames hold and chains do not, in nanoseconds.

    Attributes:
        values_ns: `(n_ops,)`, of either sign where an op takes next to nothing.
        errors_ns: their standard errors, those of the known neighbours included, `(n_ops,)`.
        spreads_ns: robust standard deviations about them of what single visits, less all else in
            the model, say of one op, `(n_ops,)`.
    """

    values_ns: NDArray[np.float64]
    errors_ns: NDArray[np.float64]
    spreads_ns: NDArray[np.float64]


def solve_frames(
    counts: ArrayLike,
    rest_ns: ArrayLike,
    latency_ns: ArrayLike,
    rest_error_ns: ArrayLike,
    guess_ns: ArrayLike,
) -> FrameFit:
    """Solves `rest = counts · values` over single visits.

    Least squares relative to the latency of the model, since that is what noise is proportional to;
    visits in a burst lose weight (Huber). A weak belief in the guesses (ridge) decides what the
    frames leave open.

    Args:
        counts: how often each op stands in the model of each visit, `(n_visits, n_ops)`.
        rest_ns: latency of each visit less the constant and the known neighbours, `(n_visits,)`.
        latency_ns: latency of each visit, `(n_visits,)`.
        rest_error_ns: standard error of what was subtracted, taken to be common to all frames,
            `(n_visits,)`.
        guess_ns: what each op takes by the work it does, `(n_ops,)`, positive.
    """
    scale = np.asarray(latency_ns, dtype=np.float64)
    guess = np.asarray(guess_ns, dtype=np.float64)
    copies, rest = np.asarray(counts, dtype=np.float64), np.asarray(rest_ns, dtype=np.float64)
    design = copies / scale[:, None]
    belief = math.sqrt(_GUESS_WEIGHT) * np.diag(1 / guess)
    wanted = np.full(len(guess), math.sqrt(_GUESS_WEIGHT))
    fit = _robust_fit(design, rest / scale, belief, wanted)
    common = np.abs(fit.influence) @ (np.asarray(rest_error_ns, dtype=np.float64) / scale)
    left_ns = rest - copies @ fit.values
    spreads = [robust_standard_deviation(left_ns[own > 0] / own[own > 0]) for own in copies.T]
    return FrameFit(fit.values, np.hypot(fit.errors, common), np.array(spreads))


@dataclass(frozen=True, eq=False)
class _RobustFit:
    """Unknowns `(n,)`, their standard errors, and what each row moves them by, `(n, n_rows)`."""

    values: NDArray[np.float64]
    errors: NDArray[np.float64]
    influence: NDArray[np.float64]


def _robust_fit(
    design: NDArray[np.float64],
    target: NDArray[np.float64],
    belief: NDArray[np.float64],
    wanted: NDArray[np.float64],
) -> _RobustFit:
    """Huber's least squares of `design · values = target`; rows of `belief` keep their weight."""
    # Columns are brought to one scale, nanoseconds of chains and of a stem being far apart.
    size = np.linalg.norm(np.concatenate([design, belief]), axis=0)
    design, belief = design / size, belief / size
    values, residuals = np.zeros(design.shape[1]), target
    weights = np.ones_like(target)
    for _ in range(_PASSES):
        trust, before = weights, values
        normal = np.linalg.inv(design.T @ (trust[:, None] * design) + belief.T @ belief)
        values = normal @ (design.T @ (trust * target) + belief.T @ wanted)
        residuals = target - design @ values
        if np.abs(values - before).max() <= _SETTLED * np.abs(values).max():
            break
        weights = huber_weights(residuals)
    degrees = max(1, len(target) - len(values))
    variance = float(np.sum(trust * residuals**2)) / degrees
    errors = np.sqrt(variance * np.diag(normal))
    return _RobustFit(values / size, errors / size, (normal @ (design.T * trust)) / size[:, None])
