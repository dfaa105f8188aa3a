"""Coordinators on loopback: small gRPC servers that answer as the test says, and a real fleet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from latlas.cli.main import main
from latlas.lab import Lab, connect
from latlas.records import Sampling
from latlas_protos.v1 import measurement_pb2, query_pb2
from latlas_protos.v1.query_pb2_grpc import (
    QueryServiceServicer,
    add_QueryServiceServicer_to_server,
)

START_S = 60.0


class Serve:
    """Starts and stops gRPC servers; call it with a servicer."""

    def __init__(self) -> None:
        self._servers: list[grpc.Server] = []

    def __call__(self, servicer: QueryServiceServicer, port: int = 0) -> str:
        """Starts a server and returns its `HOST:PORT`."""
        server = grpc.server(futures.ThreadPoolExecutor(4))
        add_QueryServiceServicer_to_server(servicer, server)
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        self._servers.append(server)
        return f"127.0.0.1:{bound}"

    def stop(self) -> None:
        """Stops every server at once, as a kill would."""
        for server in self._servers:
            server.stop(None).wait()
        self._servers.clear()


@pytest.fixture
def serve() -> Iterator[Serve]:
    starter = Serve()
    yield starter
    starter.stop()


@pytest.fixture
def lab_of(serve: Serve) -> Iterator[Callable[[QueryServiceServicer], Lab]]:
    """`lab_of(servicer)` is a `Lab` connected to it."""
    labs = []

    def open_lab(servicer: QueryServiceServicer) -> Lab:
        labs.append(connect(serve(servicer)))
        return labs[-1]

    yield open_lab
    for lab in labs:
        lab.close()


@pytest.fixture
def target_message() -> measurement_pb2.Target:
    return measurement_pb2.Target(
        name="pi5",
        device_model="Raspberry Pi 5",
        runtime="onnxruntime",
        runtime_version="1.32.0",
        provider="CPUExecutionProvider",
        power_mode="default",
        execution="eager",
        precision="fp32",
        graph_level="all",
        threads=4,
        cores=[0, 1],
        batch=1,
    )


@pytest.fixture
def running() -> query_pb2.Campaign:
    return query_pb2.Campaign(
        name="profile",
        target="pi5",
        space="digits",
        state=query_pb2.CAMPAIGN_STATE_RUNNING,
        created_ns=1_700_000_000_000_000_000,
        n_tasks=10,
        n_visits_wanted=30,
        n_visits_done=7,
    )


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def latlas(tmp_path) -> Callable[..., Ended]:
    """`latlas("space", "list")` runs the command line in a process of its own, in `tmp_path`."""

    def run(*args: object, **environment: str) -> Ended:
        done = subprocess.run(
            [sys.executable, "-m", "latlas.cli.main", *map(str, args)],
            cwd=tmp_path,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


def wait_for(condition, what):
    deadline = time.monotonic() + START_S
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


class Fleet:
    """A coordinator with its database in `folder`, and an agent that knows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.coordinator = self.agent = None
        self.address = ""
        self.port = 0

    def serve(self) -> None:
        ready = self.folder / "ready.json"
        ready.unlink(missing_ok=True)
        self.coordinator = self._start(
            "latlas.cli.main", "serve", "--database", "lab.db", "--port", self.port,
            "--http-port", "0", "--ready-file", ready,
        )  # fmt: skip
        wait_for(lambda: ready.exists() or self.coordinator.poll() is not None, "no coordinator")
        self.address = json.loads(ready.read_text())["grpc"]
        self.port = int(self.address.rpartition(":")[2])

    def join(self) -> None:
        self.agent = self._start(
            "latlas_agent.cli", "run", "--coordinator", self.address, "--state-dir", "agent"
        )
        with connect(self.address) as lab:
            wait_for(lambda: [state for state in lab.devices() if state.connected], "no device")

    def _start(self, module: str, *args: object) -> subprocess.Popen:
        with (self.folder / f"{module}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", module, *map(str, args)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill_coordinator(self) -> None:
        self.coordinator.kill()
        self.coordinator.wait()

    def stop(self) -> None:
        for process in (self.agent, self.coordinator):
            if process is not None:
                process.terminate()
                process.wait(20)


@pytest.fixture(scope="session")
def fleet(tmp_path_factory):
    """A coordinator, an agent, a target, a profiled space and a table."""
    running = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        running.serve()
        running.join()
        with connect(running.address) as lab:
            lab.add_target("here")
            lab.add_target("two-threads", threads=2)
            lab.start_profile(
                "profile",
                "digits",
                "here",
                n_training_networks=12,
                n_calibration_networks=6,
                n_validation_networks=6,
                min_occurrences=1,
                sampling=Sampling(
                    n_extra_rounds=0, warmup_runs=1, min_runs=2, min_duration_ns=5_000_000
                ),
            )
            *_, last = lab.watch("profile")
            assert last.state == "finished"
            assert not last.failed
            lab.build_table("digits-here", "profile")
        yield running
    finally:
        running.stop()


@pytest.fixture
def lab(fleet):
    with connect(fleet.address) as opened:
        yield opened


@pytest.fixture
def latlas_at(latlas, fleet):
    """`latlas_at("table", "list")` asks the coordinator of the fleet."""

    def run(*args):
        return latlas(*args, LATLAS_COORDINATOR=fleet.address)

    return run


@pytest.fixture
def typed(fleet, capsys, monkeypatch, tmp_path):
    """As `latlas_at`, but within this process, which is faster."""
    monkeypatch.setenv("LATLAS_COORDINATOR", fleet.address)
    monkeypatch.chdir(tmp_path)

    def run(*args):
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return Ended(code, *capsys.readouterr())

    return run
