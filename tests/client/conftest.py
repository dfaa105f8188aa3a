"""Coordinators on loopback: small real gRPC servers that answer as the test says."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass

import grpc
import pytest

from latlas.lab import Lab, connect
from latlas_protos.v1 import measurement_pb2, query_pb2
from latlas_protos.v1.query_pb2_grpc import (
    QueryServiceServicer,
    add_QueryServiceServicer_to_server,
)


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
