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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from latlas_ops.errors import ConflictError, InvalidInputError, UnreachableError

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_LOCK_SECONDS = 20.0
_PR_SET_PDEATHSIG = 1


class Fleet:
    """A coordinator and an agent that run.

    Attributes:
        grpc: `HOST:PORT` of the coordinator.
        http: `HOST:PORT` of its web page.
    """

    def __init__(self, grpc: str, http: str, members: Mapping[str, _Member]) -> None:
        self.grpc, self.http = grpc, http
        self._members = members

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of `coordinator` and `agent`."""
        return {name: member.process.pid for name, member in self._members.items()}

    def require_running(self) -> None:
        """Raises `UnreachableError`, quoting its log, if one of the two has ended."""
        for name, member in self._members.items():
            if member.process.poll() is not None:
                raise UnreachableError(f"the {name} ended; {member.last_words()}")


@dataclass(frozen=True)
class _Member:
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"{self.log} says: {lines[-1] if lines else 'nothing'}"


@contextmanager
def exclusive(folder: Path, stream: TextIO) -> Iterator[int]:
    """Holds the folder for one quickstart and the processes that inherit what is yielded.

    The lock is free when the last of them has ended, so a quickstart that follows one that was
    killed waits until the old coordinator has let go of its database.

    Args:
        folder: made if absent.
        stream: told when the folder is not free at once.

    Yields:
        The lock's file descriptor, to be passed on to child processes.

    Raises:
        ConflictError: another quickstart works in the folder.
        InvalidInputError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise InvalidInputError(
            f"cannot keep a quickstart in {folder}: {error.strerror}; give another --folder"
        ) from error
    with file as lock:
        deadline = time.monotonic() + _LOCK_SECONDS
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ConflictError(
                        f"another quickstart works in {folder}; wait for it or give another "
                        "--folder"
                    ) from None
                if not told:
                    stream.write(f"Waiting for another quickstart in {folder} to end\n")
                    stream.flush()
                    told = True
                time.sleep(0.1)
        yield lock.fileno()


@contextmanager
def _running(command: list[str], log: Path, lock: int) -> Iterator[_Member]:
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl

    def end_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it was killed before the kernel knew
            os._exit(1)

    with log.open("ab") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=(lock,),
            preexec_fn=end_with_parent,  # noqa: PLW1509 - two system calls and nothing else
        )
    try:
        yield _Member(process, log)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _await_file(path: Path, coordinator: _Member) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()):
            return text
        if coordinator.process.poll() is not None:
            break
        time.sleep(0.05)
    raise UnreachableError(f"the coordinator did not start; {coordinator.last_words()}")


@contextmanager
def fleet(folder: Path, lock: int) -> Iterator[Fleet]:
    """A coordinator on its embedded store and an agent beside it, as long as the context lasts.

    Both end with this process, however it ends.

    Args:
        folder: holds the store, the agent's state and both logs.
        lock: file descriptor that both inherit; see `exclusive`.

    Raises:
        UnreachableError: the coordinator did not start; the message quotes its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "coordinator.ready"
    ready.unlink(missing_ok=True)
    python = [sys.executable, "-m"]
    serve = [*python, "latlas.cli.main", "serve", "--database", str(folder / "latlas.db")]
    serve += ["--port", "0", "--http-port", "0", "--ready-file", str(ready)]
    with _running(serve, folder / "coordinator.log", lock) as coordinator:
        addresses = json.loads(_await_file(ready, coordinator))
        run = [*python, "latlas_agent.cli", "run", "--coordinator", addresses["grpc"]]
        run += ["--state-dir", str(folder / "agent")]
        with _running(run, folder / "agent.log", lock) as agent:
            members = {"coordinator": coordinator, "agent": agent}
            yield Fleet(addresses["grpc"], addresses["http"], members)
