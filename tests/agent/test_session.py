"""The session against a small coordinator that serves on loopback."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
import zlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from latlas_agent.download import ProgramDownload, _decompressed
from latlas_agent.lease import LeaseRunner, WorkerBench
from latlas_agent.outbox import Outbox
from latlas_agent.phone_presence import Presence
from latlas_agent.programs import ProgramCache
from latlas_agent.session import (
    CHANNEL_OPTIONS,
    AgentDescription,
    AgentSession,
)
from latlas_agent.supervisor import Job, WorkerSettings
from latlas_latency.measurement import Device, Target
from latlas_latency.wire import visit_from_message
from latlas_ops.errors import (
    ConflictError,
    CorruptProgramError,
    ProtocolError,
    UnreachableError,
)
from latlas_protos import PROTOCOL_VERSION
from latlas_protos.v1 import fleet_pb2

MakeJob = Callable[..., Job]
Coordinate = Callable[..., Any]


@pytest.fixture
def agent(tmp_path: Path, device: Device, settings: WorkerSettings) -> Callable[..., Any]:
    """`agent(address)`: an async context in which an agent stays attached; gives its run."""

    @asynccontextmanager
    async def attached(
        address: str,
        max_wait_s: float | None = None,
        new_outbox: Callable[[], Outbox] = Outbox,
    ) -> AsyncGenerator[asyncio.Task[None], None]:
        rng = random.Random(1)
        stop = asyncio.Event()
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            session = AgentSession(
                channel,
                address=address,
                description=AgentDescription("agent-1", "0.0"),
                new_epoch=itertools.count(42).__next__,
                runners=[
                    LeaseRunner(
                        device,
                        ProgramCache(tmp_path / "programs"),
                        ProgramDownload(channel, rng),
                        WorkerBench(settings),
                    )
                ],
                presence=Presence([device]),
                rng=rng,
                max_wait_s=max_wait_s,
                new_outbox=new_outbox,
            )
            running = asyncio.create_task(session.run(stop))
            try:
                yield running
            finally:
                stop.set()
                await asyncio.gather(running, return_exceptions=True)

    return attached


def play(coordinator: Coordinate, agent: Callable[..., Any], *scripts: Any, **options: Any) -> Any:
    """Lets an agent and a coordinator talk until the last script is done; gives the coordinator."""

    async def run() -> Any:
        async with coordinator(*scripts) as serving, agent(serving.address, **options) as running:
            finished = asyncio.create_task(serving.done.wait())
            await asyncio.wait({running, finished}, timeout=60, return_when="FIRST_COMPLETED")
            finished.cancel()
            if running.done():
                running.result()
            assert serving.done.is_set(), "the conversation did not come to its end"
            return serving

    return asyncio.run(run())


def test_an_agent_says_who_it_is_and_what_it_has(
    coordinator: Coordinate, agent: Callable[..., Any], device: Device
) -> None:
    async def script(stream: Any) -> None:
        stream.coordinator.done.set()

    hello = play(coordinator, agent, script).hellos[0]
    assert hello.protocol_version == PROTOCOL_VERSION
    assert (hello.agent_id, hello.epoch, hello.agent_version) == ("agent-1", 42, "0.0")
    assert [found.device_id for found in hello.devices] == [device.device_id]
    assert [found.runtime for found in hello.devices[0].runtimes] == ["onnxruntime", "misbehaving"]


def test_a_lease_is_measured_reported_and_finished(
    coordinator: Coordinate,
    agent: Callable[..., Any],
    make_job: MakeJob,
    digits_programs: list[Any],
) -> None:
    jobs = [
        make_job("plain", digits_programs[0], rounds=(0, 1)),
        make_job("profiled", digits_programs[1], rounds=(0, 1), mode="profiled"),
        make_job("broken", "raise", rounds=(0, 1)),
    ]

    async def script(stream: Any) -> None:
        await stream.welcome()
        await stream.send(lease=stream.coordinator.lease("lease-1", jobs, token=9))
        reports = await stream.reports(5)
        assert [report.sequence for report in reports] == [1, 2, 3, 4, 5]
        assert {(r.lease.lease_id, r.lease.fencing_token) for r in reports} == {("lease-1", 9)}
        visits = [visit_from_message(r.visit) for r in reports if r.HasField("visit")]
        assert sorted((visit.task_id, visit.round) for visit in visits) == [
            ("plain", 0),
            ("plain", 1),
            ("profiled", 0),
            ("profiled", 1),
        ]
        (failure,) = [r.failure for r in reports if r.HasField("failure")]
        assert (failure.task_id, failure.error_code) == ("broken", "MeasurementError")
        await stream.acknowledge(5)
        finished = await stream.receive("finished")
        assert finished.finished.lease.lease_id == "lease-1"
        stream.coordinator.done.set()

    play(coordinator, agent, script)


def test_leases_are_renewed_while_a_program_computes(
    coordinator: Coordinate, agent: Callable[..., Any], make_job: MakeJob
) -> None:
    jobs = [make_job("stuck", "hang")]

    async def script(stream: Any) -> None:
        await stream.welcome(interval_ns=50_000_000)
        await stream.send(lease=stream.coordinator.lease("lease-1", jobs, token=3))
        named = 0
        while named < 5:
            renewal = (await stream.receive("renewal")).renewal
            named += [(r.lease_id, r.fencing_token) for r in renewal.leases] == [("lease-1", 3)]
        stream.coordinator.done.set()

    play(coordinator, agent, script)


def test_what_was_not_committed_is_sent_again_after_a_broken_stream(
    coordinator: Coordinate, agent: Callable[..., Any], make_job: MakeJob
) -> None:
    jobs = [make_job("t1", "fine", rounds=range(4)), make_job("t2", "hang", rounds=(9,))]

    async def breaks(stream: Any) -> None:
        await stream.welcome()
        await stream.send(lease=stream.coordinator.lease("lease-1", jobs, token=3))
        await stream.reports(4)
        await stream.acknowledge(1)
        await stream.context.abort(grpc.StatusCode.UNAVAILABLE, "going down")

    async def resumes(stream: Any) -> None:
        held = [(r.lease_id, r.fencing_token) for r in stream.hello.held]
        assert held == [("lease-1", 3)]
        await stream.welcome(last_sequence=2)
        assert [report.sequence for report in await stream.reports(2)] == [3, 4]
        stream.coordinator.done.set()

    play(coordinator, agent, breaks, resumes)


def test_work_goes_on_while_the_coordinator_is_away(
    coordinator: Coordinate, agent: Callable[..., Any], make_job: MakeJob
) -> None:
    jobs = [make_job("t1", "slow", rounds=(0, 1, 2), min_runs=5)]

    async def leaves(stream: Any) -> None:
        await stream.welcome()
        await stream.send(lease=stream.coordinator.lease("lease-1", jobs))
        await stream.reports(1)

    async def is_away(stream: Any) -> None:
        await asyncio.sleep(2.0)

    async def comes_back(stream: Any) -> None:
        await stream.welcome(last_sequence=0)
        (batch,) = [await stream.reports(1)]
        assert [report.sequence for report in batch] == [1, 2, 3]
        await stream.receive("finished")
        stream.coordinator.done.set()

    play(coordinator, agent, leaves, is_away, comes_back)


def test_an_agent_starts_over_with_a_coordinator_whose_store_is_new(
    coordinator: Coordinate, agent: Callable[..., Any], make_job: MakeJob
) -> None:
    async def is_replaced(stream: Any) -> None:
        await stream.welcome()
        jobs = [make_job("t1", "fine"), make_job("t2", "hang", rounds=(1,))]
        await stream.send(lease=stream.coordinator.lease("lease-1", jobs))
        await stream.reports(1)
        await stream.acknowledge(1)
        await stream.receive("renewal")

    async def has_a_new_store(stream: Any) -> None:
        assert stream.hello.epoch == 42
        await stream.welcome(last_sequence=0)
        await asyncio.sleep(30)

    async def is_obeyed(stream: Any) -> None:
        assert stream.hello.epoch == 43
        assert list(stream.hello.held) == []
        await stream.welcome()
        await stream.send(lease=stream.coordinator.lease("lease-1", [make_job("t3", "fine")]))
        (report,) = await stream.reports(1)
        assert (report.sequence, report.visit.task_id) == (1, "t3")
        stream.coordinator.done.set()

    play(coordinator, agent, is_replaced, has_a_new_store, is_obeyed)


def test_the_end_of_a_lease_is_told_again_if_its_reports_were_not_acknowledged(
    coordinator: Coordinate, agent: Callable[..., Any], make_job: MakeJob
) -> None:
    jobs = [make_job("t1", "fine")]

    async def does_not_acknowledge(stream: Any) -> None:
        await stream.welcome()
        await stream.send(lease=stream.coordinator.lease("lease-1", jobs))
        await stream.receive("finished")

    async def acknowledges(stream: Any) -> None:
        assert [reference.lease_id for reference in stream.hello.held] == ["lease-1"]
        await stream.welcome(last_sequence=1)
        await stream.receive("finished")

    async def is_satisfied(stream: Any) -> None:
        assert list(stream.hello.held) == []
        stream.coordinator.done.set()

    play(coordinator, agent, does_not_acknowledge, acknowledges, is_satisfied)


def test_a_cancelled_lease_stops_its_worker_and_the_next_one_runs(
    coordinator: Coordinate,
    agent: Callable[..., Any],
    make_job: MakeJob,
    settings: WorkerSettings,
) -> None:
    stuck, fine = make_job("stuck", "hang"), make_job("fine", "fine")

    async def script(stream: Any) -> None:
        await stream.welcome()
        await stream.send(lease=stream.coordinator.lease("lease-1", [stuck]))
        await stream.send(lease=stream.coordinator.lease("lease-2", [fine], token=2))
        while not list(settings.scratch_dir.glob("*/running")):
            await asyncio.sleep(0.02)
        cancellation = fleet_pb2.LeaseCancellation(lease_id="lease-1", reason="not wanted")
        await stream.send(cancellation=cancellation)
        (report,) = await stream.reports(1)
        assert report.lease.lease_id == "lease-2"
        assert report.visit.task_id == "fine"
        while "lease-1" in [r.lease_id for r in (await stream.receive("renewal")).renewal.leases]:
            pass
        stream.coordinator.done.set()

    play(coordinator, agent, script)


def test_a_lease_that_is_sent_twice_is_carried_out_once(
    coordinator: Coordinate, agent: Callable[..., Any], make_job: MakeJob
) -> None:
    async def script(stream: Any) -> None:
        await stream.welcome()
        lease = stream.coordinator.lease("lease-1", [make_job("t1", "fine", rounds=(0, 1))])
        await stream.send(lease=lease)
        await stream.send(lease=lease)
        await stream.receive("finished")
        await asyncio.sleep(0.3)
        sent = [m.reports.reports for m in stream.received if m.WhichOneof("message") == "reports"]
        assert [report.sequence for batch in sent for report in batch] == [1, 2]
        stream.coordinator.done.set()

    play(coordinator, agent, script)


def test_a_full_outbox_holds_the_work_back_until_reports_are_acknowledged(
    coordinator: Coordinate, agent: Callable[..., Any], make_job: MakeJob
) -> None:
    async def script(stream: Any) -> None:
        await stream.welcome()
        jobs = [make_job("t1", "fine", rounds=range(3))]
        await stream.send(lease=stream.coordinator.lease("lease-1", jobs))
        for sequence in (1, 2, 3):
            (report,) = await stream.reports(1)
            assert report.sequence == sequence
            await stream.acknowledge(sequence)
        await stream.receive("finished")
        stream.coordinator.done.set()

    play(coordinator, agent, script, new_outbox=lambda: Outbox(max_bytes=1))


def test_tasks_that_cannot_run_here_fail_by_name_and_the_others_run(
    coordinator: Coordinate,
    agent: Callable[..., Any],
    make_job: MakeJob,
    word_target: Target,
) -> None:
    elsewhere = dataclasses.replace(word_target, device_model="another board")
    jobs = [
        make_job("elsewhere", "fine", target=elsewhere),
        make_job("format", "fine", program_format="tflite"),
        make_job("corrupt", "fine 1"),
        make_job("absent", "fine 2"),
        make_job("good", "fine 3"),
    ]

    async def script(stream: Any) -> None:
        await stream.welcome()
        lease = stream.coordinator.lease("lease-1", jobs)
        stream.coordinator.programs[jobs[2].task.program_sha256] = b"coffee"
        del stream.coordinator.programs[jobs[3].task.program_sha256]
        await stream.send(lease=lease)
        reports = await stream.reports(5)
        failed = {r.failure.task_id: r.failure for r in reports if r.HasField("failure")}
        assert {task_id: failure.error_code for task_id, failure in failed.items()} == {
            "elsewhere": "RuntimeUnavailableError",
            "format": "RuntimeUnavailableError",
            "corrupt": "CorruptProgramError",
            "absent": "NotFoundError",
        }
        assert "device_model" in failed["elsewhere"].reason
        assert [r.visit.task_id for r in reports if r.HasField("visit")] == ["good"]
        stream.coordinator.done.set()

    play(coordinator, agent, script)


def test_a_lease_for_another_device_fails(
    coordinator: Coordinate, agent: Callable[..., Any], make_job: MakeJob
) -> None:
    async def script(stream: Any) -> None:
        await stream.welcome()
        lease = stream.coordinator.lease("lease-1", [make_job("t1", "fine")])
        lease.device_id = "device-9"
        await stream.send(lease=lease)
        (report,) = await stream.reports(1)
        assert report.failure.error_code == "NotFoundError"
        stream.coordinator.done.set()

    play(coordinator, agent, script)


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "compressed"])
def test_a_broken_download_is_resumed_where_it_stopped(
    coordinator: Coordinate,
    agent: Callable[..., Any],
    make_job: MakeJob,
    digits_programs: list[Any],
    compress: bool,
) -> None:
    async def script(stream: Any) -> None:
        await stream.welcome()
        stream.coordinator.break_download_after = 50_000
        stream.coordinator.compress = compress
        lease = stream.coordinator.lease("lease-1", [make_job("t1", digits_programs[0])])
        await stream.send(lease=lease)
        (report,) = await stream.reports(1)
        assert report.visit.task_id == "t1"
        stream.coordinator.done.set()

    offsets = play(coordinator, agent, script).offsets
    assert len(offsets) == 2
    assert 0 == offsets[0] < offsets[1] <= 53_248


def test_a_compressed_piece_that_was_cut_is_corrupt() -> None:
    whole = zlib.compress(b"program" * 1000)
    piece = fleet_pb2.ProgramChunk(data=whole, total_bytes=7000, compressed=True)
    assert _decompressed(piece, "f" * 64) == b"program" * 1000
    for broken in (whole[:-5], whole + b"more", b"nonsense"):
        piece = fleet_pb2.ProgramChunk(data=broken, total_bytes=7000, compressed=True)
        with pytest.raises(CorruptProgramError, match="program ffffffffffff is corrupt: a piece"):
            _decompressed(piece, "f" * 64)


def test_a_coordinator_of_another_version_ends_the_agent(
    coordinator: Coordinate, agent: Callable[..., Any]
) -> None:
    async def script(stream: Any) -> None:
        await stream.send(welcome=fleet_pb2.Welcome(protocol_version=99))
        await asyncio.sleep(10)

    with pytest.raises(ProtocolError, match="speaks protocol version 99, this agent 1"):
        play(coordinator, agent, script)


def test_a_refusal_ends_the_agent_with_the_coordinator_s_words(
    coordinator: Coordinate, agent: Callable[..., Any]
) -> None:
    async def script(stream: Any) -> None:
        await stream.context.abort(
            grpc.StatusCode.FAILED_PRECONDITION,
            "a newer start of this agent is attached",
            (("latlas-error", "ConflictError"),),
        )

    with pytest.raises(ConflictError, match="a newer start of this agent is attached"):
        play(coordinator, agent, script)


def test_a_server_that_is_no_coordinator_ends_the_agent(agent: Callable[..., Any]) -> None:
    async def run() -> None:
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with agent(f"127.0.0.1:{port}") as running:
                await asyncio.wait_for(running, 30)
        finally:
            await server.stop(None)

    with pytest.raises(ProtocolError, match="no Latlas coordinator"):
        asyncio.run(run())


def test_an_agent_waits_no_longer_for_a_coordinator_than_it_is_told(
    agent: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with agent("127.0.0.1:1", max_wait_s=2.0) as running:
            await asyncio.wait_for(running, 30)

    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1 has not answered for 2 s"):
        asyncio.run(run())
    assert "trying again in" in caplog.text
