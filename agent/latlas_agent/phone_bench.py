"""Visits on a phone: programs are copied to it and run by `benchmark_model` there."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import time
from collections.abc import AsyncGenerator, Callable, Sequence

from latlas_agent.adb import Adb
from latlas_agent.android import Phone, PhoneReader
from latlas_agent.conditions import Snapshot, conditions_between
from latlas_agent.lease import DeviceGoneError
from latlas_agent.phone_benchmark import (
    WHOLE,
    BenchmarkResult,
    last_words,
    parse_benchmark,
    parse_placement,
)
from latlas_agent.phone_command import (
    FOLDER,
    BenchmarkModel,
    command_line,
    split_parts,
    visit_script,
)
from latlas_agent.phone_conditions import PhoneWatch, parse_children_ns, parse_files
from latlas_agent.phone_inputs import shape_flags
from latlas_agent.supervisor import Job
from latlas_agent.tasks import Failure, Task, visit_order
from latlas_agent.timeouts import through_cancellation
from latlas_latency.measurement import Opening, Target, Visit
from latlas_ops.errors import LatlasError, MeasurementError, RuntimeUnavailableError

_SHELL_TIMEOUT_S = 30.0
_KILL_TIMEOUT_S = 5.0
_NOTICE_S = 1.0  # adb may need a moment to notice that a phone was unplugged
_SIGNAL_BASE = 128
_CANNOT_RUN = {126: "it is no program for this phone's processor", 127: "it is not there"}
_NS_PER_S = 1_000_000_000
_PROGRAM = re.compile(r"([0-9a-f]{64})\.tflite(\.part)?")
_REMOVED_AT_ONCE = 20


class PhoneBench:
    """Measures on one phone.

    Args:
        adb: reaches it.
        serial: what adb calls it.
        device_id: what the coordinator calls it.
        tool: what runs programs there.
        cores: its cores.
        clock_ns: monotonic time.
        unix_ns: wall clock of this host; the phone's may be off.
    """

    def __init__(
        self,
        adb: Adb,
        serial: str,
        *,
        device_id: str,
        tool: BenchmarkModel,
        cores: Sequence[int],
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._adb = adb
        self._serial = serial
        self._device_id = device_id
        self._tool = tool
        self._watch = PhoneWatch(cores)
        self._reader = PhoneReader(adb.shell(serial))
        self._clock_ns = clock_ns
        self._unix_ns = unix_ns

    def check(self, target: Target) -> None:
        """See `Bench.check`: whatever the device offers can be measured."""

    async def measure(
        self, jobs: Sequence[Job], seed: int
    ) -> AsyncGenerator[Visit | Failure, None]:
        """See `Bench.measure`.

        Of a phone that goes away, the program in flight fails; the others are left as they are.
        """
        if not jobs:
            return
        try:
            await self._adb.require(self._serial)
            there = await self._make_room({job.task.program_sha256 for job in jobs})
        except DeviceGoneError:
            raise
        except LatlasError as error:
            for job in jobs:
                yield Failure.of(job.task.task_id, error)
            return
        failed: set[str] = set()
        flags: dict[str, tuple[str, ...]] = {}
        for index, round_ in visit_order([job.task.rounds for job in jobs], seed):
            job = jobs[index]
            task_id = job.task.task_id
            if task_id in failed:
                continue
            try:
                if task_id not in flags:
                    flags[task_id] = await asyncio.to_thread(_flags, job)
                await self._copy(job, there)
                outcome: Visit | Failure = await self._visit(job.task, round_, flags[task_id])
            except DeviceGoneError as error:
                yield Failure.of(task_id, error)
                raise
            except LatlasError as error:
                failed.add(task_id)
                outcome = Failure.of(task_id, error)
            yield outcome

    async def _make_room(self, wanted: set[str]) -> set[str]:
        """Removes what no job needs; returns the programs that are there already."""
        listing = await self._adb.run(self._serial, f"ls {FOLDER}", _SHELL_TIMEOUT_S)
        programs = [match for word in listing.split() if (match := _PROGRAM.fullmatch(word))]
        there = {match[0] for match in programs if match[1] in wanted and not match[2]}
        leave = sorted({match[0] for match in programs} - there)
        for start in range(0, len(leave), _REMOVED_AT_ONCE):
            few = " ".join(leave[start : start + _REMOVED_AT_ONCE])
            await self._adb.run(self._serial, f"cd {FOLDER} && rm -f {few}", _SHELL_TIMEOUT_S)
        return there

    async def _copy(self, job: Job, there: set[str]) -> None:
        """Brings a program to the phone, whole or not at all."""
        name = f"{job.task.program_sha256}.tflite"
        if name in there:
            return
        timeout_s = job.task.timeout_ns / _NS_PER_S
        await self._adb.push(self._serial, job.program, f"{FOLDER}/{name}.part", timeout_s)
        done = await self._adb.run(
            self._serial,
            f"cd {FOLDER} && mv {name}.part {name} && echo moved",
            _SHELL_TIMEOUT_S,
        )
        if "moved" not in done:
            raise MeasurementError(f"cannot keep a program in {FOLDER} of phone {self._serial}")
        there.add(name)

    async def _visit(self, task: Task, round_: int, flags: Sequence[str]) -> Visit:
        command = command_line(self._tool.path, f"{task.program_sha256}.tflite", task, flags)
        phone_before = await asyncio.to_thread(self._reader)
        begin_ns = self._clock_ns()
        try:
            text = await self._adb.run(
                self._serial, visit_script(command), task.timeout_ns / _NS_PER_S
            )
        except DeviceGoneError:
            raise
        except (LatlasError, asyncio.CancelledError):
            await through_cancellation(self._kill())
            raise
        end_ns, ended_unix_ns = self._clock_ns(), self._unix_ns()
        parts = split_parts(text)
        if "end" not in parts:
            await asyncio.sleep(_NOTICE_S)
            await self._adb.require(self._serial)
            raise MeasurementError(
                f"the shell of phone {self._serial} ended early: {last_words(text)}"
            )
        phone_after = await asyncio.to_thread(self._reader)
        status, (_, printed) = parts["after"][0], parts["run"]
        result = self._result(task, status, printed)
        cores = task.target.cores
        before = self._snapshot(parts["before"][1], begin_ns, cores, phone_before)
        after = self._snapshot(parts["after"][1], end_ns, cores, phone_after)
        duration_ns = round(result.runs.average_ns * result.runs.n_runs)
        return Visit(
            task_id=task.task_id,
            device_id=self._device_id,
            round=round_,
            mode=task.mode,
            started_ns=ended_unix_ns - duration_ns,
            duration_ns=duration_ns,
            warmup_runs=task.warmup_runs,
            series=result.series(task.mode),
            conditions=conditions_between(before, after),
            opening=_opening(result),
        )

    def _snapshot(self, text: str, taken_ns: int, cores: Sequence[int], phone: Phone) -> Snapshot:
        snapshot = self._watch.snapshot(parse_files(text), parse_children_ns(text), taken_ns, cores)
        return dataclasses.replace(snapshot, phone=phone)

    def _result(self, task: Task, status_text: str, printed: str) -> BenchmarkResult:
        """What the tool found; raises the `LatlasError` that its end or its words mean."""
        target = task.target
        status = int(status_text) if status_text.strip().isdigit() else 1
        placement = parse_placement(printed)
        strict = target.provider != "builtin" and not target.allow_fallback
        if strict and placement not in ("", WHOLE):
            raise RuntimeUnavailableError(
                f"{target.provider} does not take the whole program on phone {self._serial}; add a "
                "target with --allow-fallback to measure it with what is left to other kernels"
            )
        if status in _CANNOT_RUN:
            raise RuntimeUnavailableError(
                f"{self._tool.path} cannot be run on phone {self._serial} ({last_words(printed)}): "
                f"{_CANNOT_RUN[status]}"
            )
        if status > _SIGNAL_BASE:
            raise MeasurementError(
                f"benchmark_model was killed by signal {status - _SIGNAL_BASE} on phone "
                f"{self._serial} [{last_words(printed)}]"
            )
        if status:
            raise MeasurementError(
                f"benchmark_model ended with status {status} on phone {self._serial} "
                f"[{last_words(printed)}]"
            )
        result = parse_benchmark(printed)
        if strict and placement != WHOLE:
            raise RuntimeUnavailableError(
                f"benchmark_model does not say whether {target.provider} took the whole program: "
                "take a newer build of it, or add a target with --allow-fallback"
            )
        if result.runs.n_runs < task.min_runs:
            raise MeasurementError(
                f"benchmark_model timed {result.runs.n_runs} of {task.min_runs} runs before its "
                "time limit; give the campaign a longer --timeout"
            )
        delegated = [node.kind for node in result.nodes if node.is_delegate]
        if delegated:
            raise RuntimeUnavailableError(
                f"{delegated[0]} computed nodes that should have been timed singly: take a build "
                "of benchmark_model that obeys --use_xnnpack=false"
            )
        return result

    async def _kill(self) -> None:
        """Ends what still runs on the phone; without it, it would disturb the next visit."""
        with contextlib.suppress(LatlasError):
            await self._adb.run(
                self._serial, f"kill -9 $(cat {FOLDER}/pid) 2>/dev/null; true", _KILL_TIMEOUT_S
            )


def _flags(job: Job) -> tuple[str, ...]:
    return shape_flags(job.program.read_bytes(), job.task.target, job.task.shapes)


def _opening(result: BenchmarkResult) -> Opening | None:
    if result.memory_bytes is None:
        return None
    return Opening(result.load_ns, result.first_run_ns, max(0, result.memory_bytes))
