"""Comparing a latency model with networks that it was not made from."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

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
from latlas_latency.session import calibrated_in_session
from latlas_latency.table import LookupTable
from latlas_latency.validation import BEFORE_SESSION, Errors, NamedErrors, Validation
from latlas_ops.costs import network_cost
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import SearchSpace


def validate(
    model: LatencyModel,
    observations: Sequence[Observation],
    space: SearchSpace | None,
    *,
    level: float = 0.9,
    anchors: Sequence[Observation] = (),
    parts: Mapping[str, Collection[int]] | None = None,
    baselines: Mapping[str, ArrayLike] | None = None,
) -> Validation:
    """Predicts unseen networks and compares with what was measured.

    Labels are medians of visit medians, each visit divided by the common mode of its round where
    that lowers the noise (see `measure_drift`).

    Args:
        model: table or predictor.
        observations: plain visits of networks that the model was not made from.
        anchors: further networks of the same sitting, by which a table is calibrated for the
            session first; see `calibrated_in_session`.
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
    everything = [*observations, *anchors]
    require_profiled(everything, "validation", wanted=False)
    require_target(everything, model.target)
    batch = arch_batch(observations, space) if space is not None else None
    networks = [observation.network for observation in observations]
    subjects = networks if batch is None else batch
    drift = measure_drift(everything)
    before = model.predict(subjects, level)
    session = None
    if isinstance(model, LookupTable):
        anchor_ms = [drift.latency_ns(anchor) / 1e6 for anchor in anchors]
        anchor_networks = [anchor.network for anchor in anchors]
        session = calibrated_in_session(model, anchor_networks, anchor_ms, drift.noise)
    prediction = before if session is None else session.table.predict(subjects, level)
    measured = np.array([drift.latency_ns(observation) for observation in observations]) / 1e6
    macs = np.array([network_cost(network).macs for network in networks], dtype=np.float64)
    inside = (prediction.lower_ms <= measured) & (measured <= prediction.upper_ms)
    visits = [visit for observation in observations for visit in observation.visits]

    def errors(predicted: ArrayLike, indices: Collection[int] = range(len(networks))) -> Errors:
        chosen = list(indices)
        answers = np.asarray(predicted, dtype=np.float64)
        return _errors(measured[chosen], answers[chosen], macs[chosen])

    judged_parts: list[tuple[str, ArrayLike, Collection[int]]] = [
        (name, prediction.mean_ms, indices) for name, indices in (parts or {}).items()
    ]
    if session is not None:
        judged_parts.append((BEFORE_SESSION, before.mean_ms, range(len(networks))))
    return Validation(
        **vars(errors(prediction.mean_ms)),
        interval_coverage=float(np.mean(inside)),
        interval_level=level,
        label_noise=drift.label_noise,
        common_mode_free_noise=drift.common_mode_free_noise,
        measured_ns=max(visit.started_ns for visit in visits),
        session_scale=math.nan if session is None else session.scale,
        parts=tuple(
            NamedErrors(**vars(errors(predicted, indices)), name=name)
            for name, predicted, indices in judged_parts
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
