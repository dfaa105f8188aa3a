"""What an agent does with a lease: check its tasks, fetch their programs, measure, report."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

from latlas_agent.programs import Download, ProgramCache
from latlas_agent.supervisor import Job, WorkerSettings, measure
from latlas_agent.tasks import Failure, Task
from latlas_latency.measurement import Device, Visit
from latlas_ops.errors import LatlasError, NotFoundError, RuntimeUnavailableError
from latlas_protos.v1 import fleet_pb2


class LeaseRunner:
    """Carries out leases, one at a time.

    Args:
        device: the board and what it can run.
        programs: where programs are kept.
        download: where they come from.
        settings: how workers are run.
    """

    def __init__(
        self,
        device: Device,
        programs: ProgramCache,
        download: Download,
        settings: WorkerSettings,
    ) -> None:
        self._device = device
        self._programs = programs
        self._download = download
        self._settings = settings

    async def run(self, lease: fleet_pb2.Lease) -> AsyncGenerator[Visit | Failure, None]:
        """Yields every visit that the lease wants, or the one failure of a task.

        Closing the iterator ends the work at once.
        """
        jobs: list[Job] = []
        for item in lease.items:
            try:
                jobs.append(await self._prepare(lease, item))
            except LatlasError as error:
                yield Failure.of(item.task_id, error)
        self._programs.evict(keep={job.task.program_sha256 for job in jobs})
        async with aclosing(measure(jobs, self._settings, _seed(lease.lease_id))) as outcomes:
            async for outcome in outcomes:
                yield outcome

    async def _prepare(self, lease: fleet_pb2.Lease, item: fleet_pb2.LeaseItem) -> Job:
        """The item as a task that can run here, its program in place."""
        if lease.device_id != self._device.device_id:
            raise NotFoundError(
                f"device {lease.device_id} is not on this agent, which serves "
                f"{self._device.device_id}"
            )
        task = Task.from_message(item)
        capability = self._device.require_capable(task.target)
        if task.program_format not in capability.program_formats:
            raise RuntimeUnavailableError(
                f"{task.target.runtime} on device {self._device.device_id} loads "
                f"{', '.join(capability.program_formats)}, not {task.program_format!r}"
            )
        self._settings.cores_for(task.target)
        program = await self._programs.fetch(
            task.program_sha256, task.program_bytes, self._download
        )
        return Job(task, program)


def _seed(lease_id: str) -> int:
    """The seed of a lease's order of visits: the same for the same lease."""
    return int.from_bytes(hashlib.sha256(lease_id.encode()).digest()[:8], "big")
