"""The whole agent as a process of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latlas_agent.supervisor import Job
from latlas_latency.measurement import Target
from latlas_latency.wire import device_from_message, visit_from_message

COMMAND = [sys.executable, "-m", "latlas_agent.cli", "run"]


async def start(*arguments: str, environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, env=environment, stderr=asyncio.subprocess.PIPE
    )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_agent_attaches_measures_and_ends_cleanly(
    tmp_path: Path,
    coordinator: Callable[..., Any],
    worker_environment: dict[str, str],
    make_job: Callable[..., Job],
    onnx_target: Target,
    word_target: Target,
    digits_programs: list[Any],
    how: signal.Signals,
) -> None:
    state = tmp_path / "state"
    core = max(os.sched_getaffinity(0))

    async def script(stream: Any) -> None:
        await stream.welcome()
        device = device_from_message(stream.hello.devices[0])
        here = {"device_model": device.device_model, "power_mode": device.power_mode}
        jobs = [
            make_job("t1", digits_programs[0], target=dataclasses.replace(onnx_target, **here)),
            make_job("t2", "hang", target=dataclasses.replace(word_target, **here)),
        ]
        lease = stream.coordinator.lease("lease-1", jobs)
        lease.device_id = device.device_id
        await stream.send(lease=lease)
        (report,) = await stream.reports(1)
        assert visit_from_message(report.visit).task_id == "t1"
        while not list(state.glob("workers/*/running")):
            await asyncio.sleep(0.02)
        stream.coordinator.done.set()
        await asyncio.sleep(30)

    async def run() -> Any:
        async with coordinator(script) as serving:
            arguments = ["--coordinator", serving.address, "--state-dir", str(state)]
            arguments += ["--name", "shelf 3", "--cores", str(core)]
            process = await start(*arguments, environment=worker_environment)
            try:
                await asyncio.wait_for(serving.done.wait(), 60)
                process.send_signal(how)
                _, errors = await asyncio.wait_for(process.communicate(), 20)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            return serving.hellos[0], process.returncode, errors.decode()

    hello, status, errors = asyncio.run(run())
    assert status == 0, errors
    assert "Traceback" not in errors
    assert list(state.glob("workers/*")) == []
    (device,) = hello.devices
    assert device.host_name == "shelf 3"
    assert device.device_model
    runtimes = {found.runtime for found in device.runtimes}
    assert runtimes == {"onnxruntime", "litert", "misbehaving", "torch"}
    kept = json.loads((state / "identity.json").read_text())
    assert (kept["agent_id"], kept["device_id"]) == (hello.agent_id, device.device_id)
    assert int((state / "epoch").read_text()) == hello.epoch


def test_an_agent_without_a_coordinator_says_so_and_gives_up_with_exit_code_2(
    tmp_path: Path, worker_environment: dict[str, str]
) -> None:
    async def run() -> tuple[int | None, str]:
        arguments = ["--coordinator", "127.0.0.1:1", "--state-dir", str(tmp_path / "state")]
        process = await start(*arguments, "--max-wait", "1", environment=worker_environment)
        _, errors = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode, errors.decode()

    status, errors = asyncio.run(run())
    assert status == 2
    assert "trying again in" in errors
    assert errors.splitlines()[-1].startswith(
        "latlas-agent: coordinator 127.0.0.1:1 has not answered for 1 s"
    )
