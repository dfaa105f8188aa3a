from __future__ import annotations

import gc
import itertools

import numpy as np
import pytest

from latlas_agent.timing import MAX_RUNS, time_runs


class Clock:
    """A clock that moves only when something runs."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def test_every_timed_run_is_one_sample_and_warm_up_is_none() -> None:
    clock, durations = Clock(), itertools.chain([1000, 500], [10, 20, 30])

    def run() -> None:
        clock.now_ns += next(durations)

    timing = time_runs(
        run, warmup_runs=2, min_runs=3, min_duration_ns=0, clock_ns=clock, unix_ns=lambda: 77
    )
    np.testing.assert_array_equal(timing.samples_ns, [10, 20, 30])
    assert timing.samples_ns.dtype == np.int64
    assert timing.duration_ns == 60
    assert timing.started_ns == 77


@pytest.mark.parametrize(
    ("min_runs", "min_duration_ns", "n_runs"),
    [(3, 0, 3), (3, 100, 10), (20, 100, 20), (1, 95, 10), (1, 0, 1)],
)
def test_both_minima_are_reached(min_runs: int, min_duration_ns: int, n_runs: int) -> None:
    clock = Clock()

    def run() -> None:
        clock.now_ns += 10

    timing = time_runs(
        run, warmup_runs=0, min_runs=min_runs, min_duration_ns=min_duration_ns, clock_ns=clock
    )
    assert len(timing.samples_ns) == n_runs


def test_a_visit_has_an_end_however_short_the_runs_are() -> None:
    timing = time_runs(lambda: None, warmup_runs=0, min_runs=1, min_duration_ns=10**15)
    assert len(timing.samples_ns) == MAX_RUNS


def test_the_garbage_collector_rests_while_the_clock_runs() -> None:
    states: list[bool] = []
    time_runs(lambda: states.append(gc.isenabled()), warmup_runs=1, min_runs=2, min_duration_ns=0)
    assert states == [False] * 3
    assert gc.isenabled()


def test_the_garbage_collector_comes_back_after_an_error() -> None:
    def fail() -> None:
        raise ValueError("no run")

    with pytest.raises(ValueError, match="no run"):
        time_runs(fail, warmup_runs=0, min_runs=1, min_duration_ns=0)
    assert gc.isenabled()
