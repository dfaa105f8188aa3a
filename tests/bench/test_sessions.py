"""What the benchmarks on recorded sessions share."""

import numpy as np
import pytest

from latlas_latency.measurement import PLAIN, WHOLE_NETWORK, Series, Visit


def visit(samples_ns, duration_ns, warmup_runs):
    series = (Series(WHOLE_NETWORK, np.array(samples_ns)),)
    return Visit("t", "b1", 0, PLAIN, 0, duration_ns, warmup_runs, series)


def test_device_time_is_that_of_all_inferences_warm_up_included(bench_module):
    device_seconds = bench_module("_sessions").device_seconds
    visits = [
        visit([10**9, 10**9, 4 * 10**9], 7 * 10**9, warmup_runs=2),
        visit([10**9], 10**9, warmup_runs=0),
    ]
    assert device_seconds(iter(visits)) == pytest.approx(7 + 2 + 1)
    assert device_seconds([]) == 0
