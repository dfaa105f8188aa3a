"""What every store does with reports: nothing acknowledged is lost, nothing counts twice."""

import dataclasses
import threading

import numpy as np
import pytest

from latlas_coordinator.domain import AgentRecord, LeaseState, Role, TaskFailure, VisitSummary
from latlas_latency.measurement import PROFILED


@pytest.mark.parametrize("number", [0, 1], ids=["opened", "open already"])
def test_a_visit_comes_back_with_all_its_samples(fleet, reopen, number):
    [task] = fleet.campaign(n_tasks=1, mode=PROFILED)
    lease = fleet.lease([task])
    sent = fleet.visit(task, number)
    [result] = fleet.store.record_reports([fleet.batch(fleet.report(1, lease, sent))], now_ns=3)
    assert (result.last_sequence, result.n_visits, result.refused) == (1, 1, ())
    store = reopen(fleet.store)
    [[found]] = store.read_visits("first").values()
    for name in ("task_id", "device_id", "round", "mode", "started_ns", "duration_ns"):
        assert getattr(found, name) == getattr(sent, name)
    assert found.conditions == sent.conditions
    assert found.opening == sent.opening
    assert (found.opening is None) == bool(number)
    for mine, theirs in zip(found.series, sent.series, strict=True):
        assert (mine.label, mine.node, mine.place) == (theirs.label, theirs.node, theirs.place)
        np.testing.assert_array_equal(mine.samples_ns, theirs.samples_ns)


def test_the_sequence_survives_and_a_report_sent_again_does_not_count_again(fleet, reopen):
    first, second = fleet.campaign()
    lease = fleet.lease([first, second])
    reports = [
        fleet.report(1, lease, fleet.visit(first, 0)),
        fleet.report(2, lease, fleet.visit(second, 0)),
    ]
    fleet.store.record_reports([fleet.batch(*reports)], now_ns=3)
    fleet.store = reopen(fleet.store)
    assert fleet.store.attach_agent(fleet.agent, [fleet.device], now_ns=4) == 2
    third = fleet.report(3, lease, fleet.visit(first, 1))
    [result] = fleet.store.record_reports([fleet.batch(reports[1], third)], now_ns=5)
    assert (result.last_sequence, result.n_visits, result.n_duplicates) == (3, 1, 1)
    assert fleet.store.get_campaign("first").n_visits_done == 3


def test_a_newer_epoch_starts_its_sequence_anew(fleet):
    [task] = fleet.campaign(n_tasks=1)
    lease = fleet.lease([task])
    fleet.store.record_reports([fleet.batch(fleet.report(1, lease, fleet.visit(task, 0)))], 1)
    newer = dataclasses.replace(fleet.agent, epoch=2)
    assert fleet.store.attach_agent(newer, [fleet.device], now_ns=2) == 0
    lease = fleet.lease([task], "lease-2", agent=newer)
    report = fleet.report(1, lease, fleet.visit(task, 1))
    [result] = fleet.store.record_reports([fleet.batch(report, agent=newer)], now_ns=3)
    assert result.n_visits == 1


def test_no_round_counts_twice(fleet):
    [task] = fleet.campaign(n_tasks=1)
    lease = fleet.lease([task])
    visit = fleet.visit(task, 0)
    [result] = fleet.store.record_reports(
        [fleet.batch(fleet.report(1, lease, visit), fleet.report(2, lease, visit))], now_ns=1
    )
    assert result.n_visits == 1
    assert result.refused == ("round 0 of task first-0 has a visit",)
    assert result.last_sequence == 2


def refused_reports(fleet, lease, task, outsider):
    """What is wrong with a report → the report."""
    good = fleet.report(1, lease, fleet.visit(task, 0))
    elsewhere = dataclasses.replace(fleet.device, device_id="device-b")
    stale = dataclasses.replace(good.lease, fencing_token=good.lease.fencing_token - 1)
    return {
        "is lost": dataclasses.replace(good, lease=stale),
        "is not in lease": dataclasses.replace(good, outcome=fleet.visit(outsider, 0)),
        "was not leased": dataclasses.replace(good, outcome=fleet.visit(task, 9)),
        "does not hold": dataclasses.replace(good, outcome=fleet.visit(task, 0, elsewhere)),
        "is to be plain": dataclasses.replace(
            good, outcome=dataclasses.replace(good.outcome, mode=PROFILED)
        ),
    }


@pytest.mark.parametrize(
    "reason",
    ["is lost", "is not in lease", "was not leased", "does not hold", "is to be plain"],
)
def test_what_was_not_leased_is_refused_for_good(fleet, reason):
    task, outsider = fleet.campaign()
    lease = fleet.lease([task])
    report = refused_reports(fleet, lease, task, outsider)[reason]
    [result] = fleet.store.record_reports([fleet.batch(report)], now_ns=1)
    assert (result.last_sequence, result.n_visits) == (1, 0)
    assert reason in result.refused[0]
    assert fleet.store.get_campaign("first").n_visits_done == 0


@pytest.mark.parametrize("state", [LeaseState.EXPIRED, LeaseState.CANCELLED, LeaseState.FINISHED])
def test_reports_under_a_lease_that_has_ended_are_refused(fleet, state):
    [task] = fleet.campaign(n_tasks=1)
    lease = fleet.lease([task])
    fleet.store.end_lease(lease.lease_id, state)
    report = fleet.report(1, lease, fleet.visit(task, 0))
    [result] = fleet.store.record_reports([fleet.batch(report)], now_ns=1)
    assert (result.last_sequence, result.n_visits, len(result.refused)) == (1, 0, 1)


def test_reports_of_an_epoch_that_is_over_are_refused(fleet):
    [task] = fleet.campaign(n_tasks=1)
    lease = fleet.lease([task])
    fleet.store.attach_agent(dataclasses.replace(fleet.agent, epoch=2), [fleet.device], now_ns=2)
    report = fleet.report(4, lease, fleet.visit(task, 0))
    [result] = fleet.store.record_reports([fleet.batch(report)], now_ns=1)
    assert (result.last_sequence, result.n_visits) == (4, 0)
    assert fleet.store.attach_agent(dataclasses.replace(fleet.agent, epoch=2), [], now_ns=3) == 0


def test_batches_of_several_agents_are_committed_together(fleet):
    other = AgentRecord("agent-b", 3, "0.1")
    board = dataclasses.replace(fleet.device, device_id="device-b")
    fleet.store.attach_agent(other, [board], now_ns=1)
    first, second = fleet.campaign()
    mine, theirs = fleet.lease([first]), fleet.lease([second], "lease-2", other, board)
    results = fleet.store.record_reports(
        [
            fleet.batch(fleet.report(1, theirs, fleet.visit(second, 0, board)), agent=other),
            fleet.batch(fleet.report(1, mine, fleet.visit(first, 0))),
            fleet.batch(fleet.report(2, theirs, fleet.visit(second, 1, board)), agent=other),
        ],
        now_ns=1,
    )
    assert [(found.last_sequence, found.n_visits) for found in results] == [(1, 1), (1, 1), (2, 1)]
    assert fleet.store.get_campaign("first").n_visits_done == 3


def test_failures_count_as_attempts_per_lease(fleet):
    [task] = fleet.campaign(n_tasks=1)
    failure = TaskFailure(task.task_id, "MeasurementError", "the worker crashed")
    lease = fleet.lease([task])
    reports = [fleet.report(number, lease, failure) for number in (1, 2)]
    [result] = fleet.store.record_reports([fleet.batch(*reports)], now_ns=1)
    assert result.n_failures == 2
    [found] = fleet.store.list_open_tasks()
    assert (found.attempts, found.last_failure, found.failure) == (1, failure, None)
    fleet.store.end_lease(lease.lease_id, LeaseState.FINISHED)
    lease = fleet.lease([task], "lease-2")
    worse = dataclasses.replace(failure, reason="the worker hung")
    fleet.store.record_reports([fleet.batch(fleet.report(3, lease, worse))], now_ns=1)
    [found] = fleet.store.list_open_tasks()
    assert (found.attempts, found.last_failure) == (2, worse)


def test_a_task_that_failed_is_no_longer_in_the_lease(fleet):
    first, second = fleet.campaign()
    lease = fleet.lease([first, second])
    failure = TaskFailure(first.task_id, "MeasurementError", "the worker crashed")
    fleet.store.record_reports([fleet.batch(fleet.report(1, lease, failure))], now_ns=1)
    [active] = fleet.store.list_active_leases()
    assert [item.task_id for item in active.items] == [second.task_id]
    assert fleet.store.get_lease(lease.lease_id).items == lease.items


def test_finishing_a_lease_counts_what_it_left_undone_as_failed(fleet):
    done, undone, failed = fleet.campaign(n_tasks=3, n_rounds=1)
    lease = fleet.lease([done, undone, failed])
    crash = TaskFailure(failed.task_id, "MeasurementError", "the worker crashed")
    fleet.store.record_reports(
        [fleet.batch(fleet.report(1, lease, fleet.visit(done, 0)), fleet.report(2, lease, crash))],
        now_ns=1,
    )
    fleet.store.finish_lease("agent-b", 1, lease.reference)
    assert fleet.store.list_active_leases()
    fleet.store.finish_lease("agent-a", 1, lease.reference)
    assert fleet.store.get_lease(lease.lease_id).state is LeaseState.FINISHED
    found = {progress.task.task_id: progress for progress in fleet.store.list_tasks("first")}
    assert found[done.task_id].last_failure is None
    assert found[failed.task_id].last_failure == crash
    assert found[undone.task_id].attempts == 1
    assert found[undone.task_id].last_failure.reason == (
        "device device-a ended its lease without this task"
    )


def test_progress_names_the_rounds_that_are_missing(fleet):
    [task] = fleet.campaign(n_tasks=1, n_rounds=4)
    lease = fleet.lease([task])
    fleet.store.record_reports(
        [
            fleet.batch(
                fleet.report(1, lease, fleet.visit(task, 2)),
                fleet.report(2, lease, fleet.visit(task, 0)),
            )
        ],
        now_ns=1,
    )
    [found] = fleet.store.list_open_tasks()
    assert found.missing_rounds == (1, 3)


def test_visits_are_listed_by_task_and_round_with_their_medians(fleet):
    first, second = fleet.campaign()
    lease = fleet.lease([first, second])
    visits = [(second, 1), (first, 1), (second, 0)]
    fleet.store.record_reports(
        [
            fleet.batch(
                *(
                    fleet.report(number, lease, fleet.visit(task, round_))
                    for number, (task, round_) in enumerate(visits, start=1)
                )
            )
        ],
        now_ns=1,
    )
    found = fleet.store.list_visit_summaries("first")
    assert [(visit.task_id, visit.round) for visit in found] == [
        ("first-0", 1),
        ("first-1", 0),
        ("first-1", 1),
    ]
    assert found[0] == VisitSummary(
        "first-0", 1, "device-a", 2_001, 1_000_201, 3, found[0].conditions
    )
    assert found[0].conditions.clock_mhz == 1800.0


def test_visits_can_be_read_by_role(fleet):
    [task] = fleet.campaign(n_tasks=1)
    lease = fleet.lease([task])
    fleet.store.record_reports([fleet.batch(fleet.report(1, lease, fleet.visit(task, 0)))], 1)
    assert fleet.store.read_visits("first", [Role.COVER]) == {}
    assert list(fleet.store.read_visits("first", [Role.MEASURED])) == ["first-0"]


def test_threads_may_write_and_read_at_the_same_time(fleet):
    tasks = fleet.campaign(n_tasks=8, n_rounds=5)
    lease = fleet.lease(tasks)
    todo = iter(
        [
            fleet.report(number, lease, fleet.visit(task, round_))
            for number, (task, round_) in enumerate(
                ((task, round_) for task in tasks for round_ in range(5)), start=1
            )
        ]
    )
    seen, troubles = [], []

    def read():
        try:
            while not seen or seen[-1] < 40:
                seen.append(fleet.store.get_campaign("first").n_visits_done)
        except Exception as error:
            troubles.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for report in todo:
        fleet.store.record_reports([fleet.batch(report)], now_ns=1)
    for reader in readers:
        reader.join(timeout=20)
    assert not troubles
    assert fleet.store.get_campaign("first").n_visits_done == 40
