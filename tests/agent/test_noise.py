from __future__ import annotations

import os

import numpy as np
import pytest

from latlas_agent.noise import estimate, measure_noise, workload
from latlas_latency.measurement import PLAIN, WHOLE_NETWORK, Conditions, Series, Visit
from latlas_ops.errors import RuntimeUnavailableError

N_ROUNDS = 9


def visits(slow: dict[tuple[int, int], float], *, crowded: bool = False) -> list[Visit]:
    """Nine rounds of four networks of 1 to 4 ms; `slow` maps (network, round) to a factor."""
    conditions = Conditions(other_cpu_share=0.5 if crowded else 0.0, online_cores=2)
    return [
        Visit(
            task_id=f"n{network}",
            device_id="here",
            round=round_,
            mode=PLAIN,
            started_ns=1,
            duration_ns=1,
            warmup_runs=0,
            series=(
                Series(
                    WHOLE_NETWORK,
                    np.array([1e6 * (network + 1) * slow.get((network, round_), 1.0)]),
                ),
            ),
            conditions=conditions,
        )
        for network in range(4)
        for round_ in range(N_ROUNDS)
    ]


def test_a_steady_machine_has_no_noise() -> None:
    found = estimate(visits({}), duration_s=2.0)
    assert (found.label_noise, found.common_mode_free_noise, found.worst_label_error) == (0, 0, 0)
    assert (found.n_visits, found.n_flagged_visits, found.flags) == (36, 0, {})
    assert found.n_rounds == 3


def test_what_slows_all_networks_of_a_round_alike_is_told_apart() -> None:
    drift = {(network, round_): 1.1 for network in range(4) for round_ in (3, 4, 5)}
    found = estimate(visits(drift), duration_s=2.0)
    assert found.label_noise == pytest.approx(0.1 / 1.05)
    assert found.common_mode_free_noise == pytest.approx(0.0, abs=1e-4)


def test_a_burst_that_takes_two_of_a_labels_three_visits_moves_it() -> None:
    """Rounds 0, 3 and 6 make one label."""
    found = estimate(visits({(1, 0): 1.5, (1, 3): 1.5}), duration_s=2.0)
    assert found.worst_label_error == pytest.approx(0.5)
    assert estimate(visits({(1, 0): 1.5}), duration_s=2.0).worst_label_error == 0


def test_flagged_visits_are_counted() -> None:
    found = estimate(visits({}, crowded=True), duration_s=2.0)
    assert (found.n_flagged_visits, found.flags) == (36, {"crowded": 36})


def test_a_workload_computes_the_same_each_time() -> None:
    run = workload(96)
    np.testing.assert_array_equal(run(), run())


def test_the_noise_of_this_machine_is_measured_in_a_process_of_its_own() -> None:
    before = os.sched_getaffinity(0)
    found = measure_noise([min(before)])
    assert os.sched_getaffinity(0) == before
    assert found.n_visits == 72
    assert 0 <= found.label_noise < 10
    assert found.duration_s > 0.5


def test_a_core_that_may_not_be_used_is_named() -> None:
    with pytest.raises(RuntimeUnavailableError, match="core 4000"):
        measure_noise([4000])
