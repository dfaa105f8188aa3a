"""Methods of profile campaigns: chosen, refused, and what becomes of each."""

import dataclasses

import numpy as np
import pytest

from latlas_coordinator.chaining import alone_programs, chain_programs
from latlas_coordinator.domain import (
    Campaign,
    ProfilePlan,
    Role,
    Sampling,
    ValidationPlan,
)
from latlas_coordinator.handlers import campaigns, latency_models
from latlas_coordinator.handlers.campaigns import CampaignDefinition, start_campaign
from latlas_coordinator.handlers.judging import validate_table
from latlas_coordinator.handlers.latency_models import ModelCache
from latlas_coordinator.storage import open_store
from latlas_coordinator.storage.packing import plan_from_json, plan_to_json
from latlas_latency.formats import load_latency_model
from latlas_latency.measurement import PLAIN, PROFILED
from latlas_ops import get_space
from latlas_ops.errors import ConflictError, InvalidInputError, RuntimeUnavailableError

SPACE = get_space("digits")
PLAN = ProfilePlan("digits", 0, 6, 12, min_occurrences=1, seed=0)


def start(store, name, method, **changes):
    plan = dataclasses.replace(PLAN, method=method, **changes)
    return start_campaign(store, CampaignDefinition(name, "bench-ort", plan, Sampling(2)), 0)


def tasks(store, name):
    return [progress.task for progress in store.list_tasks(name)]


@pytest.fixture
def few_programs(monkeypatch):
    """Campaigns have the chains, or the models, of three ops."""
    monkeypatch.setattr(campaigns, "chain_programs", lambda *given: chain_programs(*given)[:3])
    monkeypatch.setattr(campaigns, "alone_programs", lambda *given: alone_programs(*given)[:3])


@pytest.fixture
def empty(imagined, few_programs):
    opened = open_store(":memory:")
    imagined.connect(opened)
    yield opened
    opened.close()


@pytest.fixture
def without_node_times(imagined, few_programs):
    """A store whose only device does not time single nodes."""
    opened = open_store(":memory:")
    (runtime,) = imagined.device.runtimes
    plain = dataclasses.replace(runtime, per_node_times=False)
    device = dataclasses.replace(imagined.device, runtimes=(plain,))
    opened.attach_agent(imagined.agent, [device], 0)
    opened.add_target(imagined.target)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def store(imagined):
    """A finished campaign by each method, of the same name."""
    opened = open_store(":memory:")
    imagined.connect(opened)
    for method in ("in-situ", "chained", "alone"):
        start(opened, method, method)
        imagined.measure(opened, method)
        latency_models.build_table(opened, f"{method}-table", method, now_ns=7)
    yield opened
    opened.close()


def table(store, method):
    return load_latency_model(store.read_latency_model(f"{method}-table"))


def test_only_in_situ_campaigns_are_profiled(store):
    assert {task.mode for task in tasks(store, "in-situ")} == {PLAIN, PROFILED}
    for method, role in (("chained", Role.CHAIN), ("alone", Role.ALONE)):
        found = tasks(store, method)
        assert {task.mode for task in found} == {PLAIN}
        assert {task.role for task in found} == {
            role,
            Role.COVER,
            Role.CALIBRATION,
            Role.VALIDATION,
        }


def test_every_method_measures_the_same_whole_networks(store):
    archs = [
        {task.arch for task in tasks(store, method) if task.arch is not None}
        for method in ("in-situ", "chained", "alone")
    ]
    assert archs[0] == archs[1] == archs[2]


def test_the_chains_of_one_op_are_measured_in_a_row(store):
    chains = [task for task in tasks(store, "chained") if task.role is Role.CHAIN]
    programs = store.get_programs({task.program_sha256 for task in chains})
    networks = [programs[task.program_sha256].network for task in chains]
    lengths = [len(net.ops) for net in networks if len(set(net.ops)) == 1]
    assert all(lengths[at] < lengths[at + 1] < lengths[at + 2] for at in range(0, len(lengths), 3))
    assert sorted(int(task.label.split()[1]) for task in chains) == list(range(len(chains)))


def test_chained_tables_predict_what_the_device_takes(store, imagined):
    record = store.get_latency_model("chained-table")
    assert record.calibrated
    assert record.n_entries == len(SPACE.slot_entries.ops)
    assert record.validation.mape < 0.01
    found = table(store, "chained")
    assert found.method == "chained"
    assert found.remarks[0].startswith("measured in chains")
    batch = SPACE.sample(50, np.random.default_rng(5))
    prediction = latency_models.predict(
        store, ModelCache(), "chained-table", batch, level=0.9, allow_estimates=False
    )
    truth_ms = [imagined.network_ms(SPACE.network(arch)) for arch in SPACE.archs(batch)]
    np.testing.assert_allclose(prediction.mean_ms, truth_ms, rtol=0.02)


def test_tables_of_ops_alone_say_so(store):
    found = table(store, "alone")
    assert found.calibrated
    assert found.remarks[0].startswith("measured alone")
    assert not any("measured" in remark for remark in table(store, "in-situ").remarks)


def test_a_table_of_any_method_can_be_validated(store, imagined):
    plan = ValidationPlan("chained-table", 6, 6, 5, stand_alone=True, seed=1)
    start_campaign(store, CampaignDefinition("v1", "bench-ort", plan, Sampling(2)), 0)
    imagined.measure(store, "v1")
    record = validate_table(store, "chained-table", "v1")
    assert record.validation.n_networks == 12
    assert {one.name for one in record.validation.baselines} >= {"MACs, affine", "ops alone, sum"}


def test_without_a_method_the_runtime_decides(empty, without_node_times):
    assert start(empty, "c", "").campaign.plan.method == "in-situ"
    assert start(without_node_times, "c", "").campaign.plan.method == "chained"


@pytest.mark.parametrize(
    ("runtime", "method"), [("litert", "chained"), ("onnxruntime", "in-situ"), ("own", "in-situ")]
)
def test_where_no_device_was_ever_seen_the_name_of_the_runtime_decides(
    imagined, few_programs, runtime, method
):
    opened = open_store(":memory:")
    opened.add_target(dataclasses.replace(imagined.target, runtime=runtime))
    assert start(opened, "c", "").campaign.plan.method == method
    opened.close()


def test_a_device_that_left_still_says_what_its_runtime_can(without_node_times, imagined):
    without_node_times.detach_agent(imagined.agent.agent_id, imagined.agent.epoch, 1)
    assert not any(record.connected for record in without_node_times.list_devices())
    assert start(without_node_times, "c", "").campaign.plan.method == "chained"


def test_a_campaign_is_found_again_without_its_method(empty, imagined):
    started = start(empty, "c", "chained")
    assert start(empty, "c", "") == started
    with pytest.raises(ConflictError, match=r"with plan\.method 'chained', not 'alone'"):
        start(empty, "c", "alone")


def test_in_situ_without_node_times_is_refused_with_the_way_out(without_node_times):
    with pytest.raises(RuntimeUnavailableError, match="with --method chained"):
        start(without_node_times, "c", "in-situ")
    start(without_node_times, "d", "alone")
    assert Role.ALONE in {task.role for task in tasks(without_node_times, "d")}


def test_an_unknown_method_is_refused(empty):
    with pytest.raises(InvalidInputError, match="'guess'; there are in-situ, chained, alone"):
        start(empty, "c", "guess")


def test_a_plan_that_was_kept_before_there_was_a_choice_is_in_situ():
    record = plan_to_json(PLAN)
    del record["method"]
    kept = plan_from_json(record)
    assert kept == PLAN
    definitions = [
        Campaign("c", "bench-ort", plan, Sampling(), 0).definition() for plan in (kept, PLAN)
    ]
    assert definitions[0] == definitions[1]


def test_a_campaign_without_chains_gives_no_table(empty, imagined):
    start(empty, "c", "chained")
    imagined.measure(empty, "c", roles=(Role.COVER, Role.CALIBRATION))
    empty.cancel_campaign("c")
    with pytest.raises(InvalidInputError, match="has measured no chain of ops"):
        latency_models.build_table(empty, "t", "c", now_ns=1)
