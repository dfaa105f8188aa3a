"""Latency models from a campaign whose device is made up: every op takes a known time."""

import dataclasses

import numpy as np
import pytest

from latlas_coordinator.domain import (
    AgentRecord,
    CampaignState,
    LeaseItem,
    MeasuredProgram,
    MeasurePlan,
    NewLease,
    ProfilePlan,
    Report,
    ReportBatch,
    Role,
    Sampling,
)
from latlas_coordinator.handlers import latency_models
from latlas_coordinator.handlers.campaigns import (
    CampaignDefinition,
    keep_program,
    start_campaign,
)
from latlas_coordinator.handlers.latency_models import ModelCache
from latlas_coordinator.storage import open_store
from latlas_latency.formats import load_latency_model
from latlas_latency.measurement import (
    PROFILED,
    WHOLE_NETWORK,
    Device,
    RuntimeCapability,
    Series,
    Target,
    Visit,
)
from latlas_ops import get_space
from latlas_ops.costs import op_cost
from latlas_ops.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    SpaceMismatchError,
)

SPACE = get_space("digits")
AGENT = AgentRecord("agent", 1, "0")
CAPABILITY = RuntimeCapability("ort", "1", ("cpu",), ("fp32",), ("all",), ("onnx",), True)
DEVICE = Device("board", "", "bench", "", "", "", 4, 1, "default", (CAPABILITY,))
TARGET = Target("bench", "bench", "ort", "1", "cpu")
N_RUNS = 4
FIXED_NS = 20_000
PROFILER_NS = 3_000


def op_ns(op):
    """The true time of an op."""
    return 5_000 + op_cost(op).macs / 50


def network_ms(network):
    return (FIXED_NS + 1.04 * sum(op_ns(op) for op in network.ops)) / 1e6


def imagined_visit(progress, program, number, rng):
    """What the made-up device measures: the true time with 0.5 % of noise."""
    noise = rng.normal(1, 0.005, size=N_RUNS)
    network = program.network
    nodes = []
    if progress.task.mode == PROFILED:
        tensor_of = {position: name for name, position in program.tensor_positions.items()}
        nodes = [
            Series(
                tensor_of[position],
                ((op_ns(op) + PROFILER_NS) * noise).astype(np.int64),
                f"node{position}/Op",
            )
            for position, op in enumerate(network.ops)
        ]
    whole_ns = (network_ms(network) * 1e6 + PROFILER_NS * len(nodes)) * noise
    return Visit(
        task_id=progress.task.task_id,
        device_id="board",
        round=number,
        mode=progress.task.mode,
        started_ns=number,
        duration_ns=int(whole_ns.sum()),
        warmup_runs=1,
        series=(Series(WHOLE_NETWORK, whole_ns.astype(np.int64)), *nodes),
    )


def measure(store, campaign, roles=tuple(Role)):
    """Measures all tasks of these roles on the made-up device."""
    tasks = [found for found in store.list_tasks(campaign) if found.task.role in roles]
    programs = store.get_programs({found.task.program_sha256 for found in tasks})
    items = tuple(LeaseItem(found.task.task_id, found.missing_rounds) for found in tasks)
    lease = store.create_lease(
        NewLease(f"of-{campaign}", "agent", 1, "board", campaign, items, 0, 10**18)
    )
    rng = np.random.default_rng(0)
    visits = [
        imagined_visit(found, programs[found.task.program_sha256], number, rng)
        for found in tasks
        for number in found.missing_rounds
    ]
    last = store.attach_agent(AGENT, [DEVICE], 0)
    reports = tuple(
        Report(last + offset, lease.reference, visit) for offset, visit in enumerate(visits, 1)
    )
    store.record_reports([ReportBatch("agent", 1, reports)], 0)
    store.finish_lease("agent", 1, lease.reference)
    store.finish_campaigns()


def start(store, name="p1", **changes):
    plan = ProfilePlan("digits", 30, 6, 12, min_occurrences=1, seed=0)
    plan = dataclasses.replace(plan, **changes)
    start_campaign(store, CampaignDefinition(name, "bench", plan, Sampling(n_rounds=2)), 0)


@pytest.fixture(scope="module")
def store():
    """A finished profile campaign `p1`."""
    opened = open_store(":memory:")
    opened.attach_agent(AGENT, [DEVICE], 0)
    opened.add_target(TARGET)
    start(opened)
    measure(opened, "p1")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def table(store):
    return latency_models.build_table(store, "t1", "p1", now_ns=7)


def test_a_table_is_built_calibrated_and_validated(store, table):
    assert (table.kind, table.space, table.campaign) == ("table", "digits", "p1")
    assert table.calibrated
    assert table.n_entries == len(SPACE.slot_entries.ops)
    assert table.validation.n_networks == 12
    assert table.validation.mape < 0.01
    assert store.get_latency_model("t1") == table


def test_a_table_predicts_what_the_device_takes(store, table):
    batch = SPACE.sample(50, np.random.default_rng(5))
    prediction = latency_models.predict(
        store, ModelCache(), "t1", batch, level=0.9, allow_estimates=False
    )
    truth_ms = [network_ms(SPACE.network(arch)) for arch in SPACE.archs(batch)]
    np.testing.assert_allclose(prediction.mean_ms, truth_ms, rtol=0.02)
    networks = [SPACE.network(arch) for arch in SPACE.archs(batch)]
    by_network = latency_models.predict(
        store, ModelCache(), "t1", networks, level=0.9, allow_estimates=False
    )
    np.testing.assert_allclose(by_network.mean_ms, prediction.mean_ms)


@pytest.mark.parametrize("kind", ["mlp", "linear", "macs"])
def test_predictors_are_fitted_and_validated_on_unseen_networks(store, kind):
    record = latency_models.fit_predictor(store, kind, "p1", kind=kind, seed=1, now_ns=8)
    assert (record.kind, record.n_entries, record.validation.n_networks) == (kind, 0, 12)
    assert record.validation.mape < 0.3
    kept = load_latency_model(store.read_latency_model(kind))
    assert kept.target == TARGET
    assert kept.validation == record.validation


def test_validation_networks_are_not_fitted_on(store):
    fit = latency_models.fit_predictor(store, "with", "p1", kind="linear", seed=0, now_ns=8)
    start(store, "p2")
    measure(store, "p2", roles=(Role.COVER, Role.TRAINING, Role.CALIBRATION))
    store.end_campaign("p2", CampaignState.CANCELLED)
    blind = latency_models.fit_predictor(store, "blind", "p2", kind="linear", seed=0, now_ns=8)
    assert blind.validation is None
    batch = SPACE.sample(20, np.random.default_rng(5))
    predictions = [
        latency_models.predict(
            store, ModelCache(), record.name, batch, level=0.9, allow_estimates=True
        ).mean_ms
        for record in (fit, blind)
    ]
    # The visits of the two campaigns differ by their noise alone.
    np.testing.assert_allclose(*predictions, rtol=0.02)


def test_a_model_that_is_made_again_is_the_one_that_answers(store, table):
    models = ModelCache()
    first = models.get(store, "t1")
    assert models.get(store, "t1") is first
    latency_models.build_table(store, "t1", "p1", now_ns=70)
    assert models.get(store, "t1") is not first


def test_a_campaign_that_still_runs_gives_no_model(store):
    start(store, "running")
    with pytest.raises(InvalidInputError, match=r"'running' still runs \(0 of \d+ visits\)"):
        latency_models.build_table(store, "x", "running", now_ns=1)
    store.end_campaign("running", CampaignState.CANCELLED)
    with pytest.raises(InvalidInputError, match="has measured no cover network"):
        latency_models.build_table(store, "x", "running", now_ns=1)
    with pytest.raises(InvalidInputError, match="has measured no training network"):
        latency_models.fit_predictor(store, "x", "running", kind="macs", seed=0, now_ns=1)


def test_a_campaign_of_programs_gives_no_model(store):
    sha256 = keep_program(store, "onnx", b"mine")
    plan = MeasurePlan((MeasuredProgram(sha256, "mine"),))
    start_campaign(store, CampaignDefinition("m1", "bench", plan, Sampling()), 0)
    with pytest.raises(InvalidInputError, match="'m1' measures programs"):
        latency_models.build_table(store, "x", "m1", now_ns=1)


def test_unknown_kinds_names_and_levels_are_refused(store, table):
    with pytest.raises(InvalidInputError, match="'oracle'; there are mlp, linear, macs"):
        latency_models.fit_predictor(store, "x", "p1", kind="oracle", seed=0, now_ns=1)
    with pytest.raises(InvalidInputError, match="latency model name 'a b'"):
        latency_models.build_table(store, "a b", "p1", now_ns=1)
    with pytest.raises(NotFoundError, match="no campaign 'nope'"):
        latency_models.build_table(store, "x", "nope", now_ns=1)
    batch = SPACE.extremes()
    with pytest.raises(InvalidInputError, match="level must lie between 0 and 1, not 90"):
        latency_models.predict(store, ModelCache(), "t1", batch, level=90, allow_estimates=False)


def test_a_name_cannot_come_to_mean_another_kind(store, table):
    with pytest.raises(ConflictError, match="'t1' is there with kind 'table', not 'macs'"):
        latency_models.fit_predictor(store, "t1", "p1", kind="macs", seed=0, now_ns=1)


def test_a_table_does_not_speak_of_another_space(store, table):
    other = get_space("course").extremes()
    with pytest.raises(SpaceMismatchError):
        latency_models.predict(store, ModelCache(), "t1", other, level=0.9, allow_estimates=True)


def test_a_table_is_exported_and_imported_as_it_is(store, table):
    data, file_name = latency_models.export_model(store, ModelCache(), "t1", "latlas")
    assert file_name.startswith("t1.")
    record = latency_models.import_model(store, "copy", data, now_ns=9)
    assert (record.kind, record.space, record.campaign) == ("table", "digits", "")
    assert (record.n_entries, record.calibrated) == (table.n_entries, True)
    assert record.validation == table.validation
    batch = SPACE.sample(5, np.random.default_rng(1))
    one, two = (
        latency_models.predict(store, ModelCache(), name, batch, level=0.9, allow_estimates=False)
        for name in ("t1", "copy")
    )
    np.testing.assert_array_equal(one.mean_ms, two.mean_ms)


def test_a_table_is_exported_for_other_programs(store, table):
    data, file_name = latency_models.export_model(store, ModelCache(), "t1", "csv")
    assert file_name.endswith(".csv")
    assert data.count(b"\n") > table.n_entries


def test_predictors_are_imported_with_their_kind_and_space(store):
    latency_models.fit_predictor(store, "source", "p1", kind="mlp", seed=1, now_ns=8)
    data, _ = latency_models.export_model(store, ModelCache(), "source", "latlas")
    record = latency_models.import_model(store, "mlp-copy", data, now_ns=9)
    assert (record.kind, record.space, record.n_entries) == ("mlp", "digits", 0)


def test_what_is_no_model_is_not_imported(store):
    with pytest.raises(InvalidInputError):
        latency_models.import_model(store, "broken", b"not a model", now_ns=1)
    with pytest.raises(NotFoundError):
        store.get_latency_model("broken")


def test_a_format_that_does_not_exist_is_refused(store, table):
    with pytest.raises(InvalidInputError):
        latency_models.export_model(store, ModelCache(), "t1", "papyrus")
