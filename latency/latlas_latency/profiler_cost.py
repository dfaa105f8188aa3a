"""What profiling itself adds to node times, fitted from networks run with and without it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlas_latency.measurement.statistics import huber_weights

_PASSES = 50

_PRIOR_WEIGHT = 0.16
"""Weight, in networks, of what is believed beforehand: labels are off by some 2 %, nodes make up
all of an inference to within some 5 %, and what it costs outside them is within 5 %: (2 / 5)²."""

_FACES = ((0,), (0, 1), (0, 2), (0, 1, 2))
"""Unknowns that may be free: the share of the nodes always, each cost or not."""


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
    profiled_sum_ns: ArrayLike,
    n_nodes: ArrayLike,
    plain_ns: ArrayLike,
    *,
    shortest_node_ns: float = math.inf,
) -> ProfilerCost:
    """Solves `profiled sum = node_share · (plain latency - per_run) + per_node · nodes`.

    Least squares over networks, relative to the plain latency; outliers lose weight (Huber). Both
    costs are held non-negative and the cost per node at no more than the shortest node takes. The
    share must be fitted along: with nodes at 94 % of a latency of 10 ms, a fit without it would
    find no cost at all. Share and cost per run are drawn weakly towards 1 and 0, since networks
    of one depth cannot tell them from the cost per node.

    Args:
        profiled_sum_ns: time of all nodes of a network in a profiled inference, `(n,)`.
        n_nodes: number of those nodes, `(n,)`.
        plain_ns: latency of the same network without profiling, `(n,)`.
        shortest_node_ns: time of the shortest node in any profile, the profiler's cost included.
    """
    sums = np.asarray(profiled_sum_ns, dtype=np.float64)
    plain = np.asarray(plain_ns, dtype=np.float64)
    nodes = np.asarray(n_nodes, dtype=np.float64)
    n_networks = len(sums)
    if not n_networks:
        return ProfilerCost(0.0, 0.0, 0)
    # Columns: share, cost per node, cost per run (times share). Last rows: what is believed.
    design = np.stack([np.ones(n_networks), nodes / plain, -1 / plain], axis=1)
    beliefs = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1 / np.median(plain)]])
    design = np.concatenate([design, beliefs])
    target = np.concatenate([sums / plain, [1.0, 0.0]])
    weights = np.ones(n_networks)
    unknowns = np.zeros(3)
    for _ in range(_PASSES):
        root = np.sqrt(np.concatenate([weights, [_PRIOR_WEIGHT, _PRIOR_WEIGHT]]))
        unknowns = _bounded_least_squares(design * root[:, None], target * root, shortest_node_ns)
        weights = huber_weights((target - design @ unknowns)[:n_networks])
    share, per_node, per_run = (float(value) for value in unknowns)
    return ProfilerCost(per_node, per_run / share if share > 0 else 0.0, n_networks, share)


def _bounded_least_squares(
    design: NDArray[np.float64], target: NDArray[np.float64], most_per_node: float
) -> NDArray[np.float64]:
    """Least squares in share, cost per node and cost per run, `(3,)`.

    Neither cost is negative, that per node at most `most_per_node`: the best of the feasible
    faces, each solved without constraint.
    """
    fixed_costs = (0.0, most_per_node) if math.isfinite(most_per_node) else (0.0,)
    best, least = np.zeros(3), math.inf
    for face in _FACES:
        columns = list(face)
        for per_node in (0.0,) if 1 in face else fixed_costs:
            solution = np.array([0.0, per_node, 0.0])
            rest = target - design @ solution
            solution[columns] = np.linalg.lstsq(design[:, columns], rest, rcond=None)[0]
            error = float(np.sum((target - design @ solution) ** 2))
            feasible = solution.min() >= 0 and solution[1] <= most_per_node
            # A later face must fit better by more than rounding, or columns are alike.
            if feasible and error < least * (1 - 1e-9):
                best, least = solution, error
    return best
