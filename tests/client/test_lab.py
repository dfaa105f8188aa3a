"""`Lab` speaks values: what goes out and comes back over a real channel."""

import dataclasses
import hashlib

import numpy as np
import pytest

from latlas.lab import connect
from latlas.records import FailedTask, Sampling, VisitSummary
from latlas_latency.measurement import Target
from latlas_ops import get_space
from latlas_ops.errors import (
    InvalidInputError,
    NotFoundError,
    SpaceMismatchError,
    UnreachableError,
)
from latlas_protos.v1 import measurement_pb2, query_pb2
from latlas_protos.v1.query_pb2_grpc import QueryServiceServicer


class Recording(QueryServiceServicer):
    """Keeps every request; answers are set by the test."""

    def __init__(self, **answers) -> None:
        self.requests = []
        self.answers = answers

    def _answer(self, call, request):
        self.requests.append(request)
        return self.answers[call]

    def ListTargets(self, request, context):
        return query_pb2.ListTargetsResponse()

    def ListDevices(self, request, context):
        return self._answer("devices", request)

    def AddTarget(self, request, context):
        self.requests.append(request)
        return request.target

    def UploadProgram(self, request_iterator, context):
        self.requests.extend(request_iterator)
        data = b"".join(request.data for request in self.requests)
        return query_pb2.UploadProgramResponse(sha256=hashlib.sha256(data).hexdigest())

    def StartCampaign(self, request, context):
        return self._answer("campaign", request)

    def ListMeasurements(self, request, context):
        return self._answer("measurements", request)

    def ListLatencyModels(self, request, context):
        return self._answer("models", request)

    def Predict(self, request, context):
        self.requests.append(request)
        n = request.architectures.n_archs or len(request.networks.json)
        figures = [float(len(self.requests))] * n
        fields = ("mean", "lower", "upper", "measured", "interpolated", "estimated")
        return query_pb2.PredictResponse(
            level=request.level, **{f"{field}_ms": figures for field in fields}
        )

    def ExportLatencyModel(self, request, context):
        self.requests.append(request)
        yield query_pb2.FileChunk(file_name="digits.csv", data=b"op,")
        yield query_pb2.FileChunk(data=b"latency_ms\n")

    def ImportLatencyModel(self, request_iterator, context):
        self.requests.extend(request_iterator)
        return self.answers["model"]


def test_a_target_goes_out_with_what_is_left_empty_left_empty(lab_of):
    servicer = Recording()
    target = lab_of(servicer).add_target("pi5", threads=4, cores=[3, 2])
    (request,) = servicer.requests
    assert (request.target.device_model, request.target.provider) == ("", "")
    assert isinstance(target, Target)
    assert (target.threads, target.cores, target.graph_level) == (4, (2, 3), "all")


def test_a_malformed_target_is_refused_before_anything_is_sent(lab_of):
    servicer = Recording()
    with pytest.raises(InvalidInputError, match="graph_level 'best' is not one of"):
        lab_of(servicer).add_target("pi5", graph_level="best")
    assert not servicer.requests


def test_devices_come_with_what_they_can_run(lab_of):
    device = measurement_pb2.Device(
        device_id="d1",
        device_model="Raspberry Pi 5",
        runtimes=[measurement_pb2.RuntimeCapability(runtime="onnxruntime", version="1.32.0")],
    )
    reply = query_pb2.ListDevicesResponse(
        devices=[query_pb2.DeviceState(device=device, connected=True, last_seen_ns=5)]
    )
    (state,) = lab_of(Recording(devices=reply)).devices()
    assert (state.device.device_id, state.connected, state.busy_with) == ("d1", True, "")
    assert state.device.runtimes[0].version == "1.32.0"


def test_a_large_program_travels_in_parts_that_fit(lab_of):
    servicer = Recording()
    program = bytes(range(256)) * 20_000
    assert lab_of(servicer).upload(program) == hashlib.sha256(program).hexdigest()
    assert [request.program_format for request in servicer.requests] == ["onnx", "", "", "", ""]
    assert max(len(request.data) for request in servicer.requests) <= 1 << 20


def test_a_profile_says_how_much_and_how_it_is_timed(lab_of, running):
    servicer = Recording(campaign=running)
    status = lab_of(servicer).start_profile(
        "profile", "digits", "pi5", seed=3, sampling=Sampling(n_rounds=4)
    )
    (request,) = servicer.requests
    assert request.WhichOneof("plan") == "profile"
    assert (request.profile.n_training_networks, request.profile.seed) == (160, 3)
    assert request.profile.method == ""
    assert (request.sampling.n_rounds, request.sampling.min_duration_ns) == (4, 30_000_000)
    assert (status.state, status.is_running, status.n_visits_done) == ("running", True, 7)


def test_a_profile_says_how_ops_are_measured(lab_of, running):
    servicer = Recording(campaign=running)
    lab_of(servicer).start_profile("profile", "digits", "pi5", method="chained")
    assert servicer.requests[0].profile.method == "chained"


def test_programs_are_measured_under_their_labels(lab_of, running):
    running.failed.add(task_id="t", label="a.onnx", error_code="MeasurementError", reason="hung")
    servicer = Recording(campaign=running)
    status = lab_of(servicer).start_measure("m", "pi5", [("00ff", "a.onnx")])
    (request,) = servicer.requests
    assert request.WhichOneof("plan") == "measure"
    assert [(p.sha256, p.label) for p in request.measure.programs] == [("00ff", "a.onnx")]
    assert status.failed == (FailedTask("t", "a.onnx", "MeasurementError", "hung"),)


def test_the_latency_of_a_measurement_is_the_median_of_its_visits_medians(lab_of):
    measured = query_pb2.Measurement(task_id="t", role="validation", mode="plain", genes=[0, -1])
    for number, median_ns in ((1, 9_000_000), (0, 2_000_000), (2, 3_000_000)):
        measured.visits.add(round=number, device_id="d", median_ns=median_ns, n_runs=5)
    unmeasured = query_pb2.Measurement(task_id="u")
    reply = query_pb2.ListMeasurementsResponse(measurements=[measured, unmeasured])
    first, second = lab_of(Recording(measurements=reply)).measurements("profile")
    assert first.visits[0] == VisitSummary(0, "d", 0, 2_000_000, 5)
    assert (first.latency_ms, first.genes) == (3.0, (0, -1))
    assert second.latency_ms is None


def test_a_model_without_validation_networks_has_no_validation(lab_of, target_message):
    reply = query_pb2.ListLatencyModelsResponse()
    reply.models.add(name="bare", kind="table", target=target_message)
    judged = reply.models.add(name="judged", kind="mlp", target=target_message)
    judged.validation.n_networks = 40
    judged.validation.mape = 0.02
    lab = lab_of(Recording(models=reply))
    assert lab.model_info("bare").validation is None
    assert lab.model_info("judged").validation.mape == 0.02
    with pytest.raises(NotFoundError, match=r"no table or predictor 'other' .*: bare, judged"):
        lab.model_info("other")


def test_architectures_travel_as_packed_genes(lab_of):
    space = get_space("digits")
    batch = space.sample(5, np.random.default_rng(0))
    servicer = Recording()
    lab = lab_of(servicer)
    prediction = lab.predict("table", batch, level=0.5)
    lab.predict("table", space.archs(batch))
    first, second = servicer.requests
    assert first.architectures == second.architectures
    unpacked = np.frombuffer(first.architectures.packed_genes, np.int8).reshape(5, -1)
    np.testing.assert_array_equal(unpacked, batch.genes)
    assert (first.architectures.space, first.architectures.version) == ("digits", space.version)
    assert prediction.mean_ms.shape == (5,)
    assert prediction.level == 0.5


def test_many_networks_are_asked_about_in_several_calls_in_order(lab_of, monkeypatch):
    monkeypatch.setattr("latlas.messages._NETWORKS_PER_CALL", 2)
    space = get_space("digits")
    (arch,) = space.archs(space.sample(1, np.random.default_rng(0)))
    servicer = Recording()
    prediction = lab_of(servicer).predict("table", [space.network(arch)] * 5)
    assert len(servicer.requests) == 3
    assert prediction.mean_ms.tolist() == [1, 1, 2, 2, 3]


def test_a_prediction_about_nothing_or_a_mixture_is_refused(lab_of):
    digits, course = get_space("digits"), get_space("course")
    rng = np.random.default_rng(0)
    (small,) = digits.archs(digits.sample(1, rng))
    (large,) = course.archs(course.sample(1, rng))
    lab = lab_of(Recording())
    with pytest.raises(InvalidInputError, match="nothing to predict"):
        lab.predict("table", [])
    with pytest.raises(InvalidInputError, match="not a mixture"):
        lab.predict("table", [small, digits.network(small)])
    with pytest.raises(SpaceMismatchError, match="'digits' version 2 and 'course' version 1"):
        lab.predict("table", [small, large])
    with pytest.raises(InvalidInputError, match="no choice index"):
        lab.predict("table", [dataclasses.replace(small, genes=(999, *small.genes[1:]))])


def test_files_come_and_go_whole(lab_of, target_message):
    info = query_pb2.LatencyModelInfo(name="copy", kind="table", target=target_message)
    servicer = Recording(model=info)
    lab = lab_of(servicer)
    assert lab.export("digits", "csv") == (b"op,latency_ms\n", "digits.csv")
    servicer.requests.clear()
    assert lab.import_latency_model("copy", b"x" * (2 << 20)).name == "copy"
    assert [request.name for request in servicer.requests] == ["copy", ""]


class Campaigning(QueryServiceServicer):
    """Streams the given counts of visits, then ends the stream or the whole campaign."""

    def __init__(self, running, counts, *, finish) -> None:
        self.running, self.counts, self.finish = running, counts, finish

    def ListTargets(self, request, context):
        return query_pb2.ListTargetsResponse()

    def WatchCampaign(self, request, context):
        for count in self.counts:
            message = query_pb2.Campaign()
            message.CopyFrom(self.running)
            message.n_visits_done = count
            if self.finish and count == self.counts[-1]:
                message.state = query_pb2.CAMPAIGN_STATE_FINISHED
            yield message


def test_watching_ends_with_the_campaign(lab_of, running):
    lab = lab_of(Campaigning(running, [10, 20, 30], finish=True))
    statuses = list(lab.watch("profile"))
    assert [status.n_visits_done for status in statuses] == [10, 20, 30]
    assert statuses[-1].state == "finished"


def test_watching_survives_a_restart_of_the_coordinator(serve, running):
    address = serve(Campaigning(running, [10, 20], finish=False))
    with connect(address) as lab:
        seen = []
        for status in lab.watch("profile"):
            seen.append(status.n_visits_done)
            if seen == [10, 20]:
                _restart(serve, address, Campaigning(running, [20, 30], finish=True))
    assert seen == [10, 20, 30]


def _restart(serve, address, servicer):
    serve.stop()
    serve(servicer, int(address.rpartition(":")[2]))


def test_watching_gives_up_when_the_coordinator_stays_away(serve, running):
    with connect(serve(Campaigning(running, [10], finish=False))) as lab:
        statuses = lab.watch("profile", patience_s=1.0)
        assert next(statuses).n_visits_done == 10
        serve.stop()
        with pytest.raises(UnreachableError, match="no coordinator answers"):
            list(statuses)
