"""Tables of spaces measured in part: what whole networks say of interpolating the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from latlas_latency.interpolation_error import check_interpolation
from latlas_latency.observations import Observation, measure_drift
from latlas_latency.table import LookupTable
from latlas_ops.network import Network


def with_interpolation_check(
    table: LookupTable, beyond: Sequence[Observation], sitting: Sequence[Observation]
) -> LookupTable:
    """The table with what whole networks say about interpolating ops that were not measured.

    Args:
        table: the table, as measured.
        beyond: networks of the same sitting that hold ops without an entry; those that cannot be
            interpolated throughout are passed over. None of them calibrated the table.
        sitting: the other observations of the sitting, by which its drift is known.

    Returns:
        The table itself, with the check that it may have, where it is not calibrated or no network
        says anything.
    """
    if table.calibration is None:
        return table
    filled = table.interpolated(op for seen in beyond for op in seen.network.ops)
    told = [seen for seen in beyond if answers(filled, seen.network)]
    drift = measure_drift([*sitting, *beyond])
    prediction = filled.predict([seen.network for seen in told])
    latency_ms = np.array([drift.latency_ns(seen) for seen in told]) / 1e6
    is_interpolated = prediction.interpolated_ms > 0
    check = check_interpolation(
        latency_ms[is_interpolated],
        prediction.mean_ms[is_interpolated],
        prediction.interpolated_ms[is_interpolated],
        table.calibration,
    )
    return table if check is None else replace(table, interpolation_check=check)


def answers(table: LookupTable, network: Network) -> bool:
    """Whether a table has an entry for every op of a network."""
    return all(op in table.by_op for op in network.ops)
