"""Latency models over a real socket: made, asked, exported, imported."""

import shutil

import numpy as np
import pytest

from latlas_coordinator.handlers import suspicion
from latlas_coordinator.scheduling import LeasePolicy
from latlas_coordinator.storage import open_store
from latlas_ops import get_space
from latlas_protos.v1 import query_pb2

SPACE = get_space("digits")


@pytest.fixture(scope="module")
def database(tmp_path_factory, imagined):
    """A database with the finished profile campaign `p1`."""
    path = tmp_path_factory.mktemp("store") / "latlas.db"
    store = open_store(path)
    imagined.connect(store)
    imagined.start(store, "p1")
    imagined.measure(store, "p1")
    store.close()
    return path


@pytest.fixture
def policy():
    return LeasePolicy(duration_ns=60_000_000_000, max_attempts=5)


@pytest.fixture
def server(start_server, tmp_path, database):
    """A coordinator on a copy of it."""
    shutil.copy(database, tmp_path / "latlas.db")
    return start_server()


@pytest.fixture
def table(server):
    return server.query.BuildTable(query_pb2.BuildTableRequest(name="t1", campaign="p1"))


def architectures(batch, **changes):
    fields = {
        "space": batch.space.name,
        "version": batch.space.version,
        "n_archs": len(batch),
        "packed_genes": batch.genes.tobytes(),
    }
    return query_pb2.Architectures(**{**fields, **changes})


def test_a_table_answers_for_architectures_and_networks(server, table, imagined):
    assert (table.kind, table.space, table.calibrated) == ("table", "digits", True)
    assert table.target.device_model == "bench"
    assert table.n_entries == len(SPACE.slot_entries.ops)
    assert table.validation.n_networks == 12
    batch = SPACE.sample(20, np.random.default_rng(3))
    by_arch = server.query.Predict(
        query_pb2.PredictRequest(model="t1", architectures=architectures(batch))
    )
    networks = [SPACE.network(arch) for arch in SPACE.archs(batch)]
    by_network = server.query.Predict(
        query_pb2.PredictRequest(
            model="t1", networks={"json": [network.to_json() for network in networks]}
        )
    )
    truth_ms = [imagined.network_ms(network) for network in networks]
    np.testing.assert_allclose(by_arch.mean_ms, truth_ms, rtol=0.02)
    np.testing.assert_allclose(by_network.mean_ms, by_arch.mean_ms)
    assert by_arch.level == 0.9
    assert all(np.less(by_arch.lower_ms, by_arch.upper_ms))


def test_visits_on_request_are_granted_by_the_policy_of_the_coordinator(
    server, table, policy, monkeypatch
):
    granted = []

    def requeue(store, name, found, max_attempts):
        granted.append(max_attempts)
        return suspicion.Requeued("p1", 0)

    monkeypatch.setattr(suspicion, "requeue", requeue)
    server.query.FindSuspicions(query_pb2.FindSuspicionsRequest(name="t1", requeue=True))
    assert granted == [policy.max_attempts]


def test_a_predictor_is_fitted_and_listed_beside_the_table(server, table):
    request = query_pb2.FitPredictorRequest(name="m1", campaign="p1", kind="macs")
    fitted = server.query.FitPredictor(request)
    listed = server.query.ListLatencyModels(query_pb2.ListLatencyModelsRequest()).models
    assert list(listed) == [fitted, table]
    assert fitted.validation.n_networks == 12


def test_a_table_leaves_and_comes_back(server, table):
    request = query_pb2.ExportLatencyModelRequest(name="t1", format="latlas")
    chunks = list(server.query.ExportLatencyModel(request))
    assert chunks[0].file_name.startswith("t1.")
    data = b"".join(chunk.data for chunk in chunks)
    half = len(data) // 2
    came = server.query.ImportLatencyModel(
        iter(
            [
                query_pb2.ImportLatencyModelRequest(name="t2", data=data[:half]),
                query_pb2.ImportLatencyModelRequest(data=data[half:]),
            ]
        )
    )
    assert (came.name, came.kind, came.n_entries) == ("t2", "table", table.n_entries)


def test_bad_requests_for_predictions_keep_their_class(server, bench, table):
    def ask(**fields):
        server.query.Predict(query_pb2.PredictRequest(model="t1", **fields))

    batch = SPACE.extremes()
    with bench.refused("NotFoundError", "no latency model 'nope'; there are: t1"):
        server.query.Predict(
            query_pb2.PredictRequest(model="nope", architectures=architectures(batch))
        )
    with bench.refused("InvalidInputError", "needs architectures or networks"):
        ask()
    with bench.refused("InvalidInputError", "2 architectures of space 'digits' take"):
        ask(architectures=architectures(batch, packed_genes=b"123"))
    with bench.refused("SpaceMismatchError", "version 9, this coordinator has version 2"):
        ask(architectures=architectures(batch, version=9))
    with bench.refused("SpaceMismatchError", "course"):
        ask(architectures=architectures(get_space("course").extremes()))
    with bench.refused("NotFoundError", "no search space 'moon'"):
        ask(architectures=architectures(batch, space="moon"))
    with bench.refused("InvalidInputError", "not a network"):
        ask(networks={"json": ["{}"]})
    with bench.refused("InvalidInputError", "level must lie between 0 and 1"):
        ask(architectures=architectures(batch), level=2.0)
    stranger = get_space("course")
    network = stranger.network(stranger.archs(stranger.extremes())[0])
    with bench.refused("UnknownOpError", "stem"):
        ask(networks={"json": [network.to_json()]})


def test_what_cannot_be_built_keeps_its_class(server, bench):
    with bench.refused("NotFoundError", "no campaign 'nope'"):
        server.query.BuildTable(query_pb2.BuildTableRequest(name="t", campaign="nope"))
    with bench.refused("InvalidInputError", "no predictor is called 'oracle'"):
        server.query.FitPredictor(
            query_pb2.FitPredictorRequest(name="t", campaign="p1", kind="oracle")
        )
    with bench.refused("InvalidInputError", "latency model name ''"):
        server.query.ImportLatencyModel(iter([query_pb2.ImportLatencyModelRequest(data=b"x")]))
