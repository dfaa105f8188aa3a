"""The agent's side of its worker: starts it, waits for it no longer than agreed, buries it.

Whatever a program does to its worker (crash, hang, exhaust memory) is one failed task; a fresh
worker goes on with the others.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from latlas_agent.frames import PREFIX_BYTES, Frame, frame_bytes
from latlas_agent.sysfs import ROOT, read_meminfo_bytes
from latlas_agent.tasks import Failure, Task, visit_order
from latlas_agent.timeouts import through_cancellation, within
from latlas_latency.measurement import Target, Visit
from latlas_latency.wire import target_to_message, visit_from_message
from latlas_ops.errors import (
    LatlasError,
    MeasurementError,
    ProtocolError,
    RuntimeUnavailableError,
    StorageError,
    from_wire,
)
from latlas_protos.v1 import measurement_pb2

_MEMORY_SHARE = 0.8
_FALLBACK_MEMORY_BYTES = 1 << 30
_STDERR_TAIL_BYTES = 2_000
_PIPE_PATIENCE_S = 2.0
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True)
class Job:
    """A task whose program is on the board, verified."""

    task: Task
    program: Path


@dataclass(frozen=True)
class WorkerSettings:
    """How workers are run on this board.

    Attributes:
        device_id: the board.
        scratch_dir: folder in which each worker gets a temporary folder of its own.
        cores: cores that measurements may use; empty means all that the agent may use.
        memory_limit_bytes: what a worker may allocate; None means 80 % of what is available when
            it starts.
        session_budget_bytes: memory that a worker's open sessions may hold.
        start_timeout_s: time for starting a process and importing a runtime.
        root: where the kernel's files are.
        environment: environment variables of workers.
    """

    device_id: str
    scratch_dir: Path
    cores: tuple[int, ...] = ()
    memory_limit_bytes: int | None = None
    session_budget_bytes: int = 512 << 20
    start_timeout_s: float = 120.0
    root: Path = ROOT
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def cores_for(self, target: Target) -> tuple[int, ...]:
        """The cores that a worker for `target` is pinned to; empty means that it is not pinned.

        Raises:
            RuntimeUnavailableError: the target wants a core that measurements may not use.
        """
        if not target.cores:
            return self.cores
        allowed = self.cores or tuple(sorted(os.sched_getaffinity(0)))
        for core in target.cores:
            if core not in allowed:
                raise RuntimeUnavailableError(
                    f"target {target.name!r} wants core {core}; measurements on this device may "
                    f"use {', '.join(map(str, allowed))}"
                )
        return target.cores


async def measure(
    jobs: Sequence[Job], settings: WorkerSettings, seed: int
) -> AsyncGenerator[Visit | Failure, None]:
    """Makes every visit that `jobs` want, interleaved in rounds, one worker per target.

    A task that fails is not tried again. Closing the iterator kills the worker.

    Args:
        jobs: tasks with their programs.
        settings: how workers are run.
        seed: seed of the order within the rounds.

    Yields:
        A visit as soon as it is made, or the one failure of a task.
    """
    for group in _by_target(jobs):
        order = visit_order([job.task.rounds for job in group], seed)
        failed: set[str] = set()
        worker: WorkerProcess | None = None
        try:
            for position, (index, round_) in enumerate(order):
                job = group[index]
                task_id = job.task.task_id
                if task_id in failed:
                    continue
                if worker is None:
                    try:
                        worker = await WorkerProcess.start(job.task.target, settings)
                    except LatlasError as error:
                        waiting = dict.fromkeys(group[i].task.task_id for i, _ in order[position:])
                        for other in waiting:
                            if other not in failed:
                                yield Failure.of(other, error)
                        break
                outcome: Visit | Failure
                try:
                    outcome = await worker.visit(job, round_)
                except LatlasError as error:
                    failed.add(task_id)
                    outcome = Failure.of(task_id, error)
                if worker.lost:
                    await worker.close()
                    worker = None
                yield outcome
        finally:
            if worker is not None:
                await worker.close()


def _by_target(jobs: Sequence[Job]) -> list[list[Job]]:
    groups: dict[Target, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.task.target, []).append(job)
    return list(groups.values())


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class WorkerProcess:
    """One worker, from its start to its end.

    Attributes:
        lost: whether it answers no more and has to be closed.
    """

    def __init__(self, process: asyncio.subprocess.Process, scratch: Path) -> None:
        self.lost = False
        self._process = process
        self._scratch = scratch
        self._stderr_tail = b""
        self._killed = False
        self._draining = asyncio.create_task(self._drain_stderr())

    @classmethod
    async def start(cls, target: Target, settings: WorkerSettings) -> WorkerProcess:
        """A worker that is ready for visits to programs on `target`.

        Raises:
            LatlasError: it did not become ready; the message says why. Nothing is left behind.
        """
        cores = settings.cores_for(target)
        memory_limit_bytes = settings.memory_limit_bytes
        if memory_limit_bytes is None:
            available = read_meminfo_bytes(settings.root, "MemAvailable")
            memory_limit_bytes = (
                int(available * _MEMORY_SHARE) if available else _FALLBACK_MEMORY_BYTES
            )
        spawning = asyncio.ensure_future(cls._spawn(target, settings))
        try:
            worker = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            await (await spawning).close()
            raise
        request = Frame(
            "start",
            {
                "cores": list(cores),
                "device_id": settings.device_id,
                "memory_limit_bytes": memory_limit_bytes,
                "session_budget_bytes": settings.session_budget_bytes,
                "root": str(settings.root),
            },
            target_to_message(target).SerializeToString(),
        )
        try:
            answer = await worker._ask(request, settings.start_timeout_s, "starting the runtime")
            if answer.kind != "ready":
                raise MeasurementError(f"the worker answered {answer.kind!r} to its start")
        except BaseException:
            await worker.close()
            raise
        return worker

    @classmethod
    async def _spawn(cls, target: Target, settings: WorkerSettings) -> WorkerProcess:
        threads = str(target.threads)
        environment = {
            **settings.environment,
            "OMP_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "PYTHONSAFEPATH": "1",
        }
        try:
            settings.scratch_dir.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix="worker-", dir=settings.scratch_dir))
            environment["TMPDIR"] = str(scratch)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "latlas_agent.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=scratch,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise StorageError(
                f"cannot start a worker in {settings.scratch_dir}: {error}"
            ) from error
        return cls(process, scratch)

    async def visit(self, job: Job, round_: int) -> Visit:
        """One visit.

        Raises:
            MeasurementError: the worker crashed, hung or ran out of memory; it is `lost`.
            LatlasError: what the worker says went wrong; it may go on.
        """
        task = job.task
        request = Frame(
            "visit",
            {
                "task_id": task.task_id,
                "program": str(job.program),
                "mode": task.mode,
                "round": round_,
                "warmup_runs": task.warmup_runs,
                "min_runs": task.min_runs,
                "min_duration_ns": task.min_duration_ns,
                "shapes": task.shapes,
            },
        )
        answer = await self._ask(request, task.timeout_ns / _NS_PER_S, f"round {round_}")
        try:
            return visit_from_message(measurement_pb2.Visit.FromString(answer.body))
        except Exception as error:
            self.lost = True
            raise MeasurementError(f"the worker sent a broken visit: {error}") from error

    async def _ask(self, request: Frame, timeout_s: float, doing: str) -> Frame:
        try:
            answer = await within(timeout_s, self._exchange(request))
        except TimeoutError as error:
            self.lost = True
            raise MeasurementError(
                f"killed after {timeout_s:g} s in {doing}: the program hangs or is too slow for "
                "its time limit"
            ) from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.lost = True
            raise MeasurementError(f"{await self._cause_of_death()} in {doing}") from error
        except ProtocolError as error:
            self.lost = True
            raise MeasurementError(str(error)) from error
        if answer.kind == "failed":
            values = answer.values
            self.lost = bool(values.get("ends", True))
            raise from_wire(str(values.get("error_code")), str(values.get("reason")))
        return answer

    async def _exchange(self, request: Frame) -> Frame:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(request.encode())
        await stdin.drain()
        prefix = await stdout.readexactly(PREFIX_BYTES)
        return Frame.decode(prefix, await stdout.readexactly(frame_bytes(prefix)))

    async def _cause_of_death(self) -> str:
        self._kill()
        status = await self._process.wait()
        with suppress(TimeoutError):
            await within(_PIPE_PATIENCE_S, self._read_to_the_end())
        if status < 0:
            text = f"the worker was killed by {_signal_name(-status)}"
            if -status == signal.SIGKILL:
                text += " (by hand, or by the kernel for lack of memory)"
        else:
            text = f"the worker ended with status {status}"
        lines = self._stderr_tail.decode(errors="replace").strip().splitlines()
        return f"{text} [{lines[-1].strip()}]" if lines else text

    async def _drain_stderr(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        while chunk := await stderr.read(65_536):
            self._stderr_tail = (self._stderr_tail + chunk)[-_STDERR_TAIL_BYTES:]

    def _kill(self) -> None:
        """Kills the worker and whatever it has started; later calls do nothing."""
        if self._killed:
            return
        self._killed = True
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    async def close(self) -> None:
        """Ends the worker for good and removes its files; always safe, and never half done."""
        await through_cancellation(self._close())

    async def _close(self) -> None:
        self.lost = True
        self._kill()
        await self._process.wait()
        with suppress(TimeoutError):
            await within(_PIPE_PATIENCE_S, self._read_to_the_end())
        shutil.rmtree(self._scratch, ignore_errors=True)

    async def _read_to_the_end(self) -> None:
        """Waits until both pipes are closed; only a process that escaped keeps one open."""
        stdout = self._process.stdout
        assert stdout is not None
        await stdout.read()
        await self._draining
