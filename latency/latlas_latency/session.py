"""A lookup table in one session: what changed since, taken from networks of the session itself.

From one session to the next everything on a device runs some per cent faster or slower, and large
networks more so than small ones: whatever shares the cache and the memory with them has changed. No
table can know. Whole networks measured in the session say how much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlas_latency.calibration import AffineFit
from latlas_latency.measurement.statistics import huber_weights
from latlas_latency.table import LookupTable
from latlas_ops.network import Network

LEAST_NETWORKS = 5
"""A line from fewer networks is no better known than the drift that it is to remove."""

CONSTANT_SHARE = 0.03
"""Standard deviation of the constant between two sessions, as a share of a middling latency."""

LABEL_NOISE = 0.8
"""Standard deviation of a label over the noise of a sitting (the median difference of halves of its
rounds), for normal noise: 0.74 of two rounds, 0.81 of three, 0.82 of five."""

_PRIOR_NETWORKS = 5
"""Networks that the residual of the calibration counts for beside those of the session."""

_LEAST_RESIDUAL = 0.005
"""Relative error of sums of entries where the noise of the labels explains all of a residual."""

_PASSES = 20


@dataclass(frozen=True)
class SessionTable:
    """A table whose calibration speaks of one session.

    Attributes:
        table: the table; its intervals contain no drift between sessions any more.
        scale: latency in the session over what the table had said, for a middling network.
    """

    table: LookupTable
    scale: float


def calibrated_in_session(
    table: LookupTable, networks: Sequence[Network], latency_ms: ArrayLike, noise: float = math.nan
) -> SessionTable | None:
    """The table with its calibration corrected by what a session's own networks say.

    The correction is a line, `latency = constant + factor · prediction`, by least squares relative
    to the prediction; outliers lose weight (Huber), and a constant is only believed as far as it is
    seen (see `CONSTANT_SHARE`). The residual of the calibration, with the noise of this session's
    labels in the place of its own, counts as `_PRIOR_NETWORKS` networks beside those of the
    session. None where the table is not calibrated, or fewer than `LEAST_NETWORKS` networks were
    measured.

    Args:
        table: the table.
        networks: networks measured in the session, best of different latency.
        latency_ms: their latencies, `(n,)`.
        noise: of the session, as `Drift` has it; where it is NaN, that of the calibration.
    """
    calibration = table.calibration
    if calibration is None or len(networks) < LEAST_NETWORKS:
        return None
    old, n_networks = calibration.fit, len(networks)
    predicted_ms = table.predict(networks).mean_ms
    ratios = np.asarray(latency_ms, dtype=np.float64) / predicted_ms
    design, centre_ms = centred(predicted_ms)
    before = residual_at_noise(table, noise)
    belief = np.diag([0.0, (before / CONSTANT_SHARE) ** 2])
    trust = np.ones(n_networks)
    for _ in range(_PASSES):
        normal = np.linalg.inv(design.T @ (trust[:, None] * design) + belief)
        scale, share = normal @ (design.T @ (trust * ratios))
        errors = ratios - design @ np.array([scale, share])
        trust = huber_weights(errors)
    own = float(np.sum(trust * errors**2))
    variance = (_PRIOR_NETWORKS * before**2 + own) / (_PRIOR_NETWORKS + n_networks - 2)
    # constant = share · centre, factor = scale - share; then the old line within the new one.
    to_line = np.array([[1.0, old.intercept], [0.0, old.slope]]) @ np.array(
        [[0.0, centre_ms], [1.0, -1.0]]
    )
    intercept, slope = to_line @ np.array([scale, share])
    covariance = to_line @ (variance * normal) @ to_line.T
    fit = AffineFit(
        intercept=float(intercept),
        slope=float(slope),
        covariance=(
            (float(covariance[0, 0]), float(covariance[0, 1])),
            (float(covariance[1, 0]), float(covariance[1, 1])),
        ),
        residual=math.sqrt(variance),
        n_networks=_PRIOR_NETWORKS + n_networks,
    )
    corrected = replace(table, calibration=replace(calibration, fit=fit, session_error=0.0))
    return SessionTable(corrected, float(scale))


def centred(predicted_ms: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """What the ratios of measured to predicted latencies are fitted with.

    Returns:
        A column for the scale of a middling network and one for a constant as a share of its
        latency, `(n, 2)`; and that latency in milliseconds, the harmonic mean.
    """
    centre_ms = 1 / float(np.mean(1 / predicted_ms))
    return np.stack([np.ones_like(predicted_ms), centre_ms / predicted_ms - 1], axis=1), centre_ms


def residual_at_noise(table: LookupTable, noise: float) -> float:
    """The residual of a calibration as it would be about labels with another noise, a fraction.

    Args:
        table: a calibrated table; where it does not say how noisy its labels were, or `noise` is
            NaN, its residual stays as it is.
        noise: of a sitting, as `Drift` has it.
    """
    assert table.calibration is not None
    residual = table.calibration.fit.residual
    then = math.nan if table.conditions is None else table.conditions.noise
    if math.isnan(then) or math.isnan(noise):
        return residual
    own = max(residual**2 - (LABEL_NOISE * then) ** 2, _LEAST_RESIDUAL**2)
    return math.sqrt(own + (LABEL_NOISE * noise) ** 2)


def within_session(table: LookupTable) -> LookupTable:
    """The table with intervals that leave out what all networks share in another session."""
    if table.calibration is None:
        return table
    return replace(table, calibration=replace(table.calibration, session_error=0.0))


def scaled(fit: AffineFit, scale: float, error: float) -> AffineFit:
    """A line multiplied by a factor that is known with a relative standard error."""
    line = np.array([fit.intercept, fit.slope])
    covariance = scale**2 * (np.array(fit.covariance) + error**2 * np.outer(line, line))
    return replace(
        fit,
        intercept=scale * fit.intercept,
        slope=scale * fit.slope,
        covariance=(
            (float(covariance[0, 0]), float(covariance[0, 1])),
            (float(covariance[1, 0]), float(covariance[1, 1])),
        ),
    )
