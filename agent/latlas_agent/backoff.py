"""Waiting times between attempts: exponential, with jitter lest a fleet march in step."""

from __future__ import annotations

import random
from collections.abc import Iterator


def backoff_delays_s(
    rng: random.Random, first_s: float = 0.5, factor: float = 2.0, longest_s: float = 30.0
) -> Iterator[float]:
    """Endless waiting times in seconds, each between half and all of a growing bound.

    Args:
        rng: the source of jitter.
        first_s: bound of the first wait.
        factor: growth of the bound.
        longest_s: where the bound stops growing.
    """
    bound_s = first_s
    while True:
        yield rng.uniform(bound_s / 2, bound_s)
        bound_s = min(longest_s, bound_s * factor)
