"""The coordinator and the agent of a quickstart: two real processes beside this one."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from latlas_ops.errors import ConflictError, UnreachableError

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class FleetAddresses:
    """Where the coordinator answers: `grpc` is `HOST:PORT`, `http` the web page's URL or None."""

    grpc: str
    http: str | None


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds the folder for one quickstart.

    Raises:
        ConflictError: another quickstart works in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"another quickstart works in {folder}; wait for it or give another --folder"
            ) from None
        yield


def _tie_to_parent() -> Callable[[], None] | None:
    """What a child calls first to be ended with the quickstart, even by SIGKILL; Linux only."""
    if sys.platform != "linux":
        return None
    return partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _running(command: list[str], log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_tie_to_parent(),  # noqa: PLW1509 - calls prctl and nothing else
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _await_file(path: Path, process: subprocess.Popen[bytes], what: str, log: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()):
            return text
        if process.poll() is not None:
            break
        time.sleep(0.05)
    tail = log.read_text(errors="replace").strip().splitlines()[-1:] or ["nothing"]
    raise UnreachableError(f"the {what} did not start; {log} says: {tail[0]}")


@contextmanager
def fleet(folder: Path) -> Iterator[FleetAddresses]:
    """A coordinator on its embedded store and an agent beside it, as long as the context lasts.

    Args:
        folder: holds the store, the agent's state and both logs.

    Raises:
        UnreachableError: one of the two did not start; the message quotes its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "coordinator.ready"
    ready.unlink(missing_ok=True)
    coordinator_log, agent_log = folder / "coordinator.log", folder / "agent.log"
    python = [sys.executable, "-m"]
    serve = [*python, "latlas.cli.main", "serve", "--database", str(folder / "latlas.db")]
    serve += ["--port", "0", "--http-port", "0", "--ready-file", str(ready)]
    with (
        coordinator_log.open("ab") as coordinator_stream,
        agent_log.open("ab") as agent_stream,
        _running(serve, coordinator_stream) as coordinator,
    ):
        text = _await_file(ready, coordinator, "coordinator", coordinator_log)
        addresses = FleetAddresses(**json.loads(text))
        agent = [*python, "latlas_agent.cli", "run", "--coordinator", addresses.grpc]
        agent += ["--state-dir", str(folder / "agent")]
        with _running(agent, agent_stream):
            yield addresses
