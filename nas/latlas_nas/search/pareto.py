"""Pareto fronts of two objectives: a cost to keep low and a value to drive high."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pareto_front(cost: NDArray[np.float64], value: NDArray[np.float64]) -> NDArray[np.intp]:
    """Indices of the points that no other point beats in both objectives, cheapest first.

    Of points that are equal in both, the first is kept.

    Args:
        cost: `(n,)`, lower is better.
        value: `(n,)`, higher is better.
    """
    order = np.lexsort((-value, cost))
    best_before = np.maximum.accumulate(np.concatenate([[-np.inf], value[order][:-1]]))
    return order[value[order] > best_before]
