"""What in a table, or in the visits behind it, cannot be right: found, and visited again."""

import dataclasses

import pytest

from latlas_coordinator.domain import CampaignState, Role, Sampling, VisitSummary
from latlas_coordinator.handlers import latency_models, suspicion
from latlas_coordinator.handlers.campaigns import CampaignDefinition, start_campaign
from latlas_coordinator.handlers.measurements import list_measurements
from latlas_coordinator.storage import open_store
from latlas_coordinator.suspecting import Stretch, find_stretches
from latlas_latency.formats import dump_latency_model, load_latency_model
from latlas_ops.errors import ConflictError, InvalidInputError


@pytest.fixture
def store(imagined):
    """A table `t1` of a finished campaign `p1` that allows one extra round."""
    opened = open_store(":memory:")
    imagined.connect(opened)
    opened_plan = dataclasses.replace(imagined.plan, n_training_networks=0)
    definition = CampaignDefinition("p1", "bench-ort", opened_plan, Sampling(2, n_extra_rounds=1))
    start_campaign(opened, definition, 0)
    imagined.measure(opened, "p1")
    latency_models.build_table(opened, "t1", "p1", now_ns=7)
    yield opened
    opened.close()


def spoil(store, factor=3.0):
    """Makes the entry of one op with the smallest kernel slow; returns the op."""
    table = load_latency_model(store.read_latency_model("t1"))
    slow = next(
        entry for entry in table.entries if dict(entry.op.attributes).get("kernel") == 3
        and entry.op.kind == "mbconv"
    )  # fmt: skip
    entries = tuple(
        dataclasses.replace(entry, mean_ms=factor * entry.mean_ms) if entry is slow else entry
        for entry in table.entries
    )
    record = store.get_latency_model("t1")
    store.put_latency_model(record, dump_latency_model(dataclasses.replace(table, entries=entries)))
    return slow.op


def test_a_sound_table_is_not_suspected(store):
    found = suspicion.find_suspicions(store, "t1")
    assert (found.breaks, found.stretches, found.disagreements) == ((), (), ())
    assert suspicion.requeue(store, "t1", found) == suspicion.Requeued("p1", 0)
    assert store.get_campaign("p1").campaign.state is CampaignState.FINISHED


def test_an_entry_that_is_slower_than_a_bigger_ops_is_found_and_visited_again(store):
    op = spoil(store)
    found = suspicion.find_suspicions(store, "t1")
    assert {one.smaller for one in found.breaks} == {op}
    requeued = suspicion.requeue(store, "t1", found)
    assert requeued.campaign == "p1"
    status = store.get_campaign("p1")
    assert status.campaign.state is CampaignState.RUNNING
    assert status.n_visits_wanted == status.n_visits_done + requeued.n_visits
    again = {progress.task.role for progress in store.list_open_tasks()}
    assert again == {Role.COVER}
    programs = store.get_programs([p.task.program_sha256 for p in store.list_open_tasks()])
    suspects = {one.bigger for one in found.breaks} | {op}
    assert all(suspects & set(program.network.ops) for program in programs.values())


def test_no_task_gets_more_rounds_than_its_sampling_allows(store):
    spoil(store)
    found = suspicion.find_suspicions(store, "t1")
    # One extra round that its sampling allows, and one on request.
    first = suspicion.requeue(store, "t1", found).n_visits
    assert first > 0
    assert suspicion.requeue(store, "t1", found).n_visits == first
    assert suspicion.requeue(store, "t1", found).n_visits == 0


def test_no_task_is_visited_again_that_failed_as_often_as_the_coordinator_lets_it(
    store, monkeypatch
):
    spoil(store)
    found = suspicion.find_suspicions(store, "t1")
    tasks = store.list_tasks("p1")
    failed = [dataclasses.replace(progress, attempts=2) for progress in tasks]
    monkeypatch.setattr(store, "list_tasks", lambda name: failed)
    assert suspicion.requeue(store, "t1", found, max_attempts=2).n_visits == 0
    assert suspicion.requeue(store, "t1", found, max_attempts=3).n_visits > 0


def test_a_campaign_that_was_cancelled_or_is_out_of_time_is_not_visited_again(store, imagined):
    sampling = Sampling(2, time_budget_ns=1)
    start_campaign(store, CampaignDefinition("timed", "bench-ort", imagined.plan, sampling), 0)
    imagined.measure(store, "timed")
    latency_models.build_table(store, "t2", "timed", now_ns=8)
    with pytest.raises(ConflictError, match="'timed' has a time budget"):
        suspicion.requeue(store, "t2", suspicion.find_suspicions(store, "t2"))
    imagined.start(store, "stopped")
    imagined.measure(store, "stopped", roles=(Role.COVER, Role.CALIBRATION))
    store.cancel_campaign("stopped")
    latency_models.build_table(store, "t3", "stopped", now_ns=8)
    with pytest.raises(ConflictError, match="'stopped' was cancelled"):
        suspicion.requeue(store, "t3", suspicion.find_suspicions(store, "t3"))


def of_two_boards(ratio, n_rounds):
    """Visits of 30 tasks on two boards, of which one puts a task at another latency."""
    return [
        VisitSummary(f"task {task}", 2 * number + board, f"board {board}", 1000 * number + task,
                     round(1e6 * (1.2 if board else 1.0) * (ratio if board and not task else 1)
                           * (1 + 0.001 * ((task * 7 + number * 3 + board) % 5))), 5)
        for number in range(n_rounds) for board in range(2) for task in range(30)
    ]  # fmt: skip


def test_a_slower_board_does_not_disagree_but_one_task_on_it_does(store, monkeypatch):
    monkeypatch.setattr(store, "list_visit_summaries", lambda name: of_two_boards(1.3, 3))
    found = suspicion.find_suspicions(store, "t1")
    assert [one.subject for one in found.disagreements] == ["task 0"]
    assert found.stretches == ()


def test_boards_that_visited_each_task_once_cannot_disagree(store, monkeypatch):
    monkeypatch.setattr(store, "list_visit_summaries", lambda name: of_two_boards(1.3, 1))
    assert suspicion.find_suspicions(store, "t1").disagreements == ()


def test_a_stretch_of_slow_visits_is_found(store):
    visits = [
        VisitSummary(f"task {number % 50}", number // 50, "board", number, 1_000_000 + number, 5)
        for number in range(200)
    ]
    visits[60:90] = [
        dataclasses.replace(visit, median_ns=1_300_000 + number)
        for number, visit in enumerate(visits[60:90])
    ]
    (stretch,) = find_stretches(visits)
    assert (stretch.device_id, len(stretch.visits)) == ("board", 30)
    assert (stretch.first_visit_ns, stretch.last_visit_ns) == (60, 89)
    assert stretch.ratio == pytest.approx(1.3, rel=0.01)


def test_a_stretch_visited_again_on_request_is_kept_as_a_finding_that_tables_pass_over(
    store, monkeypatch
):
    tasks = [progress.task.task_id for progress in store.list_tasks("p1")][:4]
    doubtful = tuple((task_id, 1) for task_id in tasks)
    stretch = Stretch("imagined", 0, 9, 1.2, doubtful, doubtful)
    found = suspicion.Suspicions((), (stretch,), (), {})
    assert suspicion.requeue(store, "t1", found) == suspicion.Requeued("p1", 4)
    (kept,) = store.get_campaign("p1").findings.suspicions
    assert (kept.revisited, kept.doubtful) == (True, tuple(sorted(doubtful)))
    left_out = [len(one.left_out) for one in list_measurements(store, "p1")]
    assert not any(left_out), "until they are taken"
    again = VisitSummary("", 2, "imagined", 99, 1_000_000, 5)
    summaries = store.list_visit_summaries("p1")
    summaries += [dataclasses.replace(again, task_id=task_id) for task_id in tasks]
    monkeypatch.setattr(store, "list_visit_summaries", lambda name: summaries)
    left_out = [one.left_out for one in list_measurements(store, "p1")]
    assert [[visit.round for visit in found] for found in left_out[:4]] == [[1]] * 4
    assert not any(left_out[4:])


def test_an_imported_table_is_looked_at_but_cannot_be_visited_again(store):
    spoil(store)
    latency_models.import_model(store, "copy", store.read_latency_model("t1"), now_ns=8)
    found = suspicion.find_suspicions(store, "copy")
    assert found.breaks
    with pytest.raises(InvalidInputError, match="'copy' was imported"):
        suspicion.requeue(store, "copy", found)


def test_a_predictor_is_not_suspected(store):
    latency_models.fit_predictor(store, "macs", "p1", kind="macs", seed=0, now_ns=8)
    with pytest.raises(InvalidInputError, match="not a table but a predictor"):
        suspicion.find_suspicions(store, "macs")
