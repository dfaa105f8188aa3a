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
from numpy.typing import ArrayLike

from latlas_latency.calibration import AffineFit
from latlas_latency.measurement.statistics import huber_weights
from latlas_latency.table import LookupTable
from latlas_ops.network import Network

LEAST_NETWORKS = 5
"""A line from fewer networks is no better known than the drift that it is to remove."""

CONSTANT_SHARE = 0.03
"""Standard deviation of the constant between two sessions, as a share of a middling latency."""

_PRIOR_NETWORKS = 10
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
    table: LookupTable, networks: Sequence[Network], latency_ms: ArrayLike
) -> SessionTable | None:
    """The table with its calibration corrected by what a session's own networks say.

    The correction is a line, `latency = constant + factor · prediction`, by least squares relative
    to the prediction; outliers lose weight (Huber), and a constant is only believed as far as it is
    seen (see `CONSTANT_SHARE`). The residual of the calibration counts as `_PRIOR_NETWORKS`
    networks beside those of the session. None where the table is not calibrated, or fewer than
    `LEAST_NETWORKS` networks were measured.

    Args:
        table: the table.
        networks: networks measured in the session, best of different latency.
        latency_ms: their latencies, `(n,)`.
    """
    calibration = table.calibration
    if calibration is None or len(networks) < LEAST_NETWORKS:
        return None
    old, n_networks = calibration.fit, len(networks)
    predicted_ms = table.predict(networks).mean_ms
    ratios = np.asarray(latency_ms, dtype=np.float64) / predicted_ms
    centre_ms = 1 / float(np.mean(1 / predicted_ms))
    # Columns: scale at the centre, and the constant as a share of the centre.
    design = np.stack([np.ones(n_networks), centre_ms / predicted_ms - 1], axis=1)
    belief = np.diag([0.0, (old.residual / CONSTANT_SHARE) ** 2])
    trust = np.ones(n_networks)
    for _ in range(_PASSES):
        normal = np.linalg.inv(design.T @ (trust[:, None] * design) + belief)
        scale, share = normal @ (design.T @ (trust * ratios))
        errors = ratios - design @ np.array([scale, share])
        trust = huber_weights(errors)
    own = float(np.sum(trust * errors**2))
    variance = (_PRIOR_NETWORKS * old.residual**2 + own) / (_PRIOR_NETWORKS + n_networks - 2)
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
