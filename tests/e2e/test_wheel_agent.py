"""A board that holds the wheel with an agent's extra alone works for a coordinator elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import latlas
from latlas_ops import get_space

TWO_SHORT_ROUNDS = latlas.Sampling(
    n_rounds=2, n_extra_rounds=0, warmup_runs=1, min_runs=2, min_duration_ns=1_000_000
)


@contextmanager
def running(command: list[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the context; pytest shows what it logged if the test fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            sys.stdout.write(f"--- {log.name}\n{log.read_text(errors='replace')}")


def eventually(
    what: str, condition: Callable[[], bool], process: subprocess.Popen[bytes], limit_s: float = 120
) -> None:
    """Waits for what a process is to bring about, as long as it lives and `limit_s` at most."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, f"ended before {what}"
        assert time.monotonic() < deadline_s, f"not within {limit_s:g} s: {what}"
        time.sleep(0.1)


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[str]:
    """The address of a coordinator that runs from this environment."""
    ready = tmp_path / "coordinator.ready"
    command: list[str | Path] = [sys.executable, "-m", "latlas.cli.main", "serve"]
    command += ["--database", tmp_path / "latlas.db", "--ready-file", ready]
    command += ["--port", "0", "--http-port", "0"]
    with running(command, tmp_path / "coordinator.log") as process:
        eventually(
            "the coordinator is ready", lambda: ready.exists() and bool(ready.read_text()), process
        )
        yield json.loads(ready.read_text())["grpc"]


def test_a_board_with_the_wheel_measures_a_campaign(
    tmp_path: Path, agent_environment: Path, coordinator: str
) -> None:
    command: list[str | Path] = [agent_environment / "latlas-agent", "run"]
    command += ["--coordinator", coordinator, "--state-dir", tmp_path / "board"]
    with (
        running(command, tmp_path / "agent.log") as agent,
        latlas.connect(coordinator, wait_s=30) as lab,
    ):
        eventually("the board joins", lambda: any(s.connected for s in lab.devices()), agent)
        (board,) = lab.devices()

        lab.add_target("board-ort", runtime="onnxruntime")
        lab.start_profile(
            "a-few-networks",
            "digits",
            "board-ort",
            n_training_networks=2,
            n_calibration_networks=1,
            n_validation_networks=1,
            min_occurrences=1,
            sampling=TWO_SHORT_ROUNDS,
        )
        eventually(
            "the campaign ends", lambda: not lab.campaign("a-few-networks").is_running, agent
        )

        campaign = lab.campaign("a-few-networks")
        assert (campaign.state, campaign.failed) == ("finished", ())
        measured = lab.measurements("a-few-networks")
        assert {row.mode for row in measured} == {"plain", "profiled"}
        assert all(len(row.visits) == TWO_SHORT_ROUNDS.n_rounds for row in measured)
        assert all(visit.median_ns > 0 for row in measured for visit in row.visits)
        boards = {visit.device_id for row in measured for visit in row.visits}
        assert boards == {board.device.device_id}


def test_a_board_with_tflite_runtime_measures_model_files(
    tmp_path: Path, tflite_environment: Path, coordinator: str
) -> None:
    writer = pytest.importorskip(
        "latlas_ops.writers.tflite_writer", reason="the writer of TFLite models is missing"
    )
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert, which writes models, is missing")
    space = get_space("digits")
    models = [
        writer.write_tflite(space.network(arch)).model_bytes
        for arch in space.archs(space.sample(2, np.random.default_rng(1)))
    ]
    command: list[str | Path] = [tflite_environment / "latlas-agent", "run"]
    command += ["--coordinator", coordinator, "--state-dir", tmp_path / "board"]
    with (
        running(command, tmp_path / "agent.log") as agent,
        latlas.connect(coordinator, wait_s=30) as lab,
    ):
        eventually("the board joins", lambda: any(s.connected for s in lab.devices()), agent)
        (board,) = lab.devices()
        (runtime,) = board.device.runtimes
        assert (runtime.runtime, runtime.version) == ("tflite-runtime", "2.14.0")

        programs = [(lab.upload(model, "tflite"), f"network {i}") for i, model in enumerate(models)]
        for provider in ("xnnpack", "builtin"):
            lab.add_target(provider, runtime="tflite-runtime", provider=provider)
            lab.start_measure(provider, provider, programs, TWO_SHORT_ROUNDS)
            eventually("it ends", lambda name=provider: not lab.campaign(name).is_running, agent)
            assert (lab.campaign(provider).state, lab.campaign(provider).failed) == ("finished", ())
            measured = lab.measurements(provider)
            assert len(measured) == len(models)
            assert all(visit.median_ns > 0 for row in measured for visit in row.visits)
