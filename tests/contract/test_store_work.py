"""What every store does with programs, campaigns, tasks and latency models."""

import dataclasses
import hashlib

import pytest

from latlas_coordinator.domain import (
    Campaign,
    CampaignState,
    Findings,
    LatencyModelRecord,
    LeaseState,
    Looked,
    ProfilePlan,
    ProgramOrigin,
    ProgramRecord,
    Role,
    Sampling,
    Suspicion,
    SuspicionKind,
    Task,
    TaskFailure,
    TaskProgress,
)
from latlas_latency.measurement import PROFILED
from latlas_latency.validation import Errors, NamedErrors, Validation
from latlas_ops import get_space
from latlas_ops.errors import ConflictError, CorruptProgramError, NotFoundError


def test_programs_are_kept_under_their_hash(fleet, reopen):
    store = reopen(fleet.store)
    assert store.read_program(fleet.sha256) == fleet.program
    assert store.get_program(fleet.sha256) == ProgramRecord(
        fleet.sha256, "onnx", len(fleet.program), ProgramOrigin.UPLOADED
    )


def test_program_bytes_that_do_not_match_their_hash_are_refused(fleet):
    record = ProgramRecord("0" * 64, "onnx", 3, ProgramOrigin.UPLOADED)
    with pytest.raises(CorruptProgramError, match="arrived with hash"):
        fleet.store.put_program(record, b"abc")
    with pytest.raises(NotFoundError, match="no program '000"):
        fleet.store.get_program("0" * 64)


def test_a_program_cannot_be_there_in_two_formats(fleet):
    record = ProgramRecord(fleet.sha256, "tflite", len(fleet.program), ProgramOrigin.UPLOADED)
    with pytest.raises(ConflictError, match="is there as onnx, not tflite"):
        fleet.store.put_program(record, fleet.program)


def test_a_program_that_the_coordinator_writes_itself_gains_its_network(fleet):
    space = get_space("digits")
    network = space.network(space.archs(space.extremes())[0])
    written = ProgramRecord(
        fleet.sha256,
        "onnx",
        len(fleet.program),
        ProgramOrigin.WRITTEN,
        network.to_json(),
        {"a": 0, "b": 3},
    )
    fleet.store.put_program(written, fleet.program)
    assert fleet.store.get_program(fleet.sha256) == written
    assert fleet.store.get_program(fleet.sha256).network == network
    uploaded = ProgramRecord(fleet.sha256, "onnx", len(fleet.program), ProgramOrigin.UPLOADED)
    fleet.store.put_program(uploaded, fleet.program)
    assert fleet.store.get_programs([fleet.sha256]) == {fleet.sha256: written}


def test_a_profile_campaign_comes_back_as_it_was(fleet, reopen):
    space = get_space("digits")
    arch = space.archs(space.extremes())[1]
    plan = ProfilePlan("digits", 10, 4, 5, 2, 7, method="chained", resolutions=(32, 48))
    campaign = Campaign("p1", fleet.target.name, plan, Sampling(n_rounds=3), created_ns=77)
    task = Task(
        "t1", "p1", fleet.target.name, fleet.sha256, PROFILED, Role.COVER, "cover 0",
        campaign.sampling, arch,
    )  # fmt: skip
    fleet.store.create_campaign(campaign, [task])
    store = reopen(fleet.store)
    status = store.get_campaign("p1")
    assert status.campaign == campaign
    assert (status.n_tasks, status.n_visits_wanted, status.n_visits_done) == (1, 3, 0)
    assert store.list_tasks("p1") == [TaskProgress(task)]


def test_campaigns_are_listed_oldest_first(fleet):
    fleet.campaign("zebra")
    fleet.campaign("ape", n_tasks=5)
    found = fleet.store.list_campaigns()
    assert [(s.campaign.name, s.n_tasks) for s in found] == [("zebra", 2), ("ape", 5)]


def test_a_second_campaign_of_one_name_is_refused_as_a_whole(fleet):
    fleet.campaign(n_tasks=2)
    with pytest.raises(ConflictError, match="'first' is already there"):
        fleet.campaign(n_tasks=3)
    assert fleet.store.get_campaign("first").n_tasks == 2


def test_a_campaign_needs_its_target_and_its_programs(fleet):
    [task] = fleet.campaign(n_tasks=1)
    campaign = fleet.store.get_campaign("first").campaign
    with pytest.raises(NotFoundError, match="no target 'moon'"):
        fleet.store.create_campaign(dataclasses.replace(campaign, name="second", target="moon"), [])
    stranger = dataclasses.replace(
        task, task_id="x", campaign="second", program_sha256=hashlib.sha256(b"x").hexdigest()
    )
    with pytest.raises(NotFoundError, match="no program"):
        fleet.store.create_campaign(dataclasses.replace(campaign, name="second"), [stranger])
    assert len(fleet.store.list_campaigns()) == 1


@pytest.mark.parametrize(
    "ask", ["get_campaign", "list_tasks", "list_visit_summaries", "read_visits"]
)
def test_a_missing_campaign_lists_those_that_exist(fleet, ask):
    fleet.campaign()
    with pytest.raises(NotFoundError, match=r"no campaign 'nope'; there are: first"):
        getattr(fleet.store, ask)("nope")


def test_a_campaign_that_was_cancelled_is_not_finished_afterwards(fleet):
    fleet.campaign()
    fleet.store.cancel_campaign("first")
    assert not fleet.finish("first")
    assert fleet.store.get_campaign("first").campaign.state is CampaignState.CANCELLED


def test_only_running_campaigns_have_open_tasks_in_order(fleet):
    one, two = fleet.campaign("one", n_tasks=1), fleet.campaign("two")
    fleet.campaign("three")
    fleet.store.cancel_campaign("three")
    assert [found.task for found in fleet.store.list_open_tasks()] == [*one, *two]


def complete(fleet):
    return [campaign.name for campaign in fleet.store.list_complete_campaigns()]


def test_a_task_that_is_given_up_leaves_the_campaign_complete(fleet):
    first, second = fleet.campaign(n_rounds=1)
    lease = fleet.lease([first, second])
    fleet.store.record_reports(
        [fleet.batch(fleet.report(1, lease, fleet.visit(first, 0)))], now_ns=1
    )
    assert complete(fleet) == []
    failure = TaskFailure(second.task_id, "MeasurementError", "the worker ran out of memory")
    fleet.store.give_up_task(failure)
    assert fleet.store.list_open_tasks() == []
    assert complete(fleet) == ["first"]
    assert fleet.finish("first")
    assert complete(fleet) == []
    status = fleet.store.get_campaign("first")
    assert status.campaign.state is CampaignState.FINISHED
    assert (status.n_visits_wanted, status.n_visits_done) == (1, 1)
    assert [(found.label, found.failure) for found in status.failed] == [("mine 1", failure)]


def test_a_campaign_without_tasks_is_complete_at_once(fleet):
    fleet.campaign(n_tasks=0)
    assert complete(fleet) == ["first"]


def test_rounds_that_are_added_open_a_task_again(fleet):
    first, second = fleet.campaign(n_rounds=1)
    lease = fleet.lease([first, second])
    reports = [
        fleet.report(number, lease, fleet.visit(task, 0))
        for number, task in enumerate((first, second), start=1)
    ]
    fleet.store.record_reports([fleet.batch(*reports)], now_ns=1)
    assert complete(fleet) == ["first"]
    fleet.store.add_rounds("first", {second.task_id: 2})
    assert complete(fleet) == []
    (found,) = fleet.store.list_open_tasks()
    assert (found.task, found.n_extra_rounds, found.missing_rounds) == (second, 2, (1, 2))
    assert fleet.store.get_campaign("first").n_visits_wanted == 4
    with pytest.raises(NotFoundError, match="no task 'nope'"):
        fleet.store.add_rounds("first", {"nope": 1})


def test_rounds_that_are_added_to_a_finished_campaign_let_it_run_again(fleet):
    (task,) = fleet.campaign(n_tasks=1, n_rounds=1)
    assert not fleet.finish("first"), "it is open"
    report = fleet.report(1, fleet.lease([task]), fleet.visit(task, 0))
    fleet.store.record_reports([fleet.batch(report)], now_ns=1)
    assert fleet.finish("first")
    assert fleet.store.get_campaign("first").campaign.state is CampaignState.FINISHED
    fleet.store.add_rounds("first", {task.task_id: 1})
    assert fleet.store.get_campaign("first").campaign.state is CampaignState.RUNNING
    fleet.store.cancel_campaign("first")
    fleet.store.add_rounds("first", {task.task_id: 1})
    assert fleet.store.get_campaign("first").campaign.state is CampaignState.CANCELLED
    fleet.store.add_rounds("first", {})


BREAK = Suspicion(SuspicionKind.BREAK, "a b", "a is slower than b", revisited=True, open=False)
STRETCH = Suspicion(
    SuspicionKind.STRETCH,
    "board",
    "40 visits",
    first_ns=3,
    last_ns=9,
    doubtful=(("c:1", 1), ("c:12", 1), ("c:1", 2)),
)
ONCE = Looked(n_rounds=2, n_visits=2)
"""What a campaign of two tasks is like that were visited once each."""


def visited_once(fleet, n_tasks=2):
    """A campaign whose tasks have the one visit each that they need."""
    tasks = fleet.campaign(n_tasks=n_tasks, n_rounds=1)
    lease = fleet.lease(tasks)
    reports = [
        fleet.report(number, lease, fleet.visit(task, 0)) for number, task in enumerate(tasks, 1)
    ]
    fleet.store.record_reports([fleet.batch(*reports)], now_ns=1)
    return tasks


def test_what_was_found_is_kept_with_the_rounds_that_follow_from_it(fleet, reopen):
    _, second = visited_once(fleet)
    assert fleet.store.get_campaign("first").findings is None
    found = Findings(
        (BREAK, STRETCH), entry_error=0.004, n_labels_unknown=2, remarks=("no entry was measured",)
    )
    assert fleet.store.settle_campaign("first", found, {second.task_id: 2}, ONCE)
    store = reopen(fleet.store)
    status = store.get_campaign("first")
    assert status.findings == found
    assert status.campaign.state is CampaignState.RUNNING
    assert [one.missing_rounds for one in store.list_open_tasks()] == [(1, 2)]
    assert store.list_campaigns() == [status]


def test_a_settled_campaign_without_further_rounds_is_finished(fleet):
    visited_once(fleet)
    assert fleet.store.settle_campaign("first", Findings((STRETCH,)), {}, ONCE)
    status = fleet.store.get_campaign("first")
    assert (status.campaign.state, status.findings.n_open) == (CampaignState.FINISHED, 1)


def test_a_campaign_that_changed_meanwhile_is_not_settled(fleet):
    first, second = visited_once(fleet)
    fleet.store.add_rounds("first", {first.task_id: 1})
    assert not fleet.store.settle_campaign("first", Findings((STRETCH,)), {second.task_id: 1}, ONCE)
    fleet.store.cancel_campaign("first")
    assert not fleet.store.settle_campaign("first", Findings((STRETCH,)), {}, ONCE)
    status = fleet.store.get_campaign("first")
    assert (status.campaign.state, status.findings) == (CampaignState.CANCELLED, None)
    assert status.n_visits_wanted == 3
    with pytest.raises(NotFoundError, match="no campaign 'nope'"):
        fleet.store.settle_campaign("nope", Findings(), {}, ONCE)


def test_a_settlement_that_names_a_task_of_another_campaign_changes_nothing(fleet):
    visited_once(fleet)
    (other,) = fleet.campaign("second", n_tasks=1)
    with pytest.raises(NotFoundError, match="no task 'second-0'"):
        fleet.store.settle_campaign("first", Findings((STRETCH,)), {other.task_id: 1}, ONCE)
    assert fleet.store.get_campaign("first").findings is None
    assert fleet.store.get_campaign("second").n_visits_wanted == 2


def test_a_decision_about_what_a_campaign_was_like_before_is_not_carried_out(fleet):
    _, second = visited_once(fleet)
    fleet.store.add_rounds("first", {second.task_id: 1})
    held = fleet.store.list_active_leases()
    fleet.store.end_lease(held[0].lease_id, LeaseState.FINISHED)
    wider = dataclasses.replace(second, sampling=Sampling(n_rounds=2))
    lease = fleet.lease([wider], "lease-2")
    report = fleet.report(3, lease, fleet.visit(second, 1))
    fleet.store.record_reports([fleet.batch(report)], now_ns=2)
    assert complete(fleet) == ["first"], "the further round is done already"
    assert not fleet.store.settle_campaign("first", Findings((STRETCH,)), {}, ONCE)
    for looked in (Looked(3, 2), Looked(2, 3)):
        assert not fleet.store.settle_campaign("first", Findings(), {second.task_id: 1}, looked)
    status = fleet.store.get_campaign("first")
    assert (status.campaign.state, status.findings) == (CampaignState.RUNNING, None)
    assert fleet.store.settle_campaign("first", Findings((STRETCH,)), {}, Looked(3, 3))


def test_what_is_visited_again_on_request_joins_the_findings_at_once(fleet):
    first, _ = visited_once(fleet)
    before = dataclasses.replace(STRETCH, last_ns=5, text="fewer visits")
    assert fleet.store.settle_campaign("first", Findings((BREAK, before)), {}, ONCE)
    fleet.store.add_rounds("first", {first.task_id: 1}, [STRETCH])
    status = fleet.store.get_campaign("first")
    assert (status.campaign.state, status.findings) == (
        CampaignState.RUNNING,
        Findings((BREAK, STRETCH)),
    )
    with pytest.raises(NotFoundError, match="no task 'nope'"):
        fleet.store.add_rounds("first", {"nope": 1}, [BREAK])
    assert fleet.store.get_campaign("first") == status
    with pytest.raises(NotFoundError, match="no campaign 'nope'"):
        fleet.store.add_rounds("nope", {})


def test_a_task_may_end_with_the_rounds_that_it_has_visits_of(fleet):
    first, _ = visited_once(fleet)
    fleet.store.add_rounds("first", {first.task_id: 2})
    fleet.store.end_task_rounds(first.task_id)
    assert complete(fleet) == ["first"]
    assert fleet.store.get_campaign("first").failed == ()
    with pytest.raises(NotFoundError, match="no task 'nope'"):
        fleet.store.end_task_rounds("nope")


def model_record(fleet, **changes):
    errors = dict.fromkeys(Errors.__dataclass_fields__, 0.98) | {"n_networks": 30, "n_pairs": 12}
    validation = Validation(
        **errors, interval_coverage=0.93, interval_level=0.9, label_noise=0.011,
        common_mode_free_noise=float("nan"), measured_ns=9,
        parts=(NamedErrors(**errors, name="random networks"),),
        baselines=(NamedErrors(**errors | {"pair_order": float("nan")}, name="MACs"),),
    )  # fmt: skip
    record = LatencyModelRecord(
        "t1", "table", "digits", fleet.target, "first", 5, 168, True, validation
    )
    return dataclasses.replace(record, **changes)


def test_latency_models_come_back_as_they_were(fleet, reopen):
    fleet.store.put_latency_model(model_record(fleet), b"\x00model")
    bare = model_record(fleet, name="m0", kind="mlp", n_entries=0, validation=None)
    fleet.store.put_latency_model(bare, b"mlp")
    store = reopen(fleet.store)
    assert store.read_latency_model("t1") == b"\x00model"
    assert store.get_latency_model("m0") == bare
    # A figure that could not be computed stays unknown.
    found = store.list_latency_models()[1]
    assert repr(found) == repr(model_record(fleet))


def test_a_model_made_again_from_the_same_things_takes_the_place_of_the_first(fleet):
    fleet.store.put_latency_model(model_record(fleet), b"old")
    fleet.store.put_latency_model(model_record(fleet, created_ns=9), b"new")
    assert fleet.store.read_latency_model("t1") == b"new"
    assert [found.created_ns for found in fleet.store.list_latency_models()] == [9]


@pytest.mark.parametrize(
    ("field", "value"), [("kind", "mlp"), ("space", "course"), ("campaign", "other")]
)
def test_a_model_name_cannot_come_to_mean_something_else(fleet, field, value):
    fleet.store.put_latency_model(model_record(fleet), b"old")
    with pytest.raises(ConflictError, match=f"'t1' is there with {field}"):
        fleet.store.put_latency_model(model_record(fleet, **{field: value}), b"new")
    assert fleet.store.read_latency_model("t1") == b"old"


def test_a_missing_model_lists_those_that_exist(fleet):
    fleet.store.put_latency_model(model_record(fleet), b"x")
    with pytest.raises(NotFoundError, match=r"no latency model 'z'; there are: t1"):
        fleet.store.read_latency_model("z")


def test_rounds_end_with_what_every_task_has_and_at_least_one(fleet):
    first, second = fleet.campaign(n_rounds=5)
    lease = fleet.lease([first, second])
    reports = [fleet.report(n + 1, lease, fleet.visit(first, n)) for n in range(2)]
    fleet.store.record_reports([fleet.batch(*reports)], now_ns=1)
    assert fleet.store.list_first_leases() == {"first": lease.created_ns}
    assert fleet.store.end_rounds("first")
    assert fleet.store.list_active_leases() == []
    (found,) = fleet.store.list_open_tasks()
    assert (found.task, found.missing_rounds) == (second, (0,))
    assert not fleet.store.end_rounds("first"), "nothing is left to end"
    with pytest.raises(NotFoundError, match="no campaign 'nope'"):
        fleet.store.end_rounds("nope")


def test_a_campaign_without_a_lease_has_not_begun(fleet):
    fleet.campaign("waiting")
    assert fleet.store.list_first_leases() == {}
