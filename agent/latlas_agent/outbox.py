"""Reports that the coordinator has not acknowledged yet."""

from __future__ import annotations

import asyncio
from collections import deque

from latlas_agent.tasks import Failure
from latlas_latency.measurement import Visit
from latlas_latency.wire import visit_to_message
from latlas_protos.v1 import fleet_pb2

_MAX_BATCH_REPORTS = 64
_MAX_BATCH_BYTES = 4 << 20


class Outbox:
    """Numbers reports from 1 without gaps and keeps them until they are acknowledged.

    Args:
        max_bytes: size at which `put` waits for acknowledgements; one report always fits.
    """

    def __init__(self, max_bytes: int = 64 << 20) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._reports: deque[fleet_pb2.Report] = deque()
        self._room = asyncio.Event()
        self._room.set()
        self.last_sequence = 0
        """Sequence of the newest report; 0 if there was none."""
        self.acknowledged = 0
        """Sequence up to which everything has been acknowledged."""

    async def put(self, lease: fleet_pb2.LeaseReference, outcome: Visit | Failure) -> int:
        """Takes in a report and returns its sequence; waits while the outbox is full."""
        await self._room.wait()
        self.last_sequence += 1
        report = fleet_pb2.Report(sequence=self.last_sequence, lease=lease)
        if isinstance(outcome, Visit):
            report.visit.CopyFrom(visit_to_message(outcome))
        else:
            report.failure.CopyFrom(
                fleet_pb2.TaskFailure(
                    task_id=outcome.task_id,
                    error_code=outcome.error_code,
                    reason=outcome.reason,
                )
            )
        self._reports.append(report)
        self._held_bytes += report.ByteSize()
        self._note_room()
        return self.last_sequence

    def acknowledge(self, sequence: int) -> None:
        """Drops everything up to `sequence`."""
        self.acknowledged = max(self.acknowledged, sequence)
        while self._reports and self._reports[0].sequence <= sequence:
            self._held_bytes -= self._reports.popleft().ByteSize()
        self._note_room()

    def batch_after(self, sequence: int) -> list[fleet_pb2.Report]:
        """The next reports beyond `sequence`, as many as fit one message; empty if none."""
        batch: list[fleet_pb2.Report] = []
        n_bytes = 0
        for report in self._reports:
            if report.sequence <= sequence:
                continue
            n_bytes += report.ByteSize()
            if batch and (len(batch) >= _MAX_BATCH_REPORTS or n_bytes > _MAX_BATCH_BYTES):
                break
            batch.append(report)
        return batch

    def _note_room(self) -> None:
        if self._held_bytes < self._max_bytes:
            self._room.set()
        else:
            self._room.clear()
