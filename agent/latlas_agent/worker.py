"""The process that programs run in. It may crash, hang or run out of memory; the agent stays.

`python -m latlas_agent.worker` obeys frames on standard input and answers on standard output:
`start` once, then any number of `visit`. `python -m latlas_agent.worker probe NAME` prints the
capability of one runtime as JSON and ends. Nothing else starts this module.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import resource
import signal
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from latlas_agent.conditions import conditions_between
from latlas_agent.frames import Frame, read_frame, write_frame
from latlas_agent.runtimes import ProfiledSession, Runtime, Session, load_runtime
from latlas_agent.runtimes.base import TellingSession, is_out_of_memory
from latlas_agent.sysfs import read_fields
from latlas_agent.timing import MAX_RUNS, Timing, time_runs
from latlas_agent.watch import Watch, open_watch
from latlas_latency.measurement import (
    PROFILED,
    WHOLE_NETWORK,
    Computed,
    InputShapes,
    Opening,
    Series,
    Target,
    Visit,
    digests,
)
from latlas_latency.wire import target_from_message, visit_to_message
from latlas_ops.errors import (
    InvalidInputError,
    LatlasError,
    MeasurementError,
    RuntimeUnavailableError,
    wire_code,
)
from latlas_protos.v1 import measurement_pb2

_PR_SET_PDEATHSIG = 1


@dataclasses.dataclass(frozen=True)
class VisitOrder:
    """One visit as the agent orders it; fields as in `Task`."""

    task_id: str
    program: Path
    mode: str
    round: int
    warmup_runs: int
    min_runs: int
    min_duration_ns: int
    shapes: InputShapes = ()

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> VisitOrder:
        """The order in a frame's values."""
        shapes = tuple((name, tuple(sizes)) for name, sizes in values["shapes"])
        return cls(**{**values, "program": Path(values["program"]), "shapes": shapes})


class SessionPool:
    """Sessions that stay open between visits, the least recently used closed beyond a budget.

    Args:
        load: opens the session of a program, its inputs in the given shapes.
        budget_bytes: memory that open sessions may hold; the newest one always stays.
        resident_bytes: memory of this process now.
    """

    def __init__(
        self,
        load: Callable[[Path, InputShapes], Session],
        budget_bytes: int,
        resident_bytes: Callable[[], int],
    ) -> None:
        self._load = load
        self._budget_bytes = budget_bytes
        self._resident_bytes = resident_bytes
        self._open: OrderedDict[tuple[Path, InputShapes], tuple[Session, int]] = OrderedDict()
        self.grown_bytes = 0

    def get(self, program: Path, shapes: InputShapes = ()) -> Session:
        """The session of a program, opened if it is not open.

        Opening sets `grown_bytes` to what it added, before others were closed for it.
        """
        key = (program, shapes)
        if key not in self._open:
            before = self._resident_bytes()
            session = self._load(program, shapes)
            self.grown_bytes = max(0, self._resident_bytes() - before)
            self._open[key] = (session, max(self.grown_bytes, program.stat().st_size))
            while len(self._open) > 1 and self._held_bytes() > self._budget_bytes:
                self._open.popitem(last=False)
        self._open.move_to_end(key)
        return self._open[key][0]

    def is_open(self, program: Path, shapes: InputShapes = ()) -> bool:
        """Whether the session of a program is open."""
        return (program, shapes) in self._open

    def _held_bytes(self) -> int:
        return sum(held for _, held in self._open.values())


class Worker:
    """Makes visits for one target.

    Args:
        runtime: the plug-in.
        target: how programs are run.
        device_id: the board, named in every visit.
        watch: looks at the board around visits.
        scratch: folder for the runtime's own files.
        session_budget_bytes: memory that open sessions may hold.
    """

    def __init__(
        self,
        runtime: Runtime,
        target: Target,
        *,
        device_id: str,
        watch: Watch,
        scratch: Path,
        session_budget_bytes: int,
    ) -> None:
        self._runtime = runtime
        self._target = target
        self._device_id = device_id
        self._watch = watch
        self._scratch = scratch
        self._pool = SessionPool(
            lambda program, shapes: runtime.load(program, target, shapes),
            session_budget_bytes,
            resident_bytes,
        )

    def visit(self, order: VisitOrder) -> Visit:
        """One visit: warm-up, timed inferences, conditions before and after.

        A profiled visit opens a session of its own, for a recording cannot be started again.
        """
        profiled: ProfiledSession | None = None
        session: Session
        max_runs = MAX_RUNS
        is_open = order.mode != PROFILED and self._pool.is_open(order.program, order.shapes)
        grown_bytes = 0
        if not is_open:
            give_back_memory()
        bytes_before = 0 if is_open else resident_bytes()
        begin_ns = time.perf_counter_ns()
        if order.mode == PROFILED:
            session = profiled = self._runtime.load_profiled(
                order.program, self._target, self._scratch, order.shapes
            )
            max_runs = min(max_runs, profiled.max_runs - order.warmup_runs)
            if order.min_runs > max_runs:
                raise InvalidInputError(
                    f"a profile of this program has room for {profiled.max_runs} inferences, not "
                    f"for {order.warmup_runs} and {order.min_runs}; ask for fewer runs"
                )
        else:
            session = self._pool.get(order.program, order.shapes)
            if not is_open:
                grown_bytes, bytes_before = self._pool.grown_bytes, resident_bytes()
        load_ns = time.perf_counter_ns() - begin_ns
        before = self._watch.before()
        timing = time_runs(
            session.run,
            warmup_runs=order.warmup_runs,
            min_runs=order.min_runs,
            min_duration_ns=order.min_duration_ns,
            max_runs=max_runs,
        )
        after = self._watch.after()
        opening = None
        if not is_open:
            grown_bytes += max(0, resident_bytes() - bytes_before)
            computed = None if order.mode == PROFILED else _computed(session)
            opening = Opening(load_ns, timing.first_ns, grown_bytes, computed)
        return Visit(
            task_id=order.task_id,
            device_id=self._device_id,
            round=order.round,
            mode=order.mode,
            started_ns=timing.started_ns,
            duration_ns=timing.duration_ns,
            warmup_runs=order.warmup_runs,
            series=_series(timing, profiled),
            conditions=conditions_between(before, after),
            opening=opening,
        )


def _computed(session: Session) -> Computed | None:
    """What the program computes, by one more inference; None where its session does not tell.

    The program has been measured by then, which nothing that goes wrong here may undo.
    """
    if not isinstance(session, TellingSession):
        return None
    try:
        return Computed(session.inputs, digests(session.outputs()))
    except Exception:
        return None


def _series(timing: Timing, profiled: ProfiledSession | None) -> tuple[Series, ...]:
    whole = Series(WHOLE_NETWORK, timing.samples_ns)
    if profiled is None:
        return (whole,)
    return (whole, *profiled.node_series(len(timing.samples_ns)))


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def give_back_memory() -> None:
    """Hands freed memory back to the system, so that what a program adds shows as growth.

    A C library other than glibc may keep it: a program then seems to add less than it holds.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def die_with_parent() -> None:
    """Asks the kernel to kill this process when the agent dies, however that happens.

    What counts is the thread that started this process: it must live as long as the agent.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def pin(cores: Sequence[int]) -> None:
    """Confines this process and every thread it will start to `cores`; all of them if empty.

    Raises:
        RuntimeUnavailableError: a core does not exist or may not be used.
    """
    if not cores:
        return
    try:
        os.sched_setaffinity(0, cores)
        missing = sorted(set(cores) - os.sched_getaffinity(0))
    except OSError:
        missing = sorted(cores)
    if missing:
        raise RuntimeUnavailableError(
            f"cannot pin to core {missing[0]}: this device does not let the agent use it"
        )


def limit_memory(extra_bytes: int) -> None:
    """Lets this process allocate at most `extra_bytes` more, and dump no core.

    The limit is on private writable memory (`RLIMIT_DATA`): file mappings and address space that
    a runtime merely reserves are free. Should the board run out all the same, the kernel is told
    to end this process first.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    words = read_fields(Path("/proc/self/status")).get("VmData", "0 kB").split()
    limit = int(words[0]) * 1024 + extra_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    except OSError:
        return


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Obeys frames until the stream ends or memory has run out."""
    worker: Worker | None = None
    while (frame := read_frame(requests)) is not None:
        out_of_memory = False
        try:
            if frame.kind == "start":
                worker = _start(frame)
                answer = Frame("ready", {})
            elif worker is not None:
                visit = worker.visit(VisitOrder.from_values(frame.values))
                answer = Frame("visit", {}, visit_to_message(visit).SerializeToString())
            else:
                raise MeasurementError("the worker was not started")
        except LatlasError as error:
            answer = _failed(error, ends=False)
        except Exception as error:
            out_of_memory = is_out_of_memory(error)
            what = "ran out of memory" if out_of_memory else "failed in the runtime"
            answer = _failed(
                MeasurementError(f"{what}: {type(error).__name__}: {error}"), ends=out_of_memory
            )
        write_frame(answers, answer)
        if out_of_memory:
            return


def _start(frame: Frame) -> Worker:
    values = frame.values
    target = target_from_message(measurement_pb2.Target.FromString(frame.body))
    pin(values["cores"])
    runtime = load_runtime(target.runtime)
    prepare = getattr(runtime, "prepare", None)
    if prepare is not None:
        prepare()
    limit_memory(values["memory_limit_bytes"])
    return Worker(
        runtime,
        target,
        device_id=values["device_id"],
        watch=open_watch(
            Path(values["root"]), sorted(os.sched_getaffinity(0)), target.provider, os.environ
        ),
        scratch=Path.cwd(),
        session_budget_bytes=values["session_budget_bytes"],
    )


def _failed(error: LatlasError, *, ends: bool) -> Frame:
    """The answer to a request that failed; `ends` says that this worker ends with it."""
    values = {"error_code": wire_code(error), "reason": str(error), "ends": ends}
    return Frame("failed", values)


def _probe(name: str, output: BinaryIO) -> None:
    """Writes the capability of a runtime as JSON, or why it has none."""
    try:
        record: dict[str, object] = dataclasses.asdict(load_runtime(name).capability())
    except LatlasError as error:
        record = {"unavailable": str(error)}
    output.write(json.dumps(record).encode())
    output.flush()


def main(arguments: Sequence[str]) -> None:
    """Runs the worker; whatever a runtime prints goes to standard error."""
    die_with_parent()
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if arguments[:1] == ["probe"]:
        _probe(arguments[1], answers)
    else:
        serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main(sys.argv[1:])
