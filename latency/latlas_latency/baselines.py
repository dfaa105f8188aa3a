"""What a lookup table has to beat: simpler models on the same measurements.

Each of them is fitted to what the table itself had, the whole networks that calibrated it or as
much measuring time, and scaled for the session as the table is, so that a comparison says what
measuring ops in their real surroundings is worth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from latlas_latency.calibration import LEAST_NETWORKS, fit_affine
from latlas_latency.measurement.statistics import robust_mean
from latlas_latency.measurement.target import Target
from latlas_latency.observations import Observation, arch_batch, measure_drift
from latlas_ops.costs import network_cost
from latlas_ops.errors import InvalidInputError, MissingDependencyError
from latlas_ops.opspec import OpSpec
from latlas_ops.space import SearchSpace

MACS_AFFINE = "MACs, affine"
ALONE_SUM = "ops alone, sum"
ALONE_AFFINE = "ops alone, affine"
MLP = "MLP, same measuring time"

Milliseconds = NDArray[np.float64]


def line_baselines(
    calibration: Sequence[Observation],
    alone: Sequence[Observation],
    unseen: Sequence[Observation],
    anchors: Sequence[Observation] = (),
) -> dict[str, Milliseconds]:
    """Predictions by straight lines through the calibration networks, and by ops timed alone.

    Args:
        calibration: the whole networks that calibrated the table; with fewer than three, or such
            that contradict a rising line, there is no line.
        alone: programs of one op each; baselines that need an op which is not among them are
            left out.
        unseen: the networks that are predicted, `n` of them.
        anchors: networks measured in the same session as `unseen`; lines are scaled by what they
            say of it, plain sums are left as they are.

    Returns:
        Name → predicted latency, `(n,)` milliseconds.
    """
    found: dict[str, Milliseconds] = {}
    alone_ms = {seen.network.ops[0]: seen.latency_ms for seen in alone}
    inputs: dict[str, Callable[[Sequence[Observation]], Milliseconds]] = {MACS_AFFINE: _macs}
    if _cover(alone_ms, [*calibration, *unseen, *anchors]):
        found[ALONE_SUM] = _sums_ms(alone_ms, unseen)
        inputs[ALONE_AFFINE] = partial(_sums_ms, alone_ms)
    if len(calibration) >= LEAST_NETWORKS:
        drift = measure_drift(calibration)
        labels_ms = np.array([drift.latency_ns(seen) / 1e6 for seen in calibration])
        for name, of in inputs.items():
            try:
                line = fit_affine(of(calibration), labels_ms, name)
            except InvalidInputError:
                continue
            scale = _session_scale(anchors, line.mean(of(anchors)) if anchors else np.zeros(0))
            found[name] = scale * line.mean(of(unseen))
    return found


def mlp_baseline(
    training: Sequence[Observation],
    unseen: Sequence[Observation],
    anchors: Sequence[Observation],
    space: SearchSpace,
    target: Target,
    *,
    device_ns: int,
    seed: int,
) -> dict[str, Milliseconds]:
    """Predictions by an MLP on as many whole networks as fit into a time of measuring.

    Args:
        training: whole networks of the space in random order.
        unseen: the networks that are predicted, `n` architectures of the space.
        anchors: architectures measured in the same session as `unseen`; the predictions are scaled
            by what they say of it. None of them leaves the predictions as they are.
        space: the space.
        target: what was measured on.
        device_ns: time that the device spent on the table, timed inferences alone.
        seed: of the fit.

    Returns:
        Name → predicted latency, `(n,)` milliseconds; nothing where there are too few networks
        for a fit, or the package that fits is not installed.
    """
    from latlas_latency.predictors.mlp import fit_mlp

    spent_ns = list(accumulate(device_time_ns([seen]) for seen in training))
    chosen = [seen for seen, total in zip(training, spent_ns, strict=True) if total <= device_ns]
    batch, unseen_batch = arch_batch(chosen, space), arch_batch(unseen, space)
    if not chosen or batch is None or unseen_batch is None:
        return {}
    drift = measure_drift(chosen)
    labels_ms = np.array([drift.latency_ns(seen) / 1e6 for seen in chosen])
    try:
        model = fit_mlp(batch, labels_ms, target, seed=seed)
    except (InvalidInputError, MissingDependencyError):
        return {}
    mean_ms = model.predict(unseen_batch).mean_ms
    anchor_batch = arch_batch(anchors, space)
    if anchors and anchor_batch is not None:
        mean_ms = mean_ms * _session_scale(anchors, model.predict(anchor_batch).mean_ms)
    return {f"{MLP} ({len(chosen)} networks)": mean_ms}


def _session_scale(anchors: Sequence[Observation], predicted_ms: Milliseconds) -> float:
    """Latency in the session of the anchors over what was predicted; 1 without any."""
    if not anchors:
        return 1.0
    measured_ms = np.array([anchor.latency_ms for anchor in anchors])
    return float(np.exp(robust_mean(np.log(measured_ms / predicted_ms))))


def device_time_ns(observations: Sequence[Observation]) -> int:
    """Time that devices spent in the timed inferences of all visits."""
    return sum(visit.duration_ns for seen in observations for visit in seen.visits)


def _macs(observations: Sequence[Observation]) -> NDArray[np.float64]:
    return np.array([network_cost(seen.network).macs for seen in observations], dtype=np.float64)


def _cover(alone_ms: Mapping[OpSpec, float], observations: Sequence[Observation]) -> bool:
    return bool(alone_ms) and all(
        op in alone_ms for seen in observations for op in seen.network.ops
    )


def _sums_ms(
    alone_ms: Mapping[OpSpec, float], observations: Sequence[Observation]
) -> NDArray[np.float64]:
    return np.array([sum(alone_ms[op] for op in seen.network.ops) for seen in observations])
