"""Two runs of one subject that disagree beyond the noise of their visits."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlas_latency.measurement.statistics import (
    MAD_TO_STANDARD_DEVIATION,
    common_mode,
    student_t_quantile,
)
from latlas_latency.observations import LEAST_FOR_COMMON_MODE
from latlas_ops.errors import InvalidInputError

Floats = NDArray[np.float64]
Subject = TypeVar("Subject", bound=Hashable)
Run = TypeVar("Run", bound=Hashable)

LEAST_RATIO = 1.03
"""Runs closer than this agree, however little their visits scatter."""

SIGNIFICANCE = 0.01
"""Chance of finding any disagreement where there is none."""

_PRIOR_PAIRS = 6
"""Pairs of visits that the typical noise of all subjects counts for beside a subject's own."""

_LEAST_NOISE = 1e-3
"""No run is trusted further than 0.1 %, even if rounded latencies happen to repeat exactly."""


@dataclass(frozen=True)
class Disagreement(Generic[Subject, Run]):
    """One subject that two runs put at different latencies.

    Attributes:
        subject: the op or network.
        faster: the run with the smaller latency.
        slower: the run with the larger one.
        ratio: latency in the slower over that in the faster, above 1.
        sigmas: logarithm of the ratio in standard errors of the two together.
    """

    subject: Subject
    faster: Run
    slower: Run
    ratio: float
    sigmas: float


def disagreements(
    visit_medians: Mapping[Subject, Mapping[Run, ArrayLike]],
    *,
    least_ratio: float = LEAST_RATIO,
    significance: float = SIGNIFICANCE,
    remove_common_mode: bool = False,
) -> tuple[Disagreement[Subject, Run], ...]:
    """Every subject and pair of its runs whose latencies cannot be the same.

    A run is what should repeat: a sitting, a board, a place in a network. Its latency is the
    median of its visits. The noise of one visit comes from how visits of one run differ, a
    subject's own drawn towards the typical of all, for a subject alone has few. Student's t then
    decides, corrected for the number of comparisons (Bonferroni).

    Args:
        visit_medians: subject → run → medians of its visits, `(n_visits,)`, positive, in any one
            unit.
        least_ratio: the least factor that counts, at least 1.
        significance: chance of a false alarm in all comparisons together, between 0 and 1.
        remove_common_mode: divide each run by what all subjects share in it, so that a board
            which is slower in everything does not accuse every op; needs
            `LEAST_FOR_COMMON_MODE` subjects.

    Returns:
        The disagreements, most significant first.

    Raises:
        InvalidInputError: an argument out of range; a value that is not finite and positive;
            visits too few to tell their noise (no run has two).
    """
    if not (math.isfinite(least_ratio) and least_ratio >= 1):
        raise InvalidInputError(f"least_ratio {least_ratio} is less than 1")
    if not 0 < significance < 1:
        raise InvalidInputError(f"significance {significance} is not between 0 and 1")
    logs = {
        subject: {run: _checked_logs(values, subject, run) for run, values in runs.items()}
        for subject, runs in visit_medians.items()
    }
    pairs = [
        (subject, one, other)
        for subject, runs in logs.items()
        for one, other in itertools.combinations(runs, 2)
    ]
    if not pairs:
        return ()
    noise = _Noise.of(logs)
    common = _common_mode(logs) if remove_common_mode else {}
    found = []
    for subject, one, other in pairs:
        runs = logs[subject]
        level = {run: float(np.median(runs[run])) - common.get(run, 0.0) for run in (one, other)}
        faster, slower = sorted((one, other), key=level.__getitem__)
        distance = level[slower] - level[faster]
        variance, degrees = noise.of_visit(subject)
        error = math.sqrt(variance * sum(_per_median(len(runs[run])) for run in (one, other)))
        sigmas = distance / error
        least = student_t_quantile(1 - significance / (2 * len(pairs)), degrees)
        if distance >= math.log(least_ratio) and sigmas >= least:
            found.append(Disagreement(subject, faster, slower, math.exp(distance), sigmas))
    return tuple(sorted(found, key=lambda disagreement: -disagreement.sigmas))


@dataclass(frozen=True, eq=False)
class _Noise(Generic[Subject]):
    """Noise of one visit, from differences between visits of one run that follow one another.

    Differences need no estimate of the level, so that two visits tell as much each as twenty.
    """

    typical: float
    own: Mapping[Subject, Floats]

    @classmethod
    def of(cls, logs: Mapping[Subject, Mapping[Run, Floats]]) -> _Noise[Subject]:
        own = {
            subject: np.concatenate([np.diff(values) for values in runs.values()] or [np.zeros(0)])
            for subject, runs in logs.items()
        }
        everything = np.concatenate(list(own.values()))
        if not everything.size:
            raise InvalidInputError("no run has two visits: how far they scatter cannot be told")
        return cls(max(_spread(everything), _LEAST_NOISE), own)

    def of_visit(self, subject: Subject) -> tuple[float, int]:
        """Variance of a visit's logarithm, and the degrees of freedom that it is known with."""
        own = self.own[subject]
        spread = _spread(own) if own.size else 0.0
        weight = _PRIOR_PAIRS + own.size
        variance = (_PRIOR_PAIRS * self.typical**2 + own.size * spread**2) / weight
        return variance, weight


def _spread(differences: Floats) -> float:
    return MAD_TO_STANDARD_DEVIATION * float(np.median(np.abs(differences))) / math.sqrt(2)


def _per_median(n_visits: int) -> float:
    """Variance of the median of so many normal values, for one value's variance of 1."""
    return 1 / n_visits if n_visits <= 2 else math.pi / (2 * n_visits)


def _common_mode(logs: Mapping[Subject, Mapping[Run, Floats]]) -> dict[Run, float]:
    """Logarithm of what all subjects share in each run."""
    if len(logs) < LEAST_FOR_COMMON_MODE:
        raise InvalidInputError(
            f"{len(logs)} subjects are too few to tell what they share in a run; "
            f"{LEAST_FOR_COMMON_MODE} are needed"
        )
    runs = list(dict.fromkeys(run for subject in logs.values() for run in subject))
    matrix = np.array(
        [
            [math.exp(np.median(subject[run])) if run in subject else math.nan for run in runs]
            for subject in logs.values()
        ]
    )
    return dict(zip(runs, np.log(common_mode(matrix)).tolist(), strict=True))


def _checked_logs(values: ArrayLike, subject: Hashable, run: Hashable) -> Floats:
    medians = np.asarray(values, dtype=np.float64)
    if medians.ndim != 1 or not medians.size:
        raise InvalidInputError(
            f"{subject}, run {run}: visit medians must be one axis of at least one, "
            f"not shape {medians.shape}"
        )
    if not (np.isfinite(medians).all() and medians.min() > 0):
        raise InvalidInputError(f"{subject}, run {run}: a visit median is not positive")
    return np.asarray(np.log(medians), dtype=np.float64)
