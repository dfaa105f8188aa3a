"""Committing what agents report, in groups: one flush to the medium serves many agents."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from latlas_coordinator.domain import RecordedBatch, ReportBatch
from latlas_coordinator.live.workers import Workers
from latlas_coordinator.storage import Store

_LOG = logging.getLogger(__name__)

_MAX_GROUP = 64

_Waiting = tuple[ReportBatch, "asyncio.Future[RecordedBatch]"]


class ReportCommitter:
    """Collects batches while a transaction runs and commits them together in the next one."""

    def __init__(self, store: Store, workers: Workers, clock_ns: Callable[[], int]) -> None:
        self._store = store
        self._workers = workers
        self._clock_ns = clock_ns
        self._waiting: list[_Waiting] = []
        self._arrived = asyncio.Event()

    async def commit(self, batch: ReportBatch) -> RecordedBatch:
        """Returns once the reports of `batch` are committed.

        Raises:
            StorageError: they are not; they may be committed again.
        """
        done: asyncio.Future[RecordedBatch] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, done))
        self._arrived.set()
        return await done

    async def run(self) -> None:
        """Commits what arrives, until it is cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                group, self._waiting = self._waiting[:_MAX_GROUP], self._waiting[_MAX_GROUP:]
                await self._commit_group(group)

    async def _commit_group(self, group: list[_Waiting]) -> None:
        try:
            results = await self._workers.store(
                self._store.record_reports, [batch for batch, _ in group], self._clock_ns()
            )
        except Exception as error:
            if len(group) > 1:
                # What one agent sends must not hold up the others.
                for waiting in group:
                    await self._commit_group([waiting])
                return
            batch, done = group[0]
            _LOG.error("reports of agent %s cannot be committed: %s", batch.agent_id, error)
            if not done.done():
                done.set_exception(error)
            return
        for (_, done), result in zip(group, results, strict=True):
            if not done.done():
                done.set_result(result)
