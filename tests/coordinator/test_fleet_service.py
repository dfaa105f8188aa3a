"""The fleet service as an agent sees it, over a real socket."""

import random
import time
import zlib

import grpc
import pytest

from latlas_coordinator.scheduling import LeasePolicy
from latlas_protos.v1 import fleet_pb2, query_pb2


def devices(server):
    found = server.query.ListDevices(query_pb2.ListDevicesRequest()).devices
    return {state.device.device_id: state for state in found}


def eventually(condition, limit_s=10.0):
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_welcome_says_how_often_to_renew(server, bench, policy):
    welcome = bench.agent(server).hear("welcome")
    assert welcome.protocol_version == 1
    assert welcome.last_sequence == 0
    assert welcome.renewal_interval_ns == policy.duration_ns // 3


def test_a_campaign_is_measured_from_lease_to_end(server, bench):
    agent = bench.attached(server)
    bench.add_target(server)
    started = bench.measure(server, n_tasks=3, n_rounds=2)
    assert (started.n_tasks, started.n_visits_wanted, started.n_visits_done) == (3, 6, 0)
    lease = agent.hear("lease")
    assert lease.device_id == "device-a"
    assert [list(item.rounds) for item in lease.items] == [[0, 1]] * 3
    item = lease.items[0]
    assert (item.mode, item.program_format, item.program_bytes) == ("plain", "onnx", 9)
    assert (item.warmup_runs, item.min_runs, item.timeout_ns) == (1, 3, 10**9)
    assert item.target.provider == "CPUExecutionProvider"
    assert devices(server)["device-a"].busy_with == "m1"
    agent.work(lease)
    ended = bench.finished(server)
    assert ended.state == query_pb2.CAMPAIGN_STATE_FINISHED
    assert ended.n_visits_done == 6
    assert devices(server)["device-a"].busy_with == ""


def test_reports_sent_again_are_acknowledged_and_not_counted(server, bench):
    agent = bench.attached(server)
    bench.add_target(server)
    bench.measure(server)
    lease = agent.hear("lease")
    visits = [bench.visit(lease.items[0], number) for number in (0, 1)]
    agent.report(lease, *visits)
    assert agent.hear("acknowledgement").sequence == 2
    agent.report(lease, *visits, sequence=1)
    assert agent.hear("acknowledgement").sequence == 2
    assert bench.campaign(server).n_visits_done == 2


def test_a_broken_stream_is_taken_up_at_the_last_committed_sequence(server, bench):
    agent = bench.attached(server)
    bench.add_target(server)
    bench.measure(server, n_tasks=1, n_rounds=3)
    lease = agent.hear("lease")
    [item] = lease.items
    agent.report(lease, bench.visit(item, 0))
    agent.hear("acknowledgement")
    agent.break_stream()
    eventually(lambda: not devices(server)["device-a"].connected)
    again = bench.attached(server, held=(bench.reference(lease),))
    assert again.sequence == 1
    again.report(lease, bench.visit(item, 1), bench.visit(item, 2))
    assert again.hear("acknowledgement").sequence == 3
    again.say(finished=fleet_pb2.LeaseFinished(lease=bench.reference(lease)))
    assert bench.finished(server).n_visits_done == 3


def test_a_lease_that_never_arrived_is_given_anew_at_once(server, bench):
    agent = bench.attached(server)
    bench.add_target(server)
    bench.measure(server)
    first = agent.hear("lease")
    agent.break_stream()
    again = bench.attached(server, held=())
    second = again.hear("lease")
    assert second.fencing_token > first.fencing_token
    assert [item.task_id for item in second.items] == [item.task_id for item in first.items]


def test_a_newer_epoch_gives_up_its_leases_and_works_anew(server, bench):
    agent = bench.attached(server)
    bench.add_target(server)
    bench.measure(server, n_tasks=1, n_rounds=2)
    first = agent.hear("lease")
    agent.report(first, bench.visit(first.items[0], 0))
    agent.hear("acknowledgement")
    reborn = bench.attached(server, epoch=2)
    assert reborn.sequence == 0
    second = reborn.hear("lease")
    assert [list(item.rounds) for item in second.items] == [[1]]
    # What the older process still says is not heard any more.
    with pytest.raises(grpc.RpcError) as caught:
        agent.hear("acknowledgement")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    reborn.work(second)
    assert bench.finished(server).n_visits_done == 2


def test_an_older_epoch_is_refused(server, bench):
    bench.attached(server, epoch=5)
    with bench.refused("ConflictError", "known with epoch 5"):
        bench.agent(server, epoch=4).hear("welcome")


def test_reports_under_an_old_token_are_acknowledged_and_refused(server, bench):
    agent = bench.attached(server)
    bench.add_target(server)
    bench.measure(server, n_tasks=1, n_rounds=1)
    lease = agent.hear("lease")
    stale = fleet_pb2.Lease(lease_id=lease.lease_id, fencing_token=lease.fencing_token - 1)
    agent.report(stale, bench.visit(lease.items[0], 0))
    assert agent.hear("acknowledgement").sequence == 1
    assert bench.campaign(server).n_visits_done == 0
    agent.report(lease, bench.visit(lease.items[0], 0))
    assert agent.hear("acknowledgement").sequence == 2
    assert bench.campaign(server).n_visits_done == 1


def test_a_gap_in_the_sequence_ends_the_stream(server, bench):
    agent = bench.attached(server)
    bench.add_target(server)
    bench.measure(server)
    lease = agent.hear("lease")
    agent.report(lease, bench.visit(lease.items[0], 0), sequence=3)
    with bench.refused("ProtocolError", "sent report 3 where 1 was due"):
        agent.hear("acknowledgement")


def test_a_malformed_visit_counts_as_a_failure_of_its_task(server, bench):
    agent = bench.attached(server)
    bench.add_target(server)
    bench.measure(server, n_tasks=1, n_rounds=1)
    for attempt in (1, 2):
        lease = agent.hear("lease")
        broken = fleet_pb2.Report(
            sequence=attempt,
            lease=bench.reference(lease),
            visit={"task_id": lease.items[0].task_id, "device_id": "device-a", "mode": "plain"},
        )
        agent.say(reports=fleet_pb2.ReportBatch(reports=[broken]))
        assert agent.hear("acknowledgement").sequence == attempt
        agent.say(finished=fleet_pb2.LeaseFinished(lease=bench.reference(lease)))
    [failed] = bench.finished(server).failed
    assert failed.error_code == "InvalidInputError"
    assert "malformed visit" in failed.reason


def test_a_task_that_fails_twice_is_given_up_and_the_campaign_finishes(server, bench):
    agent = bench.attached(server)
    bench.add_target(server)
    bench.measure(server, n_tasks=2, n_rounds=1)
    lease = agent.hear("lease")
    good, bad = lease.items
    crash = fleet_pb2.TaskFailure(
        task_id=bad.task_id, error_code="MeasurementError", reason="the worker crashed"
    )
    agent.report(lease, bench.visit(good, 0), crash)
    agent.hear("acknowledgement")
    agent.say(finished=fleet_pb2.LeaseFinished(lease=bench.reference(lease)))
    retry = agent.hear("lease")
    assert [item.task_id for item in retry.items] == [bad.task_id]
    assert bench.campaign(server).state == query_pb2.CAMPAIGN_STATE_RUNNING
    agent.report(retry, crash)
    agent.hear("acknowledgement")
    agent.say(finished=fleet_pb2.LeaseFinished(lease=bench.reference(retry)))
    ended = bench.finished(server)
    assert ended.state == query_pb2.CAMPAIGN_STATE_FINISHED
    assert (ended.n_visits_wanted, ended.n_visits_done) == (1, 1)
    [failed] = ended.failed
    assert (failed.label, failed.error_code, failed.reason) == (
        "mine 1",
        "MeasurementError",
        "the worker crashed",
    )


def test_an_agent_that_ends_leases_without_work_is_not_leased_to_for_ever(server, bench):
    agent = bench.attached(server)
    bench.add_target(server)
    bench.measure(server, n_tasks=1)
    for _ in range(2):
        lease = agent.hear("lease")
        agent.say(finished=fleet_pb2.LeaseFinished(lease=bench.reference(lease)))
    [failed] = bench.finished(server).failed
    assert failed.reason == "device device-a ended its lease without this task"


def test_two_boards_of_one_model_share_a_campaign(server, bench):
    first = bench.attached(server, agent_id="a", devices=(bench.device("board-a"),))
    second = bench.attached(server, agent_id="b", devices=(bench.device("board-b"),))
    bench.add_target(server)
    bench.measure(server, n_tasks=4, n_rounds=2)
    leases = [first.hear("lease"), second.hear("lease")]
    assert sorted(lease.device_id for lease in leases) == ["board-a", "board-b"]
    pairs = [(i.task_id, r) for lease in leases for i in lease.items for r in i.rounds]
    assert len(pairs) == len(set(pairs)) == 8
    first.work(leases[0])
    second.work(leases[1])
    assert bench.finished(server).n_visits_done == 8


def test_one_agent_may_bring_several_devices(server, bench):
    boards = (bench.device("board-a"), bench.device("board-b"))
    agent = bench.attached(server, devices=boards)
    bench.add_target(server)
    bench.measure(server, n_tasks=2, n_rounds=1)
    assert {agent.hear("lease").device_id, agent.hear("lease").device_id} == {
        "board-a",
        "board-b",
    }


def test_a_cancelled_campaign_is_taken_from_its_device(server, bench):
    agent = bench.attached(server)
    bench.add_target(server)
    bench.measure(server)
    lease = agent.hear("lease")
    cancelled = server.query.CancelCampaign(query_pb2.CampaignRequest(name="m1"))
    assert cancelled.state == query_pb2.CAMPAIGN_STATE_CANCELLED
    assert agent.hear("cancellation").lease_id == lease.lease_id
    agent.report(lease, bench.visit(lease.items[0], 0))
    assert agent.hear("acknowledgement").sequence == 1
    assert bench.campaign(server).n_visits_done == 0


def test_renewals_extend_what_is_held_and_cancel_what_is_not(server, bench):
    agent = bench.attached(server)
    bench.add_target(server)
    bench.measure(server)
    lease = agent.hear("lease")
    unknown = fleet_pb2.LeaseReference(lease_id="nonsense", fencing_token=1)
    agent.say(renewal=fleet_pb2.LeaseRenewal(leases=[bench.reference(lease), unknown]))
    extension = agent.hear("extension")
    assert extension.lease_id == lease.lease_id
    assert extension.deadline_ns > lease.deadline_ns
    assert agent.hear("cancellation").lease_id == "nonsense"


def test_an_agent_that_ends_its_side_is_gone(server, bench):
    agent = bench.attached(server)
    assert devices(server)["device-a"].connected
    agent.end()
    eventually(lambda: not devices(server)["device-a"].connected)


def test_a_device_that_is_connected_elsewhere_is_refused(server, bench):
    bench.attached(server, agent_id="a")
    with bench.refused("ConflictError", "device device-a is connected through agent a"):
        bench.agent(server, agent_id="b").hear("welcome")


def test_another_protocol_version_is_refused(server, bench):
    with bench.refused("ProtocolError", "speaks protocol version 9, this coordinator 1"):
        bench.agent(server, protocol_version=9).hear("welcome")


def test_an_agent_without_a_device_is_refused(server, bench):
    with bench.refused("InvalidInputError", "brings no device"):
        bench.agent(server, devices=()).hear("welcome")


def test_a_stream_must_begin_with_a_hello(server, bench):
    message = fleet_pb2.AgentMessage(renewal=fleet_pb2.LeaseRenewal())
    with bench.refused("ProtocolError", "must be a hello"):
        list(server.fleet.Attach(iter([message])))
    with bench.refused("ProtocolError", "ended before a hello"):
        list(server.fleet.Attach(iter([])))


def plain(chunk):
    return zlib.decompress(chunk.data) if chunk.compressed else chunk.data


@pytest.mark.parametrize("shrinks", [True, False], ids=["compressible", "incompressible"])
def test_programs_come_in_chunks_from_any_offset(server, bench, shrinks):
    data = bytes(range(256)) * 10_000 if shrinks else random.Random(0).randbytes(2_560_000)
    sha256 = bench.upload(server, data)
    for offset in (0, 1_500_000):
        request = fleet_pb2.DownloadProgramRequest(sha256=sha256, offset_bytes=offset)
        chunks = list(server.fleet.DownloadProgram(request))
        assert b"".join(map(plain, chunks)) == data[offset:]
        assert {chunk.compressed for chunk in chunks} == {shrinks}
        assert {chunk.total_bytes for chunk in chunks} == {len(data)}
    beyond = fleet_pb2.DownloadProgramRequest(sha256=sha256, offset_bytes=len(data) + 1)
    with bench.refused("InvalidInputError", "has 2560000 bytes"):
        list(server.fleet.DownloadProgram(beyond))
    with bench.refused("NotFoundError", "no program"):
        list(server.fleet.DownloadProgram(fleet_pb2.DownloadProgramRequest(sha256="0" * 64)))


def test_more_agents_than_are_let_in_at_once_may_join(server, bench):
    n_agents = 100
    agents = [
        bench.agent(server, agent_id=f"a{i}", devices=(bench.device(f"d{i}"),))
        for i in range(n_agents)
    ]
    for agent in agents:
        agent.hear("welcome")
    bench.add_target(server)
    bench.measure(server, n_tasks=n_agents, n_rounds=1)
    for agent in agents:
        agent.work(agent.hear("lease"))
    assert bench.finished(server).n_visits_done == n_agents


class TestShortLeases:
    """Leases of one second."""

    @pytest.fixture
    def policy(self):
        return LeasePolicy(duration_ns=1_000_000_000)

    def test_a_device_that_is_gone_loses_its_lease_to_another_after_the_deadline(
        self, server, bench
    ):
        lost = bench.attached(server, agent_id="a", devices=(bench.device("board-a"),))
        bench.add_target(server)
        bench.measure(server, n_tasks=1, n_rounds=2)
        lease = lost.hear("lease")
        lost.report(lease, bench.visit(lease.items[0], 0, "board-a"))
        lost.hear("acknowledgement")
        lost.break_stream()
        other = bench.attached(server, agent_id="b", devices=(bench.device("board-b"),))
        assert other.hears_nothing(for_s=0.3)
        second = other.hear("lease")
        # The round that has a visit is not measured again.
        assert [list(item.rounds) for item in second.items] == [[1]]
        other.work(second)
        assert bench.finished(server).n_visits_done == 2

    def test_a_lease_that_is_renewed_is_kept_beyond_its_deadline(self, server, bench):
        agent = bench.attached(server)
        bench.add_target(server)
        bench.measure(server, n_tasks=1)
        lease = agent.hear("lease")
        for _ in range(6):
            agent.say(renewal=fleet_pb2.LeaseRenewal(leases=[bench.reference(lease)]))
            assert agent.hear("extension").lease_id == lease.lease_id
            time.sleep(0.3)
        agent.work(lease)
        assert bench.finished(server).n_visits_done == 2

    def test_a_silent_device_is_told_that_its_lease_is_lost(self, server, bench):
        agent = bench.attached(server)
        bench.add_target(server)
        bench.measure(server, n_tasks=1, n_rounds=1)
        lease = agent.hear("lease")
        messages = {agent.hear_any(), agent.hear_any()}
        assert messages == {"cancellation", "lease"}
        agent.report(lease, bench.visit(lease.items[0], 0))
        assert agent.hear("acknowledgement").sequence == 1
        assert bench.campaign(server).n_visits_done == 0
