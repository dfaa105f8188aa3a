"""Tables held against unseen networks of a device that is made up: every op takes a known time."""

import dataclasses

import pytest

from latlas_coordinator.domain import Role, Sampling, ValidationPlan
from latlas_coordinator.handlers import latency_models
from latlas_coordinator.handlers.campaigns import CampaignDefinition, start_campaign
from latlas_coordinator.handlers.judging import revalidate_table, validate_table
from latlas_coordinator.handlers.latency_models import ModelCache
from latlas_coordinator.storage import open_store
from latlas_latency.baselines import ALONE_AFFINE, ALONE_SUM, MACS_AFFINE
from latlas_latency.comparison import validate
from latlas_ops.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    TargetMismatchError,
)

PLAN = ValidationPlan("t1", 6, 5, 0, stand_alone=True, seed=0)
SPREAD = dataclasses.replace(
    PLAN, n_random_networks=0, n_selected_networks=0, n_spread_networks=8, stand_alone=False
)


@pytest.fixture(scope="module")
def store(imagined):
    """A table `t1`, and campaigns that judged it: `v1` and `r1`."""
    opened = open_store(":memory:")
    imagined.connect(opened)
    imagined.start(opened, "p1")
    imagined.measure(opened, "p1")
    latency_models.build_table(opened, "t1", "p1", now_ns=7)
    for name, plan in (("v1", PLAN), ("r1", SPREAD)):
        start(opened, name, plan)
        imagined.measure(opened, name)
    yield opened
    opened.close()


def start(store, name, plan, target="bench-ort"):
    return start_campaign(store, CampaignDefinition(name, target, plan, Sampling(2)), 0)


def test_a_validation_measures_what_the_table_has_not_seen(store):
    tasks = [progress.task for progress in store.list_tasks("v1")]
    roles = [task.role for task in tasks]
    assert roles.count(Role.VALIDATION) == 6
    assert roles.count(Role.SELECTED) == 5
    assert roles.count(Role.ALONE) == store.get_latency_model("t1").n_entries
    seen = {progress.task.arch for progress in store.list_tasks("p1")}
    assert not seen & {task.arch for task in tasks if task.arch is not None}
    assert store.get_campaign("v1").campaign.space == "digits"


def test_a_table_is_judged_whole_in_parts_and_beside_baselines(store):
    found = validate_table(store, "t1", "v1").validation
    assert found.n_networks == 11
    assert found.mape < 0.02
    assert [part.name for part in found.parts] == ["random networks", "networks found by search"]
    assert [part.n_networks for part in found.parts] == [6, 5]
    baselines = {baseline.name: baseline for baseline in found.baselines}
    assert {MACS_AFFINE, ALONE_SUM, ALONE_AFFINE} <= baselines.keys()
    # Every op costs a constant: its sum lacks what a network costs beyond its ops.
    assert baselines[ALONE_SUM].mape > found.mape
    assert any(name.startswith("MLP") for name in baselines)


def test_the_table_that_answers_carries_its_validation(store):
    models = ModelCache()
    before = models.get(store, "t1")
    record = validate_table(store, "t1", "v1")
    assert models.get(store, "t1").validation == record.validation
    assert models.get(store, "t1").entries == before.entries
    assert store.get_latency_model("t1") == record
    assert record.created_ns == 7


def test_a_table_that_is_built_anew_meanwhile_is_not_put_back(store, monkeypatch):
    def build_meanwhile(*args, **kwargs):
        latency_models.build_table(store, "t1", "p1", now_ns=99)
        return validate(*args, **kwargs)

    monkeypatch.setattr("latlas_coordinator.handlers.judging.validate", build_meanwhile)
    with pytest.raises(ConflictError, match="'t1' was built anew meanwhile"):
        validate_table(store, "t1", "v1")
    monkeypatch.undo()
    latency_models.build_table(store, "t1", "p1", now_ns=7)


def test_a_table_still_holds_where_nothing_changed(store):
    found = revalidate_table(store, "t1", "r1")
    assert found.verdict == "valid"
    assert found.n_networks == 8


def test_spread_networks_reach_over_the_range_of_predicted_latency(store):
    medians = {}
    for visit in store.list_visit_summaries("r1"):
        medians.setdefault(visit.task_id, visit.median_ns)
    assert max(medians.values()) > 3 * min(medians.values())


def test_another_target_is_refused_unless_the_question_is_whether_the_table_holds(store, imagined):
    other = dataclasses.replace(imagined.target, name="basic", graph_level="basic")
    store.add_target(other)
    with pytest.raises(TargetMismatchError, match="differ in graph_level"):
        start(store, "elsewhere", PLAN, "basic")
    start(store, "r2", SPREAD, "basic")
    imagined.measure(store, "r2")
    assert "graph_level" in revalidate_table(store, "t1", "r2").reason


def test_a_campaign_judges_the_table_it_was_started_for_once_it_has_ended(store):
    latency_models.build_table(store, "t2", "p1", now_ns=8)
    with pytest.raises(InvalidInputError, match="'v1' was not started to judge table 't2'"):
        validate_table(store, "t2", "v1")
    with pytest.raises(InvalidInputError, match="'p1' was not started to judge table 't1'"):
        validate_table(store, "t1", "p1")
    start(store, "open", dataclasses.replace(PLAN, seed=1))
    with pytest.raises(InvalidInputError, match="'open' still runs"):
        validate_table(store, "t1", "open")
    store.cancel_campaign("open")
    with pytest.raises(InvalidInputError, match="has measured no network"):
        validate_table(store, "t1", "open")


def test_only_tables_of_a_space_can_be_judged(store):
    latency_models.fit_predictor(store, "m1", "p1", kind="macs", seed=0, now_ns=8)
    with pytest.raises(InvalidInputError, match="'m1' is not a table but a predictor"):
        start(store, "x", dataclasses.replace(PLAN, table="m1"))
    with pytest.raises(NotFoundError, match="nope"):
        start(store, "x", dataclasses.replace(PLAN, table="nope"))
    with pytest.raises(InvalidInputError, match="at least one network"):
        dataclasses.replace(SPREAD, n_spread_networks=0)
