"""What the weights of an op cost the rest of its network, fitted from whole networks.

Node times are measured in networks of one size. The more weights a network has, the fewer of them,
and of its activations, are still in the cache when their turn comes, so every op of a large network
takes longer than the same op in a small one. A sum over ops misses that: by 10 % between the ends
of a space such as Once-for-All's (0.03 ms per MB on a core that shares 32 MB of cache). In first
order the effect is proportional to the weights, hence additive: each op is charged for its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from latlas_latency.measurement.statistics import huber_weights

LEAST_NETWORKS = 12
"""From fewer networks three unknowns would be fitted to noise."""

_PASSES = 20

_PRIOR_WEIGHT = 0.16
"""Weight, in networks, of the belief that weights make no difference: labels are off by some 2 %,
and one standard deviation of the weights changes latency by less than some 5 %: (2 / 5)²."""


def fit_weight_cost(sum_ms: ArrayLike, weight_mb: ArrayLike, latency_ms: ArrayLike) -> float:
    """Milliseconds per megabyte of weights, never negative; relative to the scale of the sums.

    Solves `latency = constant + slope · (sum + cost · weights)` by least squares, relative to the
    latency; outliers lose weight (Huber).

    Args:
        sum_ms: sums of table entries, `(n,)`.
        weight_mb: weights of the same networks, `(n,)`.
        latency_ms: latencies of the same networks, `(n,)`.
    """
    sums = np.asarray(sum_ms, dtype=np.float64)
    weights = np.asarray(weight_mb, dtype=np.float64)
    latencies = np.asarray(latency_ms, dtype=np.float64)
    spread = float(weights.std())
    if len(sums) < LEAST_NETWORKS or spread == 0:
        return 0.0
    centred = (weights - weights.mean()) / spread
    design = np.stack([np.ones_like(sums), sums, centred], axis=1) / latencies[:, None]
    belief = np.array([[0.0, 0.0, 1 / float(np.median(latencies))]])
    trust = np.ones_like(sums)
    constant_slope_cost = np.zeros(3)
    for _ in range(_PASSES):
        root = np.sqrt(np.append(trust, _PRIOR_WEIGHT))
        rows = np.concatenate([design, belief]) * root[:, None]
        wanted = np.append(np.ones_like(sums), 0.0) * root
        constant_slope_cost = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        trust = huber_weights(1 - design @ constant_slope_cost)
    _, slope, cost = constant_slope_cost.tolist()
    return max(0.0, cost / spread / slope) if slope > 0 else 0.0
