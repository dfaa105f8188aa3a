"""A campaign end to end: real coordinator, agent and adb, each a process; two made-up phones."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from latlas.cli.main import main
from latlas.lab import Lab, connect
from latlas.records import Sampling

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0
RUN = [sys.executable, "-m"]


@contextmanager
def running(command: list[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, **options)
    with process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            finally:
                process.kill()


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.1)
    return value


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[str]:
    ready = tmp_path / "ready"
    serve = [*RUN, "latlas.cli.main", "serve", "--database", str(tmp_path / "latlas.db")]
    serve += ["--port", "0", "--http-port", "0", "--ready-file", str(ready)]
    with running(serve, tmp_path / "coordinator.log"):
        wait_for(lambda: ready.exists() and ready.read_text(), "the coordinator")
        yield json.loads(ready.read_text())["grpc"]


def connected(lab: Lab) -> list[str]:
    return [state.device.host_name for state in lab.devices() if state.connected]


def test_a_campaign_outlives_a_phone_that_is_unplugged(
    coordinator: str,
    make_phone: Callable[..., Any],
    adb_environment: dict[str, str],
    tool: Path,
    tmp_path: Path,
    tflite_model: Callable[..., bytes],
) -> None:
    stays, goes = make_phone("A1", "shell_v2"), make_phone("B2")
    goes.behave('touch "$here/running"; sleep 600')
    log = tmp_path / "agent.log"
    agent = [*RUN, "latlas_agent.cli", "run", "--coordinator", coordinator, "--adb"]
    agent += ["--benchmark-model", str(tool), "--state-dir", str(tmp_path / "agent")]
    with (
        connect(coordinator, wait_s=PATIENCE_S) as lab,
        running(agent, log, env=adb_environment) as process,
    ):
        wait_for(lambda: len(connected(lab)) == 2, "two phones")

        target = ["target", "add", "rocket", "--runtime", "tflite-benchmark-builtin"]
        assert main([*target, "--cores", "4,5", "--coordinator", coordinator]) == 0
        programs = [
            (lab.upload(tflite_model(operator), "tflite"), operator)
            for operator in ("RELU", "TANH", "LOGISTIC", "ABS")
        ]
        lab.start_measure("own", "rocket", programs, with_nodes=True, sampling=Sampling(3))
        goes.await_file("running")
        goes.unplug()
        wait_for(lambda: len(connected(lab)) == 1, "one phone less")
        *_, last = lab.watch("own")
        assert last.state == "finished", log.read_text()
        assert not last.failed
        rows = lab.measurements("own")
        assert {row.mode for row in rows} == {"plain", "profiled"}
        assert all(len(row.visits) == 3 for row in rows)
        assert {visit.median_ns for row in rows for visit in row.visits} == {1_020_000, 1_104_500}
        assert f"phone {goes.serial} is gone" in log.read_text()
        goes.behave("")
        goes.plug()
        wait_for(lambda: len(connected(lab)) == 2, "the phone that came back")
        assert process.poll() is None
    assert process.returncode == 0
    assert "Traceback" not in log.read_text()
    assert set((stays.home / "masks").read_text().split()) == {"30"}
