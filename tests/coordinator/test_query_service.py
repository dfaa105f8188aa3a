"""The query service as a client sees it, over a real socket; its errors keep their class."""

import hashlib
import threading

import grpc
import pytest

from latlas_protos.v1 import measurement_pb2, query_pb2

PLAN = query_pb2.ProfilePlan(
    space="digits",
    n_training_networks=4,
    n_calibration_networks=3,
    n_validation_networks=2,
    min_occurrences=1,
    seed=1,
)


def profile(server, name="p1", plan=PLAN, **changes):
    request = query_pb2.StartCampaignRequest(name=name, target="bench-ort", profile=plan, **changes)
    return server.query.StartCampaign(request)


@pytest.fixture
def agent(server, bench):
    """An agent that is attached and stays idle; the target is there."""
    found = bench.attached(server)
    bench.add_target(server)
    return found


def test_devices_are_listed_with_what_they_offer(server, bench, agent):
    [state] = server.query.ListDevices(query_pb2.ListDevicesRequest()).devices
    assert state.connected
    assert state.device.device_model == "bench"
    assert state.device.runtimes[0].per_node_times
    assert state.last_seen_ns > 0


def test_a_target_is_completed_and_listed(server, bench, agent):
    [target] = server.query.ListTargets(query_pb2.ListTargetsRequest()).targets
    assert (target.name, target.runtime_version, target.batch) == ("bench-ort", "1.32.0", 1)


def test_the_same_target_may_be_added_again_and_another_may_not(server, bench, agent):
    bench.add_target(server)
    other = measurement_pb2.Target(name="bench-ort", threads=4)
    with bench.refused("ConflictError", "with threads 1, not 4"):
        server.query.AddTarget(query_pb2.AddTargetRequest(target=other))


def test_a_target_whose_runtime_is_missing_is_refused(server, bench, agent):
    wanted = measurement_pb2.Target(name="x", runtime="tvm")
    with bench.refused("RuntimeUnavailableError", "offers: onnxruntime"):
        server.query.AddTarget(query_pb2.AddTargetRequest(target=wanted))
    assert len(server.query.ListTargets(query_pb2.ListTargetsRequest()).targets) == 1


def test_an_upload_is_named_by_its_hash(server, bench):
    data = bytes(range(256)) * 20_000
    chunks = [
        query_pb2.UploadProgramRequest(
            program_format="" if start else "onnx", data=data[start : start + 1_000_000]
        )
        for start in range(0, len(data), 1_000_000)
    ]
    sha256 = server.query.UploadProgram(iter(chunks)).sha256
    assert sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("program_format", "data", "reason"),
    [("onnx", b"", "empty program"), ("", b"x", "needs a format")],
)
def test_an_upload_that_is_none_is_refused(server, bench, program_format, data, reason):
    with bench.refused("InvalidInputError", reason):
        bench.upload(server, data, program_format)


def test_a_profile_campaign_measures_cover_networks_in_both_modes(server, bench, agent):
    campaign = profile(server)
    assert campaign.space == "digits"
    lease = agent.hear("lease")
    assert len(lease.items) == campaign.n_tasks
    agent.work(lease)
    ended = bench.finished(server, "p1")
    assert ended.n_visits_done == ended.n_visits_wanted == 3 * campaign.n_tasks
    found = server.query.ListMeasurements(query_pb2.CampaignRequest(name="p1")).measurements
    count = {}
    for measurement in found:
        key = measurement.role, measurement.mode
        count[key] = count.get(key, 0) + 1
    assert count.pop(("cover", "profiled")) == count.pop(("cover", "plain")) >= 27
    assert count == {
        ("training", "plain"): 4,
        ("calibration", "plain"): 3,
        ("validation", "plain"): 2,
    }
    for measurement in found:
        assert measurement.subject.startswith("net:")
        assert measurement.genes
        assert [visit.round for visit in measurement.visits] == [0, 1, 2]
        assert measurement.visits[0].n_runs == 3
        assert measurement.visits[0].median_ns == 1_000_100


def test_both_modes_of_a_cover_network_share_one_program(server, bench, agent):
    profile(server)
    programs = {}
    for item in agent.hear("lease").items:
        programs.setdefault(item.program_sha256, []).append(item.mode)
    assert sorted(map(tuple, programs.values())) == sorted(
        [("plain",)] * 9 + [("profiled", "plain")] * (len(programs) - 9)
    )


def test_starting_the_same_campaign_again_returns_it(server, bench, agent):
    first = profile(server)
    assert profile(server) == first
    assert len(server.query.ListCampaigns(query_pb2.ListCampaignsRequest()).campaigns) == 1


def test_two_clients_may_start_the_same_campaign_at_once(server, bench, agent):
    found = []
    threads = [threading.Thread(target=lambda: found.append(profile(server))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [campaign.name for campaign in found] == ["p1", "p1"]
    assert found[0].n_tasks == found[1].n_tasks


def test_another_campaign_of_the_same_name_names_the_field(server, bench, agent):
    profile(server)
    other = query_pb2.ProfilePlan()
    other.CopyFrom(PLAN)
    other.seed = 2
    with bench.refused("ConflictError", "campaign 'p1' is there with plan.seed 1, not 2"):
        profile(server, plan=other)
    with bench.refused("ConflictError", "sampling.n_rounds 3, not 5"):
        profile(server, sampling=query_pb2.Sampling(n_rounds=5, warmup_runs=2, min_runs=5,
                min_duration_ns=50_000_000, timeout_ns=120_000_000_000))  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "code", "reason"),
    [
        ({"target": "moon"}, "NotFoundError", "no target 'moon'; there are: bench-ort"),
        ({"target": ""}, "InvalidInputError", "needs a target"),
        ({"name": "a b"}, "InvalidInputError", "campaign name 'a b'"),
        (
            {"profile": query_pb2.ProfilePlan(space="lisp", min_occurrences=1)},
            "NotFoundError",
            "no search space 'lisp'",
        ),
        (
            {"profile": query_pb2.ProfilePlan(space="digits")},
            "InvalidInputError",
            "min_occurrences must be 1 to 100, not 0",
        ),
        (
            {"measure": query_pb2.MeasurePlan()},
            "InvalidInputError",
            "at least one program",
        ),
        (
            {
                "measure": query_pb2.MeasurePlan(
                    programs=[query_pb2.MeasuredProgram(sha256="0" * 64)]
                )
            },
            "NotFoundError",
            "no program",
        ),
        ({"sampling": query_pb2.Sampling()}, "InvalidInputError", "n_rounds must be at least 1"),
    ],
)
def test_a_campaign_that_cannot_be_leaves_nothing(server, bench, agent, changes, code, reason):
    arguments = {"name": "p1", "target": "bench-ort", "profile": PLAN, **changes}
    if "measure" in changes:
        del arguments["profile"]
    with bench.refused(code, reason):
        server.query.StartCampaign(query_pb2.StartCampaignRequest(**arguments))
    assert not server.query.ListCampaigns(query_pb2.ListCampaignsRequest()).campaigns


def test_a_campaign_needs_a_plan(server, bench, agent):
    with bench.refused("InvalidInputError", "needs a plan"):
        server.query.StartCampaign(query_pb2.StartCampaignRequest(name="x", target="bench-ort"))


@pytest.mark.parametrize(
    "call", ["GetCampaign", "CancelCampaign", "ListMeasurements", "WatchCampaign"]
)
def test_a_campaign_that_is_not_there_is_not_found(server, bench, call):
    with bench.refused("NotFoundError", "no campaign 'nope'; there are: none yet"):
        answer = getattr(server.query, call)(query_pb2.CampaignRequest(name="nope"))
        list(answer)


def test_a_runtime_without_node_times_cannot_be_profiled_in_situ(server, bench):
    import dataclasses

    plain = dataclasses.replace(bench.capability, per_node_times=False)
    bench.attached(server, devices=(bench.device(runtimes=(plain,)),))
    bench.add_target(server)
    wanted = query_pb2.ProfilePlan()
    wanted.CopyFrom(PLAN)
    wanted.method = "in-situ"
    with bench.refused("RuntimeUnavailableError", "does not time single nodes; measure ops in ch"):
        profile(server, plan=wanted)


def test_watching_sees_a_campaign_from_start_to_end(server, bench, agent):
    bench.measure(server, n_tasks=2, n_rounds=2)
    watch = server.query.WatchCampaign(query_pb2.CampaignRequest(name="m1"), timeout=20)
    assert next(watch).n_visits_done == 0
    lease = agent.hear("lease")
    agent.report(lease, bench.visit(lease.items[0], 0))
    agent.hear("acknowledgement")
    assert next(watch).n_visits_done == 1
    for item in lease.items:
        agent.report(lease, *(bench.visit(item, number) for number in item.rounds))
        agent.hear("acknowledgement")
    agent.say(finished={"lease": bench.reference(lease)})
    done = [status.n_visits_done for status in watch]
    assert done == sorted(done)
    assert done[-1] == 4


def test_watching_ends_when_a_campaign_is_cancelled(server, bench, agent):
    bench.measure(server)
    watch = server.query.WatchCampaign(query_pb2.CampaignRequest(name="m1"), timeout=20)
    next(watch)
    server.query.CancelCampaign(query_pb2.CampaignRequest(name="m1"))
    assert [status.state for status in watch][-1] == query_pb2.CAMPAIGN_STATE_CANCELLED


def test_an_uploaded_program_is_measured_under_its_own_hash(server, bench, agent):
    bench.measure(server, n_tasks=1, n_rounds=1)
    agent.work(agent.hear("lease"))
    bench.finished(server)
    [found] = server.query.ListMeasurements(query_pb2.CampaignRequest(name="m1")).measurements
    sha256 = hashlib.sha256(b"program 0").hexdigest()
    assert (found.role, found.label, found.subject) == ("measured", "mine 0", f"program:{sha256}")
    assert not found.genes


def test_an_unexpected_error_tells_the_client_nothing(server, bench, monkeypatch, caplog):
    from latlas_coordinator.storage import SqlStore

    def leak(self):
        raise KeyError("the secret")

    monkeypatch.setattr(SqlStore, "list_targets", leak)
    with pytest.raises(grpc.RpcError) as caught:
        server.query.ListTargets(query_pb2.ListTargetsRequest())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details()
    assert "latlas-error" not in dict(caught.value.trailing_metadata())
    assert "KeyError: 'the secret'" in caplog.text
