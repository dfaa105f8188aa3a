"""Latency models from a campaign whose device is made up: every op takes a known time."""

import dataclasses

import numpy as np
import pytest

from latlas_coordinator.domain import (
    MeasuredProgram,
    MeasurePlan,
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
from latlas_coordinator.handlers.measurements import read_observations
from latlas_coordinator.storage import open_store
from latlas_latency.formats import load_latency_model
from latlas_ops import get_space
from latlas_ops.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    SpaceMismatchError,
    UnknownOpError,
)
from latlas_ops.space import ArchBatch

SPACE = get_space("digits")


@pytest.fixture(scope="module")
def store(imagined):
    """A finished profile campaign `p1`."""
    opened = open_store(":memory:")
    imagined.connect(opened)
    imagined.start(opened, "p1")
    imagined.measure(opened, "p1")
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


def test_a_table_reads_what_its_method_needs_and_nothing_twice(store, monkeypatch):
    reads = []

    def read(store, campaign, roles):
        reads.append(set(roles))
        return read_observations(store, campaign, roles)

    monkeypatch.setattr("latlas_coordinator.handlers.model_sources.read_observations", read)
    latency_models.build_table(store, "t1", "p1", now_ns=7)
    assert reads == [{Role.COVER, Role.CALIBRATION}, {Role.VALIDATION}]


def test_a_table_predicts_what_the_device_takes(store, table, imagined):
    batch = SPACE.sample(50, np.random.default_rng(5))
    prediction = latency_models.predict(
        store, ModelCache(), "t1", batch, level=0.9, allow_estimates=False
    )
    truth_ms = [imagined.network_ms(SPACE.network(arch)) for arch in SPACE.archs(batch)]
    np.testing.assert_allclose(prediction.mean_ms, truth_ms, rtol=0.02)
    networks = [SPACE.network(arch) for arch in SPACE.archs(batch)]
    by_network = latency_models.predict(
        store, ModelCache(), "t1", networks, level=0.9, allow_estimates=False
    )
    np.testing.assert_allclose(by_network.mean_ms, prediction.mean_ms)


@pytest.mark.parametrize("kind", ["linear", "macs", pytest.param("mlp", marks=pytest.mark.slow)])
def test_predictors_are_fitted_and_validated_on_unseen_networks(store, kind, imagined):
    record = latency_models.fit_predictor(store, kind, "p1", kind=kind, seed=1, now_ns=8)
    assert (record.kind, record.n_entries, record.validation.n_networks) == (kind, 0, 12)
    assert record.validation.mape < 0.3
    kept = load_latency_model(store.read_latency_model(kind))
    assert kept.target == imagined.target
    assert kept.validation == record.validation


def test_validation_networks_are_not_fitted_on(store, imagined):
    fit = latency_models.fit_predictor(store, "with", "p1", kind="linear", seed=0, now_ns=8)
    imagined.start(store, "p2")
    imagined.measure(store, "p2", roles=(Role.COVER, Role.TRAINING, Role.CALIBRATION))
    store.cancel_campaign("p2")
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


def test_a_campaign_that_still_runs_gives_no_model(store, imagined):
    imagined.start(store, "running")
    with pytest.raises(InvalidInputError, match=r"'running' still runs \(0 of \d+ visits\)"):
        latency_models.build_table(store, "x", "running", now_ns=1)
    store.cancel_campaign("running")
    with pytest.raises(InvalidInputError, match="has measured no cover network"):
        latency_models.build_table(store, "x", "running", now_ns=1)
    with pytest.raises(InvalidInputError, match="has measured no training network"):
        latency_models.fit_predictor(store, "x", "running", kind="macs", seed=0, now_ns=1)


def test_a_campaign_of_programs_gives_no_model(store):
    sha256 = keep_program(store, "onnx", b"mine")
    plan = MeasurePlan((MeasuredProgram(sha256, "mine"),))
    start_campaign(store, CampaignDefinition("m1", "bench-ort", plan, Sampling()), 0)
    with pytest.raises(InvalidInputError, match="'m1' measures programs"):
        latency_models.build_table(store, "x", "m1", now_ns=1)


def test_unknown_kinds_names_and_levels_are_refused(store, table):
    with pytest.raises(InvalidInputError, match="'oracle'; there are mlp, linear, macs"):
        latency_models.fit_predictor(store, "x", "p1", kind="oracle", seed=0, now_ns=1)
    with pytest.raises(InvalidInputError, match="seed must not be negative"):
        latency_models.fit_predictor(store, "x", "p1", kind="macs", seed=-1, now_ns=1)
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
    latency_models.fit_predictor(store, "source", "p1", kind="linear", seed=1, now_ns=8)
    data, _ = latency_models.export_model(store, ModelCache(), "source", "latlas")
    record = latency_models.import_model(store, "linear-copy", data, now_ns=9)
    assert (record.kind, record.space, record.n_entries) == ("linear", "digits", 0)


def test_what_is_no_model_is_not_imported(store):
    with pytest.raises(InvalidInputError):
        latency_models.import_model(store, "broken", b"not a model", now_ns=1)
    with pytest.raises(NotFoundError):
        store.get_latency_model("broken")


def test_a_format_that_does_not_exist_is_refused(store, table):
    with pytest.raises(InvalidInputError):
        latency_models.export_model(store, ModelCache(), "t1", "papyrus")


# -- some resolutions only -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def part(store, imagined):
    """A campaign `part` that measured ops at the smallest and the largest resolution."""
    plan = dataclasses.replace(imagined.plan, resolutions=(32, 48))
    start_campaign(store, CampaignDefinition("part", "bench-ort", plan, Sampling(2)), 0)
    assert store.get_campaign("part").campaign.plan == plan
    imagined.measure(store, "part")
    return latency_models.build_table(store, "part-table", "part", now_ns=7)


def between():
    batch = SPACE.sample(60, np.random.default_rng(5))
    return ArchBatch(SPACE, batch.genes[batch.genes[:, SPACE.resolution_gene] == 1])


def test_a_table_of_some_resolutions_knows_what_is_missing(store, part, table):
    assert part.n_entries < table.n_entries
    assert part.calibrated
    assert 0 < part.validation.n_networks < 12, "it answers for what it measured"
    model = ModelCache().get(store, "part-table")
    missing = model.missing(SPACE)
    assert len(missing) == table.n_entries - part.n_entries
    assert all(map(model.interpolation.reaches, missing))
    assert model.interpolation_check.n_networks == 3, "half of the calibration networks"
    assert model.interpolation_check.mape < 0.02


def test_what_lies_between_is_refused_unless_interpolation_is_asked_for(store, part, imagined):
    models, batch = ModelCache(), between()
    with pytest.raises(UnknownOpError, match="can be interpolated"):
        latency_models.predict(store, models, "part-table", batch, level=0.9, allow_estimates=False)
    networks = [SPACE.network(arch) for arch in SPACE.archs(batch)]
    truth_ms = [imagined.network_ms(network) for network in networks]
    for subjects in (batch, networks):
        found = latency_models.predict(
            store,
            models,
            "part-table",
            subjects,
            level=0.9,
            allow_estimates=False,
            interpolate=True,
        )
        np.testing.assert_allclose(found.mean_ms, truth_ms, rtol=0.03)
        assert (found.interpolated_ms > 0.5 * found.mean_ms).all()
        assert not found.estimated_ms.any()
    with pytest.raises(UnknownOpError):
        latency_models.predict(store, models, "part-table", batch, level=0.9, allow_estimates=False)


def test_a_table_is_built_with_interpolated_entries_on_request(store, part, table):
    record = latency_models.build_table(store, "filled", "part", now_ns=8, interpolate=True)
    assert record.n_entries == table.n_entries
    assert record.validation.n_networks == 12
    assert record.validation.mape < 0.02
    model = ModelCache().get(store, "filled")
    assert model.n_interpolated == table.n_entries - part.n_entries
    data, _ = latency_models.export_model(store, ModelCache(), "filled", "csv")
    assert data.count(b",interpolated\n") == model.n_interpolated
    assert b"# interpolated: " in data


def test_a_predictor_has_no_entries_to_interpolate(store, part):
    latency_models.fit_predictor(store, "part-macs", "part", kind="macs", seed=0, now_ns=8)
    with pytest.raises(InvalidInputError, match="'part-macs' is a predictor"):
        latency_models.predict(
            store, ModelCache(), "part-macs", between(), level=0.9, allow_estimates=False,
            interpolate=True,
        )  # fmt: skip
