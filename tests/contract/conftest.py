"""Every implementation of `Store`, and a small fleet to fill one with."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from latlas_coordinator.domain import (
    AgentRecord,
    Campaign,
    Findings,
    LeaseItem,
    LeaseRecord,
    Looked,
    MeasuredProgram,
    MeasurePlan,
    NewLease,
    ProgramOrigin,
    ProgramRecord,
    Report,
    ReportBatch,
    Role,
    Sampling,
    Task,
    TaskFailure,
)
from latlas_coordinator.storage import Store, open_store
from latlas_latency.measurement import (
    PLAIN,
    PROFILED,
    WHOLE_NETWORK,
    Computed,
    Conditions,
    Device,
    Opening,
    OutputDigest,
    RuntimeCapability,
    Series,
    Target,
    Visit,
)

AGENT = AgentRecord("agent-a", 1, "0.1")
CAPABILITY = RuntimeCapability(
    "onnxruntime", "1.32.0", ("CPUExecutionProvider",), ("fp32",), ("all",), ("onnx",), True
)
DEVICE = Device(
    "device-a", "f" * 8, "bench", "host", "Linux", "x86_64", 4, 8 << 30, "default", (CAPABILITY,)
)
COMPUTED = Computed(("float32 1x3",), (OutputDigest((1, 2), 2.5, (1.5, -2.0)),))
TARGET = Target("bench-ort", "bench", "onnxruntime", "1.32.0", "CPUExecutionProvider")
PROGRAM = b"not parsed by anyone"
SHA256 = hashlib.sha256(PROGRAM).hexdigest()


@dataclass(frozen=True)
class Implementation:
    """How a store is opened, and whether it can be closed and opened again."""

    name: str
    open: Callable[[Path], Store]
    durable: bool


IMPLEMENTATIONS = (
    Implementation("sqlite-file", lambda folder: open_store(folder / "latlas.db"), durable=True),
    Implementation("sqlite-memory", lambda folder: open_store(":memory:"), durable=False),
)


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda found: found.name)
def implementation(request: pytest.FixtureRequest) -> Implementation:
    found: Implementation = request.param
    return found


@pytest.fixture
def store(implementation: Implementation, tmp_path: Path) -> Iterator[Store]:
    opened = implementation.open(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def reopen(implementation: Implementation, tmp_path: Path) -> Iterator[Callable[[Store], Store]]:
    """Closes a store and opens it again, where that keeps what is in it."""
    opened = []

    def again(store: Store) -> Store:
        if not implementation.durable:
            return store
        store.close()
        opened.append(implementation.open(tmp_path))
        return opened[-1]

    yield again
    for store in opened:
        store.close()


class Fleet:
    """One agent with one device, a target, a program, and whatever a test adds."""

    agent, device, target, sha256, program = AGENT, DEVICE, TARGET, SHA256, PROGRAM

    def __init__(self, store: Store) -> None:
        self.store = store
        store.attach_agent(AGENT, [DEVICE], now_ns=1_000)
        store.add_target(TARGET)
        store.put_program(
            ProgramRecord(SHA256, "onnx", len(PROGRAM), ProgramOrigin.UPLOADED), PROGRAM
        )

    def campaign(
        self, name: str = "first", n_tasks: int = 2, n_rounds: int = 2, mode: str = PLAIN
    ) -> list[Task]:
        """A campaign whose tasks are `first-0`, `first-1`, ..."""
        sampling = Sampling(n_rounds=n_rounds)
        plan = MeasurePlan((MeasuredProgram(SHA256, "mine"),))
        tasks = [
            Task(
                f"{name}-{i}", name, TARGET.name, SHA256, mode, Role.MEASURED, f"mine {i}", sampling
            )
            for i in range(n_tasks)
        ]
        self.store.create_campaign(Campaign(name, TARGET.name, plan, sampling, 5), tasks)
        return tasks

    def finish(self, name: str) -> bool:
        """Ends a campaign that is complete; whether it was."""
        tasks = self.store.list_tasks(name)
        looked = Looked.at(tasks, len(self.store.list_visit_summaries(name)))
        return self.store.settle_campaign(name, Findings(), {}, looked)

    def lease(
        self,
        tasks: list[Task],
        lease_id: str = "lease-1",
        agent: AgentRecord = AGENT,
        device: Device = DEVICE,
        deadline_ns: int = 100,
    ) -> LeaseRecord:
        items = tuple(LeaseItem(t.task_id, tuple(range(t.sampling.n_rounds))) for t in tasks)
        return self.store.create_lease(
            NewLease(
                lease_id,
                agent.agent_id,
                agent.epoch,
                device.device_id,
                tasks[0].campaign,
                items,
                created_ns=10,
                deadline_ns=deadline_ns,
            )
        )

    def visit(self, task: Task, number: int, device: Device = DEVICE, n_nodes: int = 3) -> Visit:
        samples = np.array([1_000_000, 1_000_300, 1_000_200], dtype=np.int64) + number
        nodes = [
            Series(f"tensor{i}", samples // 10 + i, f"node{i}/Conv", "cpu") for i in range(n_nodes)
        ]
        return Visit(
            task.task_id,
            device.device_id,
            number,
            task.mode,
            started_ns=2_000 + number,
            duration_ns=int(samples.sum()),
            warmup_runs=2,
            series=(
                Series(WHOLE_NETWORK, samples),
                *(nodes if task.mode == PROFILED else []),
            ),
            conditions=Conditions(clock_mhz=1800.0, throttled=False),
            opening=None if number else Opening(7_000, 80, memory_bytes=9, computed=COMPUTED),
        )

    def report(
        self, sequence: int, lease: LeaseRecord, outcome: Visit | TaskFailure, **changes: object
    ) -> Report:
        return dataclasses.replace(Report(sequence, lease.reference, outcome), **changes)

    def batch(self, *reports: Report, agent: AgentRecord = AGENT) -> ReportBatch:
        return ReportBatch(agent.agent_id, agent.epoch, reports)


@pytest.fixture
def fleet(store: Store) -> Fleet:
    return Fleet(store)
