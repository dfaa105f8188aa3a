"""Comparing a latency model with networks that it was not made from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latlas_latency.measurement import statistics
from latlas_latency.model import LatencyModel
from latlas_latency.observations import (
    Observation,
    arch_batch,
    measure_drift,
    require_profiled,
    require_target,
)
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import SearchSpace


@dataclass(frozen=True)
class Validation:
    """Error of a latency model on unseen networks, beside the noise of the labels.

    All figures are fractions. NaN where a figure cannot be had (noise of a single round, rank
    correlation of constant values).

    Attributes:
        n_networks: networks compared.
        mape: mean absolute relative error.
        max_error: largest absolute relative error.
        spearman: rank correlation of predicted and measured latency.
        r2: coefficient of determination in milliseconds.
        share_within_5_percent: share of networks with an error of at most 5 %.
        share_within_10_percent: share of networks with an error of at most 10 %.
        interval_coverage: share of measured latencies inside the predicted interval.
        interval_level: the coverage that the interval promised.
        label_noise: half the rounds of these networks against the other half.
        common_mode_free_noise: the same without what all networks share in a round.
    """

    n_networks: int
    mape: float
    max_error: float
    spearman: float
    r2: float
    share_within_5_percent: float
    share_within_10_percent: float
    interval_coverage: float
    interval_level: float
    label_noise: float
    common_mode_free_noise: float


def validate(
    model: LatencyModel,
    observations: Sequence[Observation],
    space: SearchSpace | None,
    *,
    level: float = 0.9,
) -> Validation:
    """Predicts unseen networks and compares with what was measured.

    Labels are medians of visit medians, each visit divided by the common mode of its round where
    that lowers the noise (see `measure_drift`).

    Args:
        model: table or predictor.
        observations: plain visits of networks that the model was not made from.
        space: where given and every observation is an architecture, the model is asked about
            architectures, which is the only thing some predictors can answer; else about networks.
        level: coverage that the intervals promise.

    Raises:
        InvalidInputError: no observations, or profiled ones.
        TargetMismatchError: an observation was taken on another target; the field is named.
        SpaceMismatchError: an architecture belongs to another space.
        UnknownOpError: the model has no figure for an op.
    """
    if not observations:
        raise InvalidInputError("validation needs at least one network")
    require_profiled(observations, "validation", wanted=False)
    require_target(observations, model.target)
    batch = arch_batch(observations, space) if space is not None else None
    networks = [observation.network for observation in observations]
    prediction = model.predict(networks if batch is None else batch, level)
    drift = measure_drift(observations)
    measured = np.array([drift.latency_ns(observation) for observation in observations]) / 1e6
    predicted = prediction.mean_ms
    inside = (prediction.lower_ms <= measured) & (measured <= prediction.upper_ms)
    several = len(observations) > 1
    return Validation(
        n_networks=len(observations),
        mape=statistics.mape(measured, predicted),
        max_error=statistics.max_error(measured, predicted),
        spearman=statistics.spearman(measured, predicted) if several else math.nan,
        r2=statistics.r_squared(measured, predicted) if several else math.nan,
        share_within_5_percent=statistics.share_within(measured, predicted, 0.05),
        share_within_10_percent=statistics.share_within(measured, predicted, 0.10),
        interval_coverage=float(np.mean(inside)),
        interval_level=level,
        label_noise=drift.label_noise,
        common_mode_free_noise=drift.common_mode_free_noise,
    )
