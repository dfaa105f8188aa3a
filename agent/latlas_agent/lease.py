"""What an agent does with a lease: check its tasks, fetch their programs, measure, report."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Protocol

from latlas_agent.programs import Download, ProgramCache
from latlas_agent.supervisor import Job, WorkerSettings, measure
from latlas_agent.tasks import Failure, Task
from latlas_latency.measurement import Device, Target, Visit
from latlas_ops.errors import (
    LatlasError,
    MeasurementError,
    NotFoundError,
    RuntimeUnavailableError,
)
from latlas_protos.v1 import fleet_pb2


class DeviceGoneError(MeasurementError):
    """A device was taken away from its agent, which goes on without it."""


class Bench(Protocol):
    """What measures on one device."""

    def check(self, target: Target) -> None:
        """Raises the `LatlasError` for which a target cannot be measured here, if there is one."""

    def measure(self, jobs: Sequence[Job], seed: int) -> AsyncGenerator[Visit | Failure, None]:
        """Makes every visit that `jobs` want, interleaved in rounds; see `supervisor.measure`.

        Raises:
            DeviceGoneError: the device is gone; the tasks that are left may be measured elsewhere.
        """


class WorkerBench:
    """Measures in workers on the board itself.

    Args:
        settings: how workers are run.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings

    def check(self, target: Target) -> None:
        """See `Bench.check`."""
        self._settings.cores_for(target)

    def measure(self, jobs: Sequence[Job], seed: int) -> AsyncGenerator[Visit | Failure, None]:
        """See `Bench.measure`; a board that an agent runs on is never gone."""
        return measure(jobs, self._settings, seed)


class LeaseRunner:
    """Carries out leases of one device, one at a time.

    Args:
        device: the device and what it can run.
        programs: where programs are kept.
        download: where they come from.
        bench: what measures on the device.
    """

    def __init__(
        self, device: Device, programs: ProgramCache, download: Download, bench: Bench
    ) -> None:
        self.device = device
        self._programs = programs
        self._download = download
        self._bench = bench

    async def run(self, lease: fleet_pb2.Lease) -> AsyncGenerator[Visit | Failure, None]:
        """Yields every visit that the lease wants, or the one failure of a task.

        Closing the iterator ends the work at once.

        Raises:
            DeviceGoneError: the device is gone; what has no outcome yet will get none.
        """
        jobs: list[Job] = []
        for item in lease.items:
            try:
                jobs.append(await self._prepare(lease, item))
            except LatlasError as error:
                yield Failure.of(item.task_id, error)
        if jobs:
            self._programs.evict(keep={job.task.program_sha256 for job in jobs})
        async with aclosing(self._bench.measure(jobs, _seed(lease.lease_id))) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def _prepare(self, lease: fleet_pb2.Lease, item: fleet_pb2.LeaseItem) -> Job:
        """The item as a task that can run here, its program in place."""
        if lease.device_id != self.device.device_id:
            raise NotFoundError(
                f"device {lease.device_id} is not on this agent, which serves "
                f"{self.device.device_id}"
            )
        task = Task.from_message(item)
        capability = self.device.require_capable(task.target)
        if task.program_format not in capability.program_formats:
            raise RuntimeUnavailableError(
                f"{task.target.runtime} on device {self.device.device_id} loads "
                f"{', '.join(capability.program_formats)}, not {task.program_format!r}"
            )
        self._bench.check(task.target)
        program = await self._programs.fetch(
            task.program_sha256, task.program_bytes, self._download
        )
        return Job(task, program)


def _seed(lease_id: str) -> int:
    """The seed of a lease's order of visits: the same for the same lease."""
    return int.from_bytes(hashlib.sha256(lease_id.encode()).digest()[:8], "big")
