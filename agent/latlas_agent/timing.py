"""The timing loop."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_RUNS = 10_000
"""Timed inferences per visit, however short they are."""


@dataclass(frozen=True, eq=False)
class Timing:
    """What one visit of the clock gave.

    Attributes:
        started_ns: Unix time at the first timed inference.
        duration_ns: monotonic time from the first timed inference to the end of the last.
        samples_ns: `(n_runs,)` int64, one duration per timed inference, in order.
        first_ns: duration of the very first inference, warm-up or not.
    """

    started_ns: int
    duration_ns: int
    samples_ns: NDArray[np.int64]
    first_ns: int


def time_runs(
    run: Callable[[], object],
    *,
    warmup_runs: int,
    min_runs: int,
    min_duration_ns: int,
    max_runs: int = MAX_RUNS,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    unix_ns: Callable[[], int] = time.time_ns,
) -> Timing:
    """Times `run` until both minima are reached, or `max_runs`.

    The loop keeps no growing state and reads one monotonic clock; the garbage collector rests
    meanwhile.

    Args:
        run: one inference.
        warmup_runs: calls before the first timed one.
        min_runs: least number of timed calls, at most `max_runs`.
        min_duration_ns: least duration of all timed calls together.
        max_runs: most timed calls.
        clock_ns: monotonic clock.
        unix_ns: wall clock, read once.
    """
    samples_ns = np.empty(max_runs, dtype=np.int64)
    # Stored through the memoryview: numpy's own assignment costs up to half a microsecond more
    # after a network that has used up the processor's caches.
    cells = samples_ns.data
    collects = gc.isenabled()
    gc.disable()
    try:
        first_ns = 0
        if warmup_runs:
            before_ns = clock_ns()
            run()
            first_ns = clock_ns() - before_ns
        for _ in range(warmup_runs - 1):
            run()
        started_ns = unix_ns()
        begin_ns = end_ns = clock_ns()
        n_runs = 0
        while n_runs < max_runs:
            before_ns = clock_ns()
            run()
            end_ns = clock_ns()
            cells[n_runs] = end_ns - before_ns
            n_runs += 1
            if n_runs >= min_runs and end_ns - begin_ns >= min_duration_ns:
                break
    finally:
        if collects:
            gc.enable()
    samples_ns = samples_ns[:n_runs].copy()
    return Timing(started_ns, end_ns - begin_ns, samples_ns, first_ns or int(samples_ns[0]))
