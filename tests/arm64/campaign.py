"""A coordinator on this machine, an agent in the emulated userland, a campaign on each runtime.

Started by `run.sh` with its cache folder as the only argument. Exits with 1 and a line that says
why if anything is not as it should be; logs stay in the folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

import latlas
from latlas_ops import get_space
from latlas_ops.writers.tflite_writer import write_tflite

SAMPLING = latlas.Sampling(
    n_rounds=2,
    n_extra_rounds=0,
    warmup_runs=1,
    min_runs=2,
    min_duration_ns=1_000_000,
    timeout_ns=600_000_000_000,
)
INSIDE = Path(__file__).with_name("inside.sh")
JOIN_S, CAMPAIGN_S = 300.0, 1200.0


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the context, what it says in a file."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait(
    what: str, condition: Callable[[], bool], process: subprocess.Popen[bytes], limit_s: float
) -> None:
    """Until the condition holds, as long as the process lives and for `limit_s` at most."""
    deadline_s = time.monotonic() + limit_s
    while not condition():
        check(process.poll() is None, f"a process ended before {what}")
        check(time.monotonic() < deadline_s, f"not within {limit_s:g} s: {what}")
        time.sleep(0.2)


def check(holds: bool, otherwise: str) -> None:
    """Ends the program with a reason unless something holds."""
    if not holds:
        raise SystemExit(f"error: {otherwise}")


def follow(lab: latlas.Lab, name: str, agent: subprocess.Popen[bytes]) -> list[latlas.Measurement]:
    """What a campaign measured, when all of it has been."""
    begun_s = time.monotonic()
    wait(f"{name} ends", lambda: not lab.campaign(name).is_running, agent, CAMPAIGN_S)
    status, rows = lab.campaign(name), lab.measurements(name)
    check(status.state == "finished", f"{name} is {status.state}")
    check(not status.failed, f"{name}: {[task.reason for task in status.failed][:1]}")
    visits = [visit.median_ns for row in rows for visit in row.visits]
    check(len(visits) == SAMPLING.n_rounds * len(rows) > 0, f"{name} lacks visits")
    check(min(visits) > 0, f"{name} holds a visit without a duration")
    networks_ms = [row.latency_ms or 0.0 for row in rows if row.mode == "plain"]
    print(f"  {name}: finished, {len(visits)} visits in {time.monotonic() - begun_s:.0f} s")
    print(f"    {min(networks_ms):.0f} to {max(networks_ms):.0f} ms a network: the emulator's time")
    return rows


def main(cache: Path) -> None:
    """Runs it all."""
    logs = {who: cache / f"{who}.log" for who in ("coordinator", "agent")}
    with tempfile.TemporaryDirectory() as scratch:
        ready = Path(scratch) / "ready.json"
        serve = [sys.executable, "-m", "latlas.cli.main", "serve", "--port", "0"]
        serve += ["--http-port", "0", "--database", f"{scratch}/latlas.db"]
        serve += ["--ready-file", str(ready)]
        run = ["nice", "-n", "10", "sh", str(INSIDE), str(cache), "/opt/latlas/bin/latlas-agent"]
        run += ["run", "--state-dir", f"/tmp/agent-{os.getpid()}", "--coordinator"]
        with running(serve, logs["coordinator"]) as coordinator:
            wait(
                "the coordinator serves",
                lambda: ready.exists() and bool(ready.read_text()),
                coordinator,
                60,
            )
            address = json.loads(ready.read_text())["grpc"]
            with (
                running([*run, address], logs["agent"]) as agent,
                latlas.connect(address, wait_s=30) as lab,
            ):
                measure(lab, agent)
            check(agent.returncode == 0, f"the agent ended with {agent.returncode}")
    print("  the agent left when it was told to")


def measure(lab: latlas.Lab, agent: subprocess.Popen[bytes]) -> None:
    """Waits for the board, looks at what it says of itself, and has both runtimes measure."""
    wait("the board joins", lambda: any(s.connected for s in lab.devices()), agent, JOIN_S)
    (board,) = lab.devices()
    device = board.device
    versions = {one.runtime: one.version for one in device.runtimes}
    print(f"  joined: {device.architecture}, {device.operating_system}, {versions}")
    check(device.architecture == "aarch64", f"the board says it is {device.architecture}")
    check({"onnxruntime", "litert"} <= set(versions), "a runtime is missing; see agent.log")

    space = get_space("digits")
    lab.add_target("emulated-ort", runtime="onnxruntime")
    lab.start_profile(
        "onnxruntime-digits",
        "digits",
        "emulated-ort",
        n_training_networks=2,
        n_calibration_networks=1,
        n_validation_networks=1,
        min_occurrences=1,
        resolutions=space.resolutions[:1],
        sampling=SAMPLING,
    )
    rows = follow(lab, "onnxruntime-digits", agent)
    check({row.mode for row in rows} == {"plain", "profiled"}, "no single nodes were timed")

    archs = space.archs(space.sample(2, np.random.default_rng(1)))
    models = [write_tflite(space.network(arch)).model_bytes for arch in archs]
    lab.add_target("emulated-litert", runtime="litert")
    programs = [(lab.upload(model, "tflite"), f"network {i}") for i, model in enumerate(models)]
    lab.start_measure("litert-networks", "emulated-litert", programs, SAMPLING)
    follow(lab, "litert-networks", agent)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
