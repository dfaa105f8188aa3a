"""A table of NAS-Bench-201 from real measurements: planned, measured, built and asked like any."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from latlas_agent.supervisor import Job, WorkerSettings, measure
from latlas_agent.tasks import Task
from latlas_coordinator.domain import ProfilePlan, Role
from latlas_coordinator.planning import PlannedNetwork, plan_profile
from latlas_latency.measurement import PLAIN, PROFILED, Target, Visit
from latlas_latency.observations import Observation
from latlas_latency.table_building import build_table
from latlas_ops import get_space
from latlas_ops.writers.onnx_writer import write_onnx

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the agent measures on Linux")

SPACE = get_space("nas-bench-201")
PLAN = ProfilePlan(
    "nas-bench-201",
    n_training_networks=0,
    n_calibration_networks=6,
    n_validation_networks=6,
    min_occurrences=1,
    seed=0,
)
TARGET = Target(
    name="here",
    device_model="this machine",
    runtime="onnxruntime",
    runtime_version=onnxruntime.__version__,
    provider="CPUExecutionProvider",
)


def measured(planned: list[PlannedNetwork], folder: Path) -> dict[tuple[int, str], Observation]:
    """Visits of every network by a worker process, cover networks in both modes."""
    programs, jobs = {}, []
    for index, one in enumerate(planned):
        programs[index] = program = write_onnx(SPACE.network(one.arch))
        sha256 = hashlib.sha256(program.model_bytes).hexdigest()
        path = folder / sha256
        path.write_bytes(program.model_bytes)
        for mode in (PROFILED, PLAIN) if one.role is Role.COVER else (PLAIN,):
            task = Task(
                task_id=f"{index} {mode}",
                program_sha256=sha256,
                program_format="onnx",
                program_bytes=len(program.model_bytes),
                target=TARGET,
                mode=mode,
                rounds=(0, 1),
                warmup_runs=1,
                min_runs=3,
                min_duration_ns=2_000_000,
                timeout_ns=60_000_000_000,
            )
            jobs.append(Job(task, path))

    async def visit_all() -> dict[str, list[Visit]]:
        visits = defaultdict(list)
        async for outcome in measure(jobs, WorkerSettings("device-1", folder / "workers"), seed=0):
            assert isinstance(outcome, Visit), outcome
            visits[outcome.task_id].append(outcome)
        return visits

    return {
        (index, mode): Observation(
            network=SPACE.network(planned[index].arch),
            tensor_positions=programs[index].tensor_positions,
            visits=tuple(visits),
            arch=planned[index].arch,
            target=TARGET,
        )
        for task_id, visits in asyncio.run(visit_all()).items()
        for index, mode in [(int(task_id.split()[0]), task_id.split()[1])]
    }


def test_a_table_of_cells_is_built_from_real_measurements(tmp_path: Path) -> None:
    planned = plan_profile(SPACE, PLAN)
    found = measured(planned, tmp_path)

    def of(role: Role, mode: str) -> list[Observation]:
        return [
            observation
            for (index, each), observation in found.items()
            if planned[index].role is role and each == mode
        ]

    table = build_table(
        profiled=of(Role.COVER, PROFILED),
        plain=of(Role.COVER, PLAIN),
        calibration=of(Role.CALIBRATION, PLAIN),
        target=TARGET,
        space=SPACE,
    )
    assert table.calibrated
    assert not table.missing(SPACE)
    unseen = of(Role.VALIDATION, PLAIN)
    batch = SPACE.batch([observation.arch for observation in unseen if observation.arch])
    prediction = table.predict(batch)
    np.testing.assert_allclose(
        prediction.mean_ms, table.predict([seen.network for seen in unseen]).mean_ms
    )
    np.testing.assert_array_equal(prediction.measured_ms, prediction.mean_ms)
    # Not a benchmark: what a machine that is busy with other tests cannot miss.
    smallest, largest = table.predict(SPACE.extremes()).mean_ms
    assert 0 <= smallest < largest
    times_ms = {
        observation.arch: np.median([np.median(v.network_ns) for v in observation.visits]) / 1e6
        for observation in of(Role.CALIBRATION, PLAIN)
    }
    ends = SPACE.archs(SPACE.extremes())
    assert largest * times_ms[ends[0]] > 0.1 * smallest * times_ms[ends[1]]
