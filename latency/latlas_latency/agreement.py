"""Which visits agree with the others of their network: bursts found by what they do to labels.

Noise comes in bursts of a fraction of a second in which everything runs 1.4 to 3 times slower. The
median over a network's visits shrugs off one of them, not two of three. A network whose visits
do not agree is therefore visited again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latlas_latency.measurement.statistics import MAD_TO_STANDARD_DEVIATION
from latlas_latency.observations import removable_common_mode

LEAST_TOLERANCE = 0.03
"""Visits this close agree, however quiet the sitting: labels need no better."""

_TOLERATED_DEVIATIONS = 4.0

_LEAST_STEPS = 8
"""Fewer differences between visits cannot tell ordinary noise from a burst: 3 % is all there is."""


def agreeing(matrix: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which visits lie close to the median of their row, `(n, n_rounds)`; False for no visit.

    What all rows of a round share is divided out first where that lowers the noise. Close is
    within four standard deviations of a visit, robustly estimated from the differences between the
    visits of all rows, and at least within 3 %.

    Args:
        matrix: round matrix `(n, n_rounds)`, see `latlas_latency.measurement.statistics`.
    """
    factors = removable_common_mode(matrix)
    logs = np.log(matrix if factors is None else matrix / factors)
    known = ~np.isnan(logs)
    deviations = np.zeros_like(logs)
    steps = []
    for row in np.flatnonzero(known.any(axis=1)):
        visits = logs[row][known[row]]
        deviations[row] = logs[row] - np.median(visits)
        steps.append(np.diff(visits))
    # Not from the deviations: one in three of them is that of the median itself, which is 0.
    between = np.abs(np.concatenate(steps)) if steps else np.zeros(0)
    spread = 0.0
    if len(between) >= _LEAST_STEPS:
        spread = MAD_TO_STANDARD_DEVIATION * float(np.median(between)) / 2**0.5
    tolerance = max(LEAST_TOLERANCE, _TOLERATED_DEVIATIONS * spread)
    return np.asarray(known & (np.abs(deviations) <= tolerance))
