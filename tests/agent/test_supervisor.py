"""Real worker processes with real onnxruntime, and with a plug-in that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from latlas_agent.supervisor import Job, WorkerSettings, measure
from latlas_agent.tasks import Failure
from latlas_latency.measurement import Target, Visit
from latlas_ops.errors import RuntimeUnavailableError

MakeJob = Callable[..., Job]


def collect(
    jobs: Sequence[Job],
    settings: WorkerSettings,
    meanwhile: Callable[[list[Visit | Failure]], Awaitable[None]] | None = None,
) -> list[Visit | Failure]:
    """Everything that comes of some jobs; `meanwhile` runs beside and sees what has come."""
    outcomes: list[Visit | Failure] = []

    async def run() -> None:
        beside = asyncio.create_task(meanwhile(outcomes)) if meanwhile else None  # type: ignore[arg-type]
        async for outcome in measure(jobs, settings, seed=1):
            outcomes.append(outcome)
        if beside is not None:
            await beside

    asyncio.run(run())
    return outcomes


def visits(outcomes: Sequence[Visit | Failure]) -> list[tuple[str, int]]:
    return sorted((v.task_id, v.round) for v in outcomes if isinstance(v, Visit))


def failures(outcomes: Sequence[Visit | Failure]) -> dict[str, Failure]:
    found = [failure for failure in outcomes if isinstance(failure, Failure)]
    assert len({failure.task_id for failure in found}) == len(found), "a task failed twice"
    return {failure.task_id: failure for failure in found}


def worker_processes(settings: WorkerSettings) -> list[int]:
    """Processes that work in the settings' scratch folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            working_directory = os.readlink(process / "cwd")
        except OSError:
            continue
        if working_directory.startswith(str(settings.scratch_dir)):
            found.append(int(process.name))
    return found


def a_program_runs(settings: WorkerSettings) -> bool:
    """Whether a program that takes its time has begun to run."""
    return any(settings.scratch_dir.glob("*/running"))


def no_worker_is_left(settings: WorkerSettings, patience_s: float = 5.0) -> bool:
    deadline = time.monotonic() + patience_s
    while worker_processes(settings):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_real_programs_are_measured_plain_and_profiled(
    make_job: MakeJob, settings: WorkerSettings, digits_programs: list[Any]
) -> None:
    jobs = [
        make_job(f"{mode} {index}", program, mode=mode, rounds=(0, 1), min_runs=5)
        for index, program in enumerate(digits_programs[:2])
        for mode in ("plain", "profiled")
    ]
    outcomes = collect(jobs, settings)
    assert failures(outcomes) == {}
    assert visits(outcomes) == sorted((job.task.task_id, r) for job in jobs for r in (0, 1))
    for visit in outcomes:
        assert isinstance(visit, Visit)
        assert visit.device_id == "device-1"
        assert len(visit.network_ns) == 5
        assert visit.duration_ns >= visit.network_ns.sum()
        assert abs(visit.started_ns - time.time_ns()) < 60e9
        assert visit.conditions.load_1min is not None
        if visit.mode == "profiled":
            written = digits_programs[int(visit.task_id[-1])].onnx
            assert {node.label for node in visit.nodes} <= set(written.tensor_positions)
        else:
            assert visit.nodes == ()
    assert no_worker_is_left(settings)
    assert list(settings.scratch_dir.iterdir()) == []


def test_rounds_are_interleaved(make_job: MakeJob, settings: WorkerSettings) -> None:
    jobs = [make_job(f"t{index}", f"fine {index}", rounds=(0, 1, 2)) for index in range(4)]
    outcomes = collect(jobs, settings)
    rounds = [visit.round for visit in outcomes if isinstance(visit, Visit)]
    assert rounds == [0] * 4 + [1] * 4 + [2] * 4


def test_a_visit_lasts_as_long_as_it_is_asked_to(
    make_job: MakeJob, settings: WorkerSettings
) -> None:
    job = make_job("t1", "fine", min_runs=2, min_duration_ns=100_000_000)
    (visit,) = collect([job], settings)
    assert isinstance(visit, Visit)
    assert visit.duration_ns >= 100_000_000
    assert len(visit.network_ns) > 2


@pytest.mark.parametrize(
    ("word", "error_code", "reason"),
    [
        ("segfault", "MeasurementError", "killed by SIGSEGV in round 0"),
        ("exit", "MeasurementError", r"ended with status 3 \[giving up\] in round 0"),
        ("hang", "MeasurementError", "killed after 1 s in round 0: the program hangs"),
        ("allocate", "MeasurementError", "ran out of memory"),
        ("raise", "MeasurementError", "failed in the runtime: ValueError: no such operator"),
        ("corrupt", "CorruptProgramError", "that is no word"),
    ],
)
def test_a_program_that_misbehaves_is_one_failed_task_and_the_others_go_on(
    make_job: MakeJob, settings: WorkerSettings, word: str, error_code: str, reason: str
) -> None:
    jobs = [make_job(f"good{index}", f"fine {index}", rounds=(0, 1)) for index in range(3)]
    jobs.insert(1, make_job("bad", word, rounds=(0, 1), timeout_ns=1_000_000_000))
    outcomes = collect(jobs, settings)
    assert visits(outcomes) == [(f"good{index}", r) for index in range(3) for r in (0, 1)]
    (failure,) = failures(outcomes).values()
    assert failure.task_id == "bad"
    assert failure.error_code == error_code
    assert re.search(reason, failure.reason), failure.reason
    assert no_worker_is_left(settings)


def test_corrupt_bytes_and_an_endless_loop_in_real_onnxruntime(
    make_job: MakeJob, settings: WorkerSettings, digits_programs: list[Any]
) -> None:
    good = digits_programs[0]
    jobs = [
        make_job("good", good, rounds=(0, 1)),
        make_job("corrupt", dataclasses.replace(good, data=good.data[:5000])),
        make_job("noise", dataclasses.replace(good, data=b"\x08\x08" + bytes(range(256)))),
        make_job("endless", endless_program(good), timeout_ns=1_500_000_000),
    ]
    outcomes = collect(jobs, settings)
    assert visits(outcomes) == [("good", 0), ("good", 1)]
    found = failures(outcomes)
    assert found["corrupt"].error_code == found["noise"].error_code == "CorruptProgramError"
    assert "killed after 1.5 s" in found["endless"].reason


def endless_program(like: Any) -> Any:
    """A Loop whose condition stays true."""
    from onnx import TensorProto, helper

    scalar = {name: helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in "cd"}
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Neg", ["v"], ["w"])],
        "body",
        [count, scalar["c"], helper.make_tensor_value_info("v", TensorProto.FLOAT, [1])],
        [scalar["d"], helper.make_tensor_value_info("w", TensorProto.FLOAT, [1])],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["", "yes", "x"], ["y"], body=body)],
        "endless",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [helper.make_tensor("yes", TensorProto.BOOL, [], [True])],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return dataclasses.replace(like, data=model.SerializeToString())


def test_memory_that_real_onnxruntime_cannot_get_is_a_failed_task(
    make_job: MakeJob, settings: WorkerSettings, digits_programs: list[Any]
) -> None:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Expand", ["x", "shape"], ["big"]),
            helper.make_node("ReduceMax", ["big"], ["y"], keepdims=0),
        ],
        "hungry",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])],
        [helper.make_tensor("shape", TensorProto.INT64, [1], [1 << 30])],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    hungry = dataclasses.replace(digits_programs[0], data=model.SerializeToString())
    jobs = [
        make_job("hungry", hungry, rounds=(0, 1)),
        make_job("good", digits_programs[1], rounds=(0, 1)),
    ]
    outcomes = collect(jobs, settings)
    assert visits(outcomes) == [("good", 0), ("good", 1)]
    assert "ran out of memory" in failures(outcomes)["hungry"].reason


def test_a_worker_killed_from_outside_is_one_failed_task(
    make_job: MakeJob, settings: WorkerSettings
) -> None:
    jobs = [make_job("slow", "slow", rounds=(0,), min_runs=100, warmup_runs=0)]
    jobs += [make_job(f"good{index}", f"fine {index}", rounds=(1, 2)) for index in range(3)]

    async def kill_the_worker(_: list[Visit | Failure]) -> None:
        while not a_program_runs(settings):
            await asyncio.sleep(0.02)
        for process in worker_processes(settings):
            os.kill(process, signal.SIGKILL)

    outcomes = collect(jobs, settings, kill_the_worker)
    assert visits(outcomes) == [(f"good{index}", r) for index in range(3) for r in (1, 2)]
    failure = failures(outcomes)["slow"]
    assert failure.error_code == "MeasurementError"
    assert "killed by SIGKILL (by hand, or by the kernel for lack of memory)" in failure.reason


def test_closing_the_iterator_kills_the_worker(make_job: MakeJob, settings: WorkerSettings) -> None:
    jobs = [make_job("good", "fine", rounds=(0,)), make_job("stuck", "hang", rounds=(1,))]

    async def run() -> None:
        outcomes = measure(jobs, settings, seed=1)
        await anext(outcomes)
        waiting = asyncio.create_task(anext(outcomes))
        while not a_program_runs(settings):
            await asyncio.sleep(0.02)
        assert worker_processes(settings)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(run())
    assert no_worker_is_left(settings)
    assert list(settings.scratch_dir.iterdir()) == []


def test_a_worker_does_not_outlive_an_agent_that_is_killed(
    make_job: MakeJob, settings: WorkerSettings
) -> None:
    job = make_job("stuck", "hang")
    script = f"""
import asyncio, pathlib
from latlas_agent.supervisor import Job, WorkerSettings, measure
from latlas_agent.tasks import Task
from latlas_latency.measurement import Target
async def run():
    settings = WorkerSettings("d", pathlib.Path({str(settings.scratch_dir)!r}))
    job = Job({job.task!r}, pathlib.Path({str(job.program)!r}))
    async for _ in measure([job], settings, 1):
        pass
asyncio.run(run())
"""
    environment = dict(settings.environment)
    agent = subprocess.Popen([sys.executable, "-c", script], env=environment)
    try:
        deadline = time.monotonic() + 60
        while not a_program_runs(settings):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        agent.kill()
        agent.wait()
    assert no_worker_is_left(settings)


def test_what_a_runtime_prints_does_not_disturb(
    make_job: MakeJob, settings: WorkerSettings
) -> None:
    outcomes = collect([make_job("chatty", "print", rounds=(0, 1), min_runs=50)], settings)
    assert visits(outcomes) == [("chatty", 0), ("chatty", 1)]


def test_a_runtime_that_cannot_start_fails_every_task_once(
    make_job: MakeJob, settings: WorkerSettings, word_target: Target
) -> None:
    missing = dataclasses.replace(word_target, runtime="nowhere")
    jobs = [make_job(f"t{i}", "fine", target=missing, rounds=(0, 1)) for i in range(2)]
    jobs.append(make_job("good", "fine"))
    outcomes = collect(jobs, settings)
    assert visits(outcomes) == [("good", 0)]
    found = failures(outcomes)
    assert set(found) == {"t0", "t1"}
    assert found["t0"].error_code == "RuntimeUnavailableError"
    assert "no runtime 'nowhere'" in found["t0"].reason


def test_each_target_has_a_worker_of_its_own(
    make_job: MakeJob, settings: WorkerSettings, word_target: Target
) -> None:
    other = dataclasses.replace(word_target, threads=2)
    jobs = [make_job("one", "fine", rounds=(0, 1)), make_job("two", "fine", target=other)]
    assert visits(collect(jobs, settings)) == [("one", 0), ("one", 1), ("two", 0)]


def test_a_worker_is_pinned_where_the_target_says(
    make_job: MakeJob, settings: WorkerSettings, word_target: Target
) -> None:
    core = max(os.sched_getaffinity(0))
    target = dataclasses.replace(word_target, cores=(core,))
    seen: list[set[int]] = []

    async def look(_: list[Visit | Failure]) -> None:
        while not a_program_runs(settings):
            await asyncio.sleep(0.02)
        seen.extend(os.sched_getaffinity(process) for process in worker_processes(settings))

    job = make_job("slow", "slow", target=target, min_runs=30)
    assert visits(collect([job], settings, look)) == [("slow", 0)]
    assert seen == [{core}]


def test_a_core_that_measurements_may_not_use_is_refused(
    settings: WorkerSettings, word_target: Target
) -> None:
    restricted = dataclasses.replace(settings, cores=(1,))
    assert restricted.cores_for(word_target) == (1,)
    with pytest.raises(RuntimeUnavailableError, match=r"wants core 0; .* may use 1"):
        restricted.cores_for(dataclasses.replace(word_target, cores=(0, 1)))


def test_a_core_that_does_not_exist_is_one_failed_task(
    make_job: MakeJob, settings: WorkerSettings
) -> None:
    (failure,) = collect([make_job("t", "fine")], dataclasses.replace(settings, cores=(999,)))
    assert isinstance(failure, Failure)
    assert "cannot pin to core 999" in failure.reason
