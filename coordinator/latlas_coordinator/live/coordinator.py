"""`Coordinator`: the store and everything in memory around it, as one thing that runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from latlas_coordinator.live.changes import Changes
from latlas_coordinator.live.committer import ReportCommitter
from latlas_coordinator.live.dispatcher import Dispatcher
from latlas_coordinator.live.sessions import Sessions
from latlas_coordinator.live.workers import Workers
from latlas_coordinator.scheduling import LeasePolicy
from latlas_coordinator.storage import Store
from latlas_ops.errors import UnreachableError

_LOG = logging.getLogger(__name__)


class Coordinator:
    """What both services share. Belongs to one event loop.

    Attributes:
        store: everything that lasts.
        policy: how work is handed out.
        clock_ns: Unix time.
        workers: threads for what blocks.
        changes: wakes those who watch.
        sessions: agents that are connected.
        committer: takes reports in.
        dispatcher: hands work out.
        stopping: whether no new agents are let in.
    """

    def __init__(
        self,
        store: Store,
        policy: LeasePolicy | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.store = store
        self.policy = policy or LeasePolicy()
        self.clock_ns = clock_ns
        self.workers = Workers()
        self.changes = Changes()
        self.sessions = Sessions()
        self.committer = ReportCommitter(store, self.workers, clock_ns)
        self.dispatcher = Dispatcher(
            store=store,
            workers=self.workers,
            sessions=self.sessions,
            changes=self.changes,
            policy=self.policy,
            clock_ns=clock_ns,
        )
        self.stopping = False
        self._loops: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Takes up what an earlier coordinator left in the store, and begins to work."""
        deadline_ns = self.clock_ns() + self.policy.duration_ns
        await self.workers.store(self.store.recover, deadline_ns)
        for loop in (self.committer.run(), self.dispatcher.run()):
            task = asyncio.create_task(loop)
            task.add_done_callback(_log_end)
            self._loops.append(task)

    def end_sessions(self) -> None:
        """Asks every agent to come back later, and lets no new one in."""
        self.stopping = True
        for session in self.sessions:
            session.end(stopping_error())
        self.changes.notify()

    async def stop(self) -> None:
        """Ends the loops and waits for the threads; the store stays open."""
        for task in self._loops:
            task.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await asyncio.to_thread(self.workers.close)


def stopping_error() -> UnreachableError:
    """What those hear who call while the coordinator stops."""
    return UnreachableError("the coordinator is stopping; call again when it is back")


def _log_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.critical("a part of the coordinator has ended; restart it", exc_info=error)
