"""A session with several devices, of which some go away and come back."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import pytest

from latlas_agent.download import ProgramDownload
from latlas_agent.lease import DeviceGoneError, LeaseRunner
from latlas_agent.phone_presence import Presence
from latlas_agent.programs import ProgramCache
from latlas_agent.session import CHANNEL_OPTIONS, AgentDescription, AgentSession
from latlas_agent.supervisor import Job
from latlas_agent.tasks import Failure
from latlas_latency.measurement import WHOLE_NETWORK, Device, Series, Target, Visit

MakeJob = Callable[..., Job]


class ScriptedBench:
    """Measures nothing: task `gone` takes its device away, `wait` waits for the other device."""

    def __init__(self, device_id: str) -> None:
        self.device_id = device_id
        self.met = asyncio.Event()
        self.others: list[ScriptedBench] = []

    def check(self, target: Target) -> None:
        pass

    async def measure(
        self, jobs: Sequence[Job], seed: int
    ) -> AsyncGenerator[Visit | Failure, None]:
        self.met.set()
        for job in jobs:
            task_id = job.task.task_id
            if task_id.startswith("gone"):
                error = DeviceGoneError(f"{self.device_id} is gone")
                yield Failure.of(task_id, error)
                raise error
            if task_id.startswith("wait"):
                for other in self.others:
                    await other.met.wait()
            if task_id.startswith("hang"):
                await asyncio.sleep(3600)
            samples = (Series(WHOLE_NETWORK, np.array([5])),)
            yield Visit(task_id, self.device_id, 0, "plain", 1, 5, 0, samples)


@pytest.fixture
def devices(device: Device) -> list[Device]:
    return [device, dataclasses.replace(device, device_id="device-2")]


def play(coordinator: Any, devices: list[Device], folder: Path, *scripts: Any) -> Any:
    """Lets a session with several devices and a coordinator talk until the last script is done."""

    async def run() -> Any:
        async with coordinator(*scripts) as serving:
            async with grpc.aio.insecure_channel(
                serving.address, options=CHANNEL_OPTIONS
            ) as channel:
                rng = random.Random(1)
                serving.presence = Presence(devices)
                benches = [ScriptedBench(device.device_id) for device in devices]
                for bench in benches:
                    bench.others = [other for other in benches if other is not bench]
                session = AgentSession(
                    channel,
                    address=serving.address,
                    description=AgentDescription("agent-1", "0.0"),
                    new_epoch=itertools.count(42).__next__,
                    runners=[
                        LeaseRunner(
                            device,
                            ProgramCache(folder / device.device_id),
                            ProgramDownload(channel, rng),
                            bench,
                        )
                        for device, bench in zip(devices, benches, strict=True)
                    ],
                    presence=serving.presence,
                    rng=rng,
                )
                running = asyncio.create_task(session.run(asyncio.Event()))
                finished = asyncio.create_task(serving.done.wait())
                await asyncio.wait({running, finished}, timeout=60, return_when="FIRST_COMPLETED")
                over = serving.done.is_set()
                for task in (running, finished):
                    task.cancel()
                results = await asyncio.gather(running, finished, return_exceptions=True)
                assert over, results
            return serving

    return asyncio.run(run())


def lease(stream: Any, number: int, device_id: str, jobs: list[Job]) -> Any:
    made = stream.coordinator.lease(f"lease-{number}", jobs, token=number)
    made.device_id = device_id
    return made


def names(stream: Any) -> list[str]:
    return [device.device_id for device in stream.hello.devices]


def test_devices_work_side_by_side(
    coordinator: Any, devices: list[Device], make_job: MakeJob, tmp_path: Path
) -> None:
    async def script(stream: Any) -> None:
        assert names(stream) == ["device-1", "device-2"]
        await stream.welcome()
        # Each of the two comes to its end only if the other one has begun.
        await stream.send(lease=lease(stream, 1, "device-1", [make_job("wait 1", "fine")]))
        await stream.send(lease=lease(stream, 2, "device-2", [make_job("wait 2", "fine")]))
        reports = await stream.reports(2)
        assert {report.visit.device_id for report in reports} == {"device-1", "device-2"}
        stream.coordinator.done.set()

    play(coordinator, devices, tmp_path, script)


def test_a_device_that_goes_gives_its_lease_back_and_the_others_go_on(
    coordinator: Any, devices: list[Device], make_job: MakeJob, tmp_path: Path
) -> None:
    async def script(stream: Any) -> None:
        await stream.welcome()
        await stream.send(lease=lease(stream, 1, "device-1", [make_job("hang", "fine")]))
        await stream.receive("renewal")
        jobs = [make_job("fine", "fine"), make_job("gone", "fine 1"), make_job("left", "fine 2")]
        await stream.send(lease=lease(stream, 2, "device-2", jobs))
        reports = await stream.reports(2)
        assert reports[0].visit.task_id == "fine"
        assert reports[1].failure.task_id == "gone"
        assert reports[1].failure.error_code == "MeasurementError"
        assert reports[1].failure.reason == "device-2 is gone"
        await stream.acknowledge(2)
        await asyncio.sleep(30)

    async def without_it(stream: Any) -> None:
        assert names(stream) == ["device-1"]
        assert [reference.lease_id for reference in stream.hello.held] == ["lease-1"]
        await stream.welcome(last_sequence=2)
        stream.coordinator.presence.regain(devices[1])
        await asyncio.sleep(30)

    async def with_it_again(stream: Any) -> None:
        assert set(names(stream)) == {"device-1", "device-2"}
        await stream.welcome(last_sequence=2)
        await stream.send(lease=lease(stream, 3, "device-2", [make_job("left", "fine 2")]))
        (report,) = await stream.reports(1)
        assert (report.sequence, report.visit.task_id) == (3, "left")
        stream.coordinator.done.set()

    serving = play(coordinator, devices, tmp_path, script, without_it, with_it_again)
    assert [hello.epoch for hello in serving.hellos] == [42, 42, 42]


def test_an_agent_whose_only_device_is_gone_attaches_when_it_is_back(
    coordinator: Any, device: Device, make_job: MakeJob, tmp_path: Path
) -> None:
    gone_for_s = 1.5
    times_s: list[float] = []

    async def script(stream: Any) -> None:
        await stream.welcome()
        await stream.send(lease=lease(stream, 1, "device-1", [make_job("gone", "fine")]))
        await stream.reports(1)
        times_s.append(asyncio.get_running_loop().time())
        presence = stream.coordinator.presence
        asyncio.get_running_loop().call_later(gone_for_s, presence.regain, device)
        await stream.acknowledge(1)
        await asyncio.sleep(30)

    async def comes_back(stream: Any) -> None:
        times_s.append(asyncio.get_running_loop().time())
        assert names(stream) == ["device-1"]
        assert list(stream.hello.held) == []
        stream.coordinator.done.set()

    play(coordinator, [device], tmp_path, script, comes_back)
    assert times_s[1] - times_s[0] >= gone_for_s
