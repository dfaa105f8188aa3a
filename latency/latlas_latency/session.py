"""A lookup table in one session: what all networks share there, taken from a few of them.

From one session to the next everything on a device runs some per cent faster or slower, for reasons
that no table can know. Whole networks measured in the session itself say how much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from latlas_latency.calibration import AffineFit
from latlas_latency.measurement.statistics import robust_mean, robust_standard_deviation
from latlas_latency.table import LookupTable
from latlas_ops.network import Network

LEAST_NETWORKS = 5
"""A factor from fewer networks is no better known than the drift that it is to remove."""


@dataclass(frozen=True)
class SessionTable:
    """A table whose calibration speaks of one session.

    Attributes:
        table: the table; its intervals contain no drift between sessions any more.
        scale: latency in the session over what the table had said.
    """

    table: LookupTable
    scale: float


def calibrated_in_session(
    table: LookupTable, networks: Sequence[Network], latency_ms: ArrayLike
) -> SessionTable | None:
    """The table with its calibration multiplied by what a session's own networks say.

    The intervals widen by what is not known of the factor. None where the table is not calibrated,
    or fewer than `LEAST_NETWORKS` networks were measured.

    Args:
        table: the table.
        networks: networks measured in the session, best of different latency.
        latency_ms: their latencies, `(n,)`.
    """
    calibration = table.calibration
    if calibration is None or len(networks) < LEAST_NETWORKS:
        return None
    measured_ms = np.asarray(latency_ms, dtype=np.float64)
    logs = np.log(measured_ms / table.predict(networks).mean_ms)
    scale = math.exp(robust_mean(logs))
    scatter = max(robust_standard_deviation(logs), calibration.fit.residual)
    fit = scaled(calibration.fit, scale, scatter / math.sqrt(len(networks)))
    return SessionTable(
        replace(table, calibration=replace(calibration, fit=fit, session_error=0.0)), scale
    )


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
