"""What profiling itself adds to node times, fitted from networks run with and without it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlas_latency.measurement.statistics import huber_weights

_PASSES = 20


@dataclass(frozen=True)
class ProfilerCost:
    """Cost of a runtime's profiler.

    Attributes:
        per_node_ns: what it adds to the time of each node.
        per_run_ns: what one inference costs outside its nodes; part of plain latencies only.
        n_networks: networks that were run with and without it; with none, nothing is known of
            the cost and both figures are 0.
    """

    per_node_ns: float
    per_run_ns: float
    n_networks: int


def fit_profiler_cost(
    profiled_sum_ns: ArrayLike, n_nodes: ArrayLike, plain_ns: ArrayLike
) -> ProfilerCost:
    """Solves `profiled sum = plain latency + per_node · nodes - per_run` over networks.

    Both costs are held non-negative; residuals are weighed relative to the plain latency and
    outliers lose weight (Huber).

    Args:
        profiled_sum_ns: time of all nodes of a network in a profiled inference, `(n,)`.
        n_nodes: number of those nodes, `(n,)`.
        plain_ns: latency of the same network without profiling, `(n,)`.
    """
    sums = np.asarray(profiled_sum_ns, dtype=np.float64)
    plain = np.asarray(plain_ns, dtype=np.float64)
    nodes = np.asarray(n_nodes, dtype=np.float64)
    if not sums.size:
        return ProfilerCost(0.0, 0.0, 0)
    target = (sums - plain) / plain
    design = np.stack([nodes / plain, -1 / plain], axis=1)
    weights = np.ones(len(sums))
    costs = np.zeros(2)
    for _ in range(_PASSES):
        root = np.sqrt(weights)
        costs = _least_squares_non_negative(design * root[:, None], target * root)
        weights = huber_weights(target - design @ costs)
    return ProfilerCost(float(costs[0]), float(costs[1]), len(sums))


def _least_squares_non_negative(
    design: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Non-negative least squares in two unknowns, `(2,)`: the best of the four possible faces."""
    candidates = [np.zeros(2)]
    for columns in ([0], [1], [0, 1]):
        solution = np.zeros(2)
        solution[columns] = np.linalg.lstsq(design[:, columns], target, rcond=None)[0]
        if solution.min() >= 0:
            candidates.append(solution)
    return min(candidates, key=lambda costs: float(np.sum((target - design @ costs) ** 2)))
