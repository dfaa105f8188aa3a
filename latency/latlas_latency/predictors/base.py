"""What the predictors share: checks of what they are fitted on and asked about."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlas_latency.calibration import SESSION_DRIFT
from latlas_latency.measurement.statistics import require_level
from latlas_latency.model import Prediction, Subjects
from latlas_latency.predictors.features import choice_names
from latlas_latency.space_reference import SpaceReference
from latlas_ops.errors import InvalidInputError, SpaceMismatchError
from latlas_ops.space import ArchBatch


def checked_latencies(
    batch: ArchBatch, latency_ms: ArrayLike, what: str, least: int
) -> NDArray[np.float64]:
    """The latencies of a batch as `(n,)` float64.

    Raises:
        InvalidInputError: not one positive latency per architecture, or fewer than `least`.
    """
    latencies = np.asarray(latency_ms, dtype=np.float64)
    if latencies.shape != (len(batch),):
        raise InvalidInputError(
            f"{what}: {len(batch)} architectures need as many latencies, got {latencies.shape}"
        )
    if len(latencies) < least:
        raise InvalidInputError(
            f"{what} needs at least {least} measured architectures, got {len(latencies)}"
        )
    if not np.isfinite(latencies).all() or latencies.min() <= 0:
        raise InvalidInputError(f"{what}: latencies must be positive")
    return latencies


def checked_archs(
    subjects: Subjects, space: SpaceReference, choices: tuple[str, ...], what: str
) -> ArchBatch:
    """The architectures a predictor is asked about.

    Args:
        subjects: what it was asked about.
        space: the space it was fitted on.
        choices: names of that space's choices.
        what: names the predictor in messages.

    Raises:
        SpaceMismatchError: networks, or architectures of another space.
    """
    if not isinstance(subjects, ArchBatch):
        raise SpaceMismatchError(
            f"{what} knows architectures of space {space.name!r} only, not networks given as ops; "
            "ask a lookup table about those"
        )
    space.require(subjects.space, what)
    if choice_names(subjects.space) != choices:
        raise SpaceMismatchError(
            f"{what} was fitted on a space {space.name!r} with other choices than the one given"
        )
    return subjects


def estimated_prediction(
    mean_ms: NDArray[np.float64], log_half_width: float, level: float
) -> Prediction:
    """A prediction that is an estimate throughout, with a relative interval.

    The error within a session and the drift to another one (`SESSION_DRIFT`, taken for normal) add
    up as independent errors do.

    Args:
        mean_ms: `(n,)`.
        log_half_width: half the width within a session, of the logarithm.
        level: coverage it promises.
    """
    require_level(level)
    drift = NormalDist().inv_cdf((1 + level) / 2) * SESSION_DRIFT
    factor = math.exp(math.hypot(log_half_width, drift))
    nothing = np.zeros_like(mean_ms)
    return Prediction(
        mean_ms=mean_ms,
        lower_ms=mean_ms / factor,
        upper_ms=mean_ms * factor,
        measured_ms=nothing,
        interpolated_ms=nothing,
        estimated_ms=mean_ms,
        level=level,
    )
