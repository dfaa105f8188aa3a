from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from latlas_agent.supervisor import Job
from latlas_agent.tasks import Failure, Task, visit_order
from latlas_latency.measurement import Target
from latlas_latency.wire import target_to_message
from latlas_ops.errors import CorruptProgramError, InvalidInputError
from latlas_protos.v1 import fleet_pb2


def test_every_wanted_visit_is_made_once_and_rounds_follow_one_another() -> None:
    wanted = [(0, 1, 2), (2,), (1, 2), ()]
    order = visit_order(wanted, seed=3)
    assert Counter(order) == Counter(
        (task, round_) for task, rounds in enumerate(wanted) for round_ in rounds
    )
    rounds = [round_ for _, round_ in order]
    assert rounds == sorted(rounds)


def test_the_order_within_rounds_is_shuffled_and_differs_between_them() -> None:
    order = visit_order([(0, 1)] * 20, seed=0)
    first, second = [task for task, _ in order[:20]], [task for task, _ in order[20:]]
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert first != sorted(first)


def test_the_same_seed_gives_the_same_order() -> None:
    assert visit_order([(0, 1)] * 20, seed=5) == visit_order([(0, 1)] * 20, seed=5)
    assert visit_order([(0, 1)] * 20, seed=5) != visit_order([(0, 1)] * 20, seed=6)


def test_nothing_wanted_is_nothing_ordered() -> None:
    assert visit_order([], seed=0) == []


def test_a_task_survives_the_wire(make_job: Callable[..., Job]) -> None:
    task = make_job("t1", "fine", rounds=(0, 2), mode="profiled").task
    item = fleet_pb2.LeaseItem(
        task_id="t1",
        program_sha256=task.program_sha256,
        program_format="word",
        program_bytes=4,
        target=target_to_message(task.target),
        mode="profiled",
        rounds=[0, 2],
        warmup_runs=1,
        min_runs=3,
        timeout_ns=60_000_000_000,
    )
    assert Task.from_message(item) == task


@pytest.mark.parametrize(
    "fields",
    [
        {"mode": "sideways"},
        {"min_runs": 0},
        {"min_runs": 10_001},
        {"warmup_runs": -1},
        {"min_duration_ns": -1},
        {"timeout_ns": 0},
        {"rounds": (-1,)},
    ],
)
def test_a_malformed_task_is_refused_by_name(
    make_job: Callable[..., Job], fields: dict[str, object]
) -> None:
    with pytest.raises(InvalidInputError, match="task t1"):
        make_job("t1", "fine", **fields)


def test_a_task_with_a_malformed_target_is_refused(onnx_target: Target) -> None:
    item = fleet_pb2.LeaseItem(task_id="t1", target=target_to_message(onnx_target))
    item.target.graph_level = "utmost"
    with pytest.raises(InvalidInputError, match="graph_level"):
        Task.from_message(item)


def test_a_failure_names_its_error_and_keeps_to_one_line() -> None:
    failure = Failure.of("t1", CorruptProgramError("first\n  second " + "x" * 1000))
    assert failure.error_code == "CorruptProgramError"
    assert failure.reason.startswith("first second xxx")
    assert len(failure.reason) == 600
