"""Estimates for ops that were never measured: what similar ops cost per unit of work.

An estimate is never used unless the caller allows it, and is shown apart from measured figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from latlas_ops.costs import op_cost
from latlas_ops.opspec import OpSpec

LEAST_RELATIVE_ERROR = 0.3
"""An estimate is trusted to no better than this relative standard deviation."""


@dataclass(frozen=True)
class Estimate:
    """An estimated latency and its relative standard deviation."""

    mean_ms: float
    relative_error: float


def estimate(op: OpSpec, known_ms: Mapping[OpSpec, float]) -> Estimate:
    """Latency of an op by the work it does.

    The median of milliseconds per MAC among known ops of its kind; among all known ops where its
    kind was never measured; and per byte of activations instead, where the op has no MACs. The
    error is the spread of those rates, at least `LEAST_RELATIVE_ERROR`.

    Args:
        op: the op that is asked for.
        known_ms: ops with their latencies; at least one.
    """
    alike = {known: ms for known, ms in known_ms.items() if known.kind == op.kind} or known_ms
    per_mac = bool(op_cost(op).macs) and any(op_cost(known).macs for known in alike)
    rates = np.array(
        [ms / work for known, ms in alike.items() if (work := _work(known, per_mac)) > 0]
    )
    rate = float(np.median(rates))
    spread = float(np.sqrt(np.mean((rates / rate - 1) ** 2)))
    return Estimate(rate * _work(op, per_mac), max(spread, LEAST_RELATIVE_ERROR))


def _work(op: OpSpec, per_mac: bool) -> int:
    cost = op_cost(op)
    return cost.macs if per_mac else cost.activation_bytes
