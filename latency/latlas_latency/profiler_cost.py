"""What profiling itself adds to node times, fitted from networks run with and without it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlas_latency.measurement.statistics import huber_weights

_PASSES = 50

_PRIOR_WEIGHT = 0.16
"""Weight, in networks, of the belief that nodes make up all of an inference: labels are off by
some 2 %, the share of nodes by some 5 %, hence (2 / 5)²."""

_FACES = ((0,), (0, 1), (0, 2), (0, 1, 2))
"""Unknowns that may differ from zero: the share of the nodes always, each cost or not."""


@dataclass(frozen=True)
class ProfilerCost:
    """Cost of a runtime's profiler.

    Attributes:
        per_node_ns: what it adds to the time of each node.
        per_run_ns: what one inference costs outside its nodes, whatever the network; part of
            plain latencies only.
        n_networks: networks that were run with and without it; with none, nothing is known of
            the cost and both figures are 0.
        node_share: nodes' share of the rest of a plain inference; near 1.
    """

    per_node_ns: float
    per_run_ns: float
    n_networks: int
    node_share: float = 1.0


def fit_profiler_cost(
    profiled_sum_ns: ArrayLike, n_nodes: ArrayLike, plain_ns: ArrayLike
) -> ProfilerCost:
    """Solves `profiled sum = node_share · (plain latency - per_run) + per_node · nodes`.

    Least squares over networks, relative to the plain latency; both costs are held
    non-negative, the share is drawn weakly towards 1, and outliers lose weight (Huber). The
    share must be fitted along: with nodes at 94 % of a latency of 10 ms, a fit without it would
    find no cost at all.

    Args:
        profiled_sum_ns: time of all nodes of a network in a profiled inference, `(n,)`.
        n_nodes: number of those nodes, `(n,)`.
        plain_ns: latency of the same network without profiling, `(n,)`.
    """
    sums = np.asarray(profiled_sum_ns, dtype=np.float64)
    plain = np.asarray(plain_ns, dtype=np.float64)
    nodes = np.asarray(n_nodes, dtype=np.float64)
    n_networks = len(sums)
    if not n_networks:
        return ProfilerCost(0.0, 0.0, 0)
    # Columns: share, cost per node, cost per run (times share). Last row: the belief in 1.
    design = np.stack([np.ones(n_networks), nodes / plain, -1 / plain], axis=1)
    design = np.concatenate([design, [[1.0, 0.0, 0.0]]])
    target = np.append(sums / plain, 1.0)
    weights = np.ones(n_networks)
    unknowns = np.zeros(3)
    for _ in range(_PASSES):
        root = np.sqrt(np.append(weights, _PRIOR_WEIGHT))
        unknowns = _least_squares_non_negative(design * root[:, None], target * root)
        weights = huber_weights((target - design @ unknowns)[:-1])
    share, per_node, per_run = (float(value) for value in unknowns)
    return ProfilerCost(per_node, per_run / share if share > 0 else 0.0, n_networks, share)


def _least_squares_non_negative(
    design: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Least squares in three unknowns of which the costs must not be negative, `(3,)`.

    The best of the feasible faces, each solved without constraint.
    """
    best, least = np.zeros(3), np.inf
    for face in _FACES:
        columns = list(face)
        solution = np.zeros(3)
        solution[columns] = np.linalg.lstsq(design[:, columns], target, rcond=None)[0]
        error = float(np.sum((target - design @ solution) ** 2))
        # A larger face must fit better by more than rounding, or columns are alike.
        if solution.min() >= 0 and error < least * (1 - 1e-9):
            best, least = solution, error
    return best
