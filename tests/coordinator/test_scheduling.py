"""Who gets which work: a pure function, so its inputs can be permuted at will."""

import dataclasses
import itertools
from collections import Counter

import pytest

from latlas_coordinator.domain import (
    DeviceRecord,
    LeaseItem,
    LeaseRecord,
    Role,
    Sampling,
    Task,
    TaskFailure,
    TaskProgress,
)
from latlas_coordinator.scheduling import LeasePolicy, Situation, schedule
from latlas_latency.measurement import PLAIN, Device, RuntimeCapability, Target

NOW_NS = 1_000
POLICY = LeasePolicy(duration_ns=300, max_attempts=2)
CAPABILITY = RuntimeCapability("ort", "1", ("cpu",), ("fp32",), ("all",), ("onnx",), True)
TARGETS = {
    name: Target(name, device_model=name, runtime="ort", runtime_version="1", provider="cpu")
    for name in ("pi", "jetson")
}
CRASH = ("MeasurementError", "the worker crashed")


def device(name, model="pi", connected=True):
    board = Device(name, "", model, "", "", "", 4, 1, "default", (CAPABILITY,))
    return DeviceRecord(board, f"agent-of-{name}", 1, connected, 0)


def task(name, campaign="c", target="pi", n_rounds=2, **progress):
    return TaskProgress(
        Task(name, campaign, target, f"sha-{name}", PLAIN, Role.COVER, "", Sampling(n_rounds)),
        **progress,
    )


def lease(device_name, items, deadline_ns=NOW_NS + 1, token=1):
    return LeaseRecord(
        f"lease-{token}", token, f"agent-of-{device_name}", 1, device_name, "c",
        tuple(LeaseItem(name, rounds) for name, rounds in items), 0, deadline_ns,
    )  # fmt: skip


def decide(tasks=(), devices=(), leases=(), policy=POLICY, program_bytes=1):
    numbers = itertools.count(1)
    situation = Situation(
        tasks=tasks,
        targets=TARGETS,
        program_bytes={progress.task.program_sha256: program_bytes for progress in tasks},
        devices=devices,
        leases=leases,
        now_ns=NOW_NS,
    )
    return schedule(situation, policy, lambda: f"new-{next(numbers)}")


def handed_out(decision):
    """How often each round of each task is handed out."""
    return Counter(
        (item.task_id, number)
        for new in decision.leases
        for item in new.items
        for number in item.rounds
    )


def test_one_idle_device_gets_the_whole_campaign():
    tasks = [task(f"t{i}", n_rounds=3) for i in range(300)]
    [new] = decide(tasks, [device("a")]).leases
    assert [item.task_id for item in new.items] == [f"t{i}" for i in range(300)]
    assert {item.rounds for item in new.items} == {(0, 1, 2)}
    assert (new.lease_id, new.device_id, new.agent_id) == ("new-1", "a", "agent-of-a")
    assert (new.created_ns, new.deadline_ns) == (NOW_NS, NOW_NS + 300)


@pytest.mark.parametrize("n_devices", [1, 2, 3, 7])
@pytest.mark.parametrize("n_rounds", [1, 2, 5])
def test_boards_of_one_model_share_all_rounds_evenly_and_none_twice(n_devices, n_rounds):
    tasks = [task(f"t{i}", n_rounds=n_rounds) for i in range(6)]
    decision = decide(tasks, [device(f"d{i}") for i in range(n_devices)])
    assert handed_out(decision) == {(f"t{i}", r): 1 for i in range(6) for r in range(n_rounds)}
    sizes = [sum(len(item.rounds) for item in new.items) for new in decision.leases]
    assert max(sizes) - min(sizes) <= 1
    assert len({new.device_id for new in decision.leases}) == min(n_devices, 6 * n_rounds)


def test_two_boards_share_by_rounds_so_that_each_measures_every_task():
    decision = decide([task(f"t{i}", n_rounds=4) for i in range(3)], [device("a"), device("b")])
    assert [{item.rounds for item in new.items} for new in decision.leases] == [{(0, 1)}, {(2, 3)}]


def permutations(*sequences):
    return itertools.product(*(itertools.permutations(sequence) for sequence in sequences))


def test_the_outcome_does_not_depend_on_the_order_of_devices_and_leases():
    tasks = [task("t0"), task("t1", visited=frozenset({0})), task("t2")]
    devices = [device("a"), device("b"), device("c"), device("d", connected=False)]
    leases = [
        lease("a", [("t0", (0,))], token=1),
        lease("b", [("t2", (0, 1))], deadline_ns=NOW_NS, token=2),
    ]
    outcomes = set()
    for some_devices, some_leases in permutations(devices, leases):
        decision = decide(tasks, some_devices, some_leases)
        outcomes.add((decision.leases, frozenset(decision.expired)))
    assert len(outcomes) == 1


def test_whatever_the_order_no_round_is_lost_or_handed_out_twice():
    tasks = [
        task("t0"),
        task("t1", visited=frozenset({1})),
        task("t2", campaign="other"),
        task("t3", target="jetson", campaign="third"),
    ]
    devices = [device("a"), device("b"), device("j", model="jetson")]
    leases = [lease("a", [("t0", (0, 1))])]
    for some_tasks, some_devices in permutations(tasks, devices):
        found = handed_out(decide(some_tasks, some_devices, leases))
        assert set(found.values()) == {1}
        assert {("t3", 0), ("t3", 1)} <= set(found)
        assert not {("t0", 0), ("t0", 1), ("t1", 1)} & set(found)


def test_a_lease_is_of_the_oldest_campaign_that_the_device_can_serve():
    tasks = [
        task("t0", campaign="old", target="jetson"),
        task("t1", campaign="young"),
        task("t2", campaign="younger"),
    ]
    [new] = decide(tasks, [device("a")]).leases
    assert new.campaign == "young"


def test_a_device_that_is_busy_with_the_oldest_leaves_the_next_to_others():
    tasks = [task("t0", campaign="c"), task("t1", campaign="young")]
    decision = decide(tasks, [device("a"), device("b")], [lease("a", [("t0", (0, 1))])])
    assert [(new.device_id, new.campaign) for new in decision.leases] == [("b", "young")]


@pytest.mark.parametrize(
    "changes",
    [
        {"device_model": "other"},
        {"power_mode": "15W"},
        {"runtimes": ()},
        {"runtimes": (dataclasses.replace(CAPABILITY, version="2"),)},
    ],
)
def test_a_device_that_cannot_serve_the_target_gets_nothing(changes):
    able = device("a")
    unable = dataclasses.replace(able, device=dataclasses.replace(able.device, **changes))
    assert decide([task("t0")], [unable]).leases == ()


def test_a_disconnected_device_gets_nothing():
    assert decide([task("t0")], [device("a", connected=False)]).leases == ()


def test_a_lease_past_its_deadline_is_lost_and_its_missing_rounds_are_free():
    old = lease("a", [("t0", (0, 1, 2))], deadline_ns=NOW_NS)
    decision = decide([task("t0", n_rounds=3, visited=frozenset({1}))], [device("b")], [old])
    assert decision.expired == (old,)
    assert handed_out(decision) == {("t0", 0): 1, ("t0", 2): 1}


def test_a_lease_within_its_deadline_is_kept_even_if_its_device_is_gone():
    decision = decide(
        [task("t0")],
        [device("a", connected=False), device("b")],
        [lease("a", [("t0", (0, 1))])],
    )
    assert decision == dataclasses.replace(decision, expired=(), leases=(), given_up=())


def test_a_task_that_failed_under_a_lease_may_go_to_another_device():
    # The store leaves a failed task out of the items of its lease.
    failed = task("t0", attempts=1, last_failure=TaskFailure("t0", *CRASH))
    decision = decide([failed], [device("a"), device("b")], [lease("a", [])])
    assert [new.device_id for new in decision.leases] == ["b"]


def test_a_task_that_failed_too_often_is_given_up_for_its_last_reason():
    failure = TaskFailure("t0", *CRASH)
    tasks = [task("t0", attempts=2, last_failure=failure), task("t1")]
    decision = decide(tasks, [device("a")])
    assert decision.given_up == (failure,)
    assert handed_out(decision) == {("t1", 0): 1, ("t1", 1): 1}


def test_a_measured_task_that_fails_in_further_visits_only_loses_these():
    failure = TaskFailure("t0", *CRASH)
    visited = frozenset({0, 1})
    failed = task("t0", attempts=2, last_failure=failure, visited=visited, n_extra_rounds=1)
    decision = decide([failed], [device("a")])
    assert (decision.given_up, decision.measured_enough) == ((), ("t0",))
    assert decision.leases == ()


def test_a_lease_holds_no_more_tasks_than_allowed():
    policy = dataclasses.replace(POLICY, max_tasks=5)
    [new] = decide([task(f"t{i}") for i in range(9)], [device("a")], policy=policy).leases
    assert [item.task_id for item in new.items] == ["t0", "t1", "t2", "t3", "t4"]


def test_a_lease_holds_no_more_program_bytes_than_a_board_should_but_at_least_one_task():
    policy = dataclasses.replace(POLICY, max_program_bytes=250)
    tasks = [task(f"t{i}") for i in range(9)]
    [new] = decide(tasks, [device("a")], policy=policy, program_bytes=100).leases
    assert len(new.items) == 2
    [new] = decide(tasks, [device("a")], policy=policy, program_bytes=1_000).leases
    assert len(new.items) == 1


def test_tasks_on_one_program_count_its_bytes_once():
    policy = dataclasses.replace(POLICY, max_program_bytes=100)
    both = [
        dataclasses.replace(found, task=dataclasses.replace(found.task, program_sha256="one"))
        for found in (task("t0"), task("t1"))
    ]
    [new] = decide(both, [device("a")], policy=policy, program_bytes=100).leases
    assert len(new.items) == 2


def test_nothing_to_do_leads_to_nothing():
    decision = decide([], [device("a")])
    assert (decision.expired, decision.given_up, decision.leases) == ((), (), ())
