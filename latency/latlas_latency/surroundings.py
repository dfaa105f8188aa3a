"""What an op costs its network beyond the time of its own nodes, fitted from whole networks.

Node times are measured in networks of one size, under a profiler. Two things they cannot show:

- *Weights.* The more weights a network has, the fewer of them, and of its activations, are still in
  the cache when their turn comes, so every op of a large network takes longer than the same op in a
  small one: by 10 % between the ends of a space such as Once-for-All's (0.03 ms per MB on a core
  that shares 32 MB of cache).
- *Nodes.* What the runtime does between two nodes, and what the profiler's cost was over- or
  underestimated by, which weights and depth hide from each other.

In first order both are proportional, hence additive: each op is charged for its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from latlas_latency.measurement.statistics import huber_weights

LEAST_NETWORKS = 12
"""From fewer networks four unknowns would be fitted to noise."""

_PASSES = 20

_PRIOR_WEIGHT = 0.16
"""Weight, in networks, of the belief that either makes no difference: labels are off by some 2 %,
and one standard deviation of weights or nodes changes latency by less than some 5 %: (2 / 5)²."""


@dataclass(frozen=True)
class SurroundingsCost:
    """What is charged to an op beside its node times.

    Attributes:
        per_weight_mb_ms: milliseconds per megabyte of weights, never negative.
        per_node_ms: milliseconds per node, of either sign.
    """

    per_weight_mb_ms: float = 0.0
    per_node_ms: float = 0.0


def fit_surroundings_cost(
    sum_ms: ArrayLike, weight_mb: ArrayLike, n_nodes: ArrayLike, latency_ms: ArrayLike
) -> SurroundingsCost:
    """Solves `latency = constant + slope · (sum + weights · per_mb + nodes · per_node)`.

    Least squares relative to the latency; outliers lose weight (Huber), and neither cost is
    believed further than it is seen.

    Args:
        sum_ms: sums of the node times of a network's ops, `(n,)`.
        weight_mb: weights of the same networks, `(n,)`.
        n_nodes: nodes of the same networks, `(n,)`.
        latency_ms: latencies of the same networks, `(n,)`.
    """
    sums = np.asarray(sum_ms, dtype=np.float64)
    latencies = np.asarray(latency_ms, dtype=np.float64)
    extras = np.stack([np.asarray(weight_mb, float), np.asarray(n_nodes, float)], axis=1)
    spreads = extras.std(axis=0)
    if len(sums) < LEAST_NETWORKS:
        return SurroundingsCost()
    scaled = (extras - extras.mean(axis=0)) / np.where(spreads > 0, spreads, 1.0)
    design = np.column_stack([np.ones_like(sums), sums, scaled]) / latencies[:, None]
    belief = np.eye(4)[2:] / float(np.median(latencies))
    trust = np.ones_like(sums)
    solution = np.zeros(4)
    for _ in range(_PASSES):
        root = np.sqrt(np.concatenate([trust, [_PRIOR_WEIGHT] * len(belief)]))
        rows = np.concatenate([design, belief]) * root[:, None]
        wanted = np.concatenate([np.ones_like(sums), np.zeros(len(belief))]) * root
        solution = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        trust = huber_weights(1 - design @ solution)
    slope = float(solution[1])
    if slope <= 0:
        return SurroundingsCost()
    per_weight, per_node = solution[2:] / np.where(spreads > 0, spreads, np.inf) / slope
    return SurroundingsCost(max(0.0, float(per_weight)), float(per_node))
