"""LiteRT in real worker processes: what a bad program does to the others, and to the agent."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from latlas_agent.runtimes.litert import DELEGATES_VARIABLE
from latlas_agent.supervisor import Job, WorkerSettings, measure
from latlas_agent.tasks import Failure, Task
from latlas_latency.measurement import Target, Visit

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

WriteModel = Callable[..., bytes]
MakeJob = Callable[..., Job]

TARGET = Target(
    name="here",
    device_model="test board",
    runtime="litert",
    runtime_version="2",
    provider="xnnpack",
)


@pytest.fixture
def job(tmp_path: Path) -> MakeJob:
    """`job(task_id, model, **fields)`: a task on `TARGET` with its program in place."""

    def make(task_id: str, model: bytes, **fields: object) -> Job:
        path = tmp_path / hashlib.sha256(model).hexdigest()
        path.write_bytes(model)
        task = Task(
            task_id=task_id,
            program_sha256=path.name,
            program_format="tflite",
            program_bytes=len(model),
            target=TARGET,
            mode="plain",
            rounds=(0, 1),
            warmup_runs=1,
            min_runs=5,
            min_duration_ns=0,
            timeout_ns=60_000_000_000,
        )
        return Job(dataclasses.replace(task, **fields), path)  # type: ignore[arg-type]

    return make


def outcomes_of(jobs: list[Job], settings: WorkerSettings) -> tuple[list[Visit], dict[str, str]]:
    """Visits, and why tasks failed."""
    visits: list[Visit] = []
    failures: dict[str, str] = {}

    async def run() -> None:
        async for outcome in measure(jobs, settings, seed=1):
            if isinstance(outcome, Failure):
                failures[outcome.task_id] = outcome.reason
            else:
                visits.append(outcome)

    asyncio.run(run())
    return visits, failures


def test_corrupt_programs_fail_and_the_others_go_on(
    job: MakeJob, settings: WorkerSettings, tflite_model: WriteModel
) -> None:
    model = tflite_model("RELU", "HARD_SWISH")
    visits, failures = outcomes_of(
        [
            job("random bytes", b"\x9f\x03\x00\xff\x81\x00\x17\x2a"),
            job("cut short", model[: len(model) // 2]),
            job("unknown", tflite_model("unheard_of")),
            job("good", model),
        ],
        settings,
    )
    assert {(visit.task_id, visit.round) for visit in visits} == {("good", 0), ("good", 1)}
    assert all(len(visit.network_ns) == 5 for visit in visits)
    assert "not a TFLite model" in failures["random bytes"]
    assert "damaged or cut short" in failures["cut short"]
    assert "unheard_of" in failures["unknown"]


def test_a_delegate_that_crashes_fails_its_task_alone(
    job: MakeJob,
    settings: WorkerSettings,
    tflite_model: WriteModel,
    delegate: Callable[..., Path],
) -> None:
    library = delegate(9, crashes=True)
    environment = {**settings.environment, DELEGATES_VARIABLE: str(library)}
    bad_target = dataclasses.replace(TARGET, name="bad", provider=f"delegate:{library}")
    visits, failures = outcomes_of(
        [
            job("crashes", tflite_model("RELU"), target=bad_target),
            job("good", tflite_model("HARD_SWISH")),
        ],
        dataclasses.replace(settings, environment=environment),
    )
    assert {(visit.task_id, visit.round) for visit in visits} == {("good", 0), ("good", 1)}
    assert "killed by SIGABRT" in failures["crashes"]


def test_a_profile_is_refused_with_the_way_out(
    job: MakeJob, settings: WorkerSettings, tflite_model: WriteModel
) -> None:
    _, failures = outcomes_of([job("profile", tflite_model("RELU"), mode="profiled")], settings)
    assert "measure ops in chains instead" in failures["profile"]
