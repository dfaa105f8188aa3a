"""Comparing a latency model with networks that it was not made from."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from latlas_latency.measurement import statistics
from latlas_latency.model import LatencyModel
from latlas_latency.observations import (
    Observation,
    arch_batch,
    measure_drift,
    require_profiled,
    require_target,
)
from latlas_ops.costs import network_cost
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import SearchSpace


@dataclass(frozen=True)
class Errors:
    """Errors of predicted latencies. Fractions; NaN where a figure cannot be had.

    Attributes:
        n_networks: networks compared.
        mape: mean absolute relative error.
        max_error: largest absolute relative error.
        spearman: rank correlation of predicted and measured latency; NaN for constant values.
        r2: coefficient of determination in milliseconds.
        share_within_5_percent: share of networks with an error of at most 5 %.
        share_within_10_percent: share of networks with an error of at most 10 %.
        pair_order: share of pairs of networks with equal multiply-accumulates that are put in the
            right order; see `statistics.pair_order`. NaN without such a pair.
        n_pairs: how many such pairs there are.
    """

    n_networks: int
    mape: float
    max_error: float
    spearman: float
    r2: float
    share_within_5_percent: float
    share_within_10_percent: float
    pair_order: float
    n_pairs: int


@dataclass(frozen=True)
class NamedErrors(Errors):
    """Errors of something that has a name: a part of the networks, or another model."""

    name: str


@dataclass(frozen=True)
class Validation(Errors):
    """Error of a latency model on unseen networks, beside the noise of the labels.

    Attributes:
        interval_coverage: share of measured latencies inside the predicted interval.
        interval_level: the coverage that the interval promised.
        label_noise: half the rounds of these networks against the other half.
        common_mode_free_noise: the same without what all networks share in a round.
        measured_ns: Unix time at which the last visit began.
        parts: the same model on parts of the networks.
        baselines: other models on all of the networks.
    """

    interval_coverage: float
    interval_level: float
    label_noise: float
    common_mode_free_noise: float
    measured_ns: int = 0
    parts: tuple[NamedErrors, ...] = ()
    baselines: tuple[NamedErrors, ...] = ()


def validate(
    model: LatencyModel,
    observations: Sequence[Observation],
    space: SearchSpace | None,
    *,
    level: float = 0.9,
    parts: Mapping[str, Collection[int]] | None = None,
    baselines: Mapping[str, ArrayLike] | None = None,
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
        parts: name → indices of observations that are also judged on their own; empty ones are
            passed over.
        baselines: name → what another model predicts for the observations, `(n,)` milliseconds.

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
    macs = np.array([network_cost(network).macs for network in networks], dtype=np.float64)
    inside = (prediction.lower_ms <= measured) & (measured <= prediction.upper_ms)
    visits = [visit for observation in observations for visit in observation.visits]

    def errors(predicted: ArrayLike, indices: Collection[int] = range(len(networks))) -> Errors:
        chosen = list(indices)
        answers = np.asarray(predicted, dtype=np.float64)
        return _errors(measured[chosen], answers[chosen], macs[chosen])

    return Validation(
        **vars(errors(prediction.mean_ms)),
        interval_coverage=float(np.mean(inside)),
        interval_level=level,
        label_noise=drift.label_noise,
        common_mode_free_noise=drift.common_mode_free_noise,
        measured_ns=max(visit.started_ns for visit in visits),
        parts=tuple(
            NamedErrors(**vars(errors(prediction.mean_ms, indices)), name=name)
            for name, indices in (parts or {}).items()
            if indices
        ),
        baselines=tuple(
            NamedErrors(**vars(errors(predicted)), name=name)
            for name, predicted in (baselines or {}).items()
        ),
    )


def _errors(
    measured: statistics.Floats, predicted: statistics.Floats, macs: statistics.Floats
) -> Errors:
    several = len(measured) > 1
    pair_order, n_pairs = statistics.pair_order(macs, measured, predicted)
    return Errors(
        n_networks=len(measured),
        mape=statistics.mape(measured, predicted),
        max_error=statistics.max_error(measured, predicted),
        spearman=statistics.spearman(measured, predicted) if several else math.nan,
        r2=statistics.r_squared(measured, predicted) if several else math.nan,
        share_within_5_percent=statistics.share_within(measured, predicted, 0.05),
        share_within_10_percent=statistics.share_within(measured, predicted, 0.10),
        pair_order=pair_order,
        n_pairs=n_pairs,
    )
