"""The loop that hands out work and takes back what is lost."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from contextlib import suppress

from latlas_coordinator.handlers.fleet import Dispatch, dispatch
from latlas_coordinator.live.changes import Changes
from latlas_coordinator.live.sessions import Sessions
from latlas_coordinator.live.workers import Workers
from latlas_coordinator.messages import cancellation_message, lease_message
from latlas_coordinator.scheduling import LeasePolicy
from latlas_coordinator.storage import Store
from latlas_ops.errors import LatlasError

_LOG = logging.getLogger(__name__)

_RETRY_S = 1.0
_NS_PER_S = 1_000_000_000
_LOST = "its deadline has passed or its campaign was cancelled"


def new_lease_id() -> str:
    """An identity that no other lease has."""
    return uuid.uuid4().hex


class Dispatcher:
    """Looks at the store whenever something may have become free, and when a look is due."""

    def __init__(
        self,
        *,
        store: Store,
        workers: Workers,
        sessions: Sessions,
        changes: Changes,
        policy: LeasePolicy,
        clock_ns: Callable[[], int],
        new_id: Callable[[], str] = new_lease_id,
    ) -> None:
        self._store = store
        self._workers = workers
        self._sessions = sessions
        self._changes = changes
        self._policy = policy
        self._clock_ns = clock_ns
        self._new_id = new_id
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Says that work or a device may have become free, or a campaign ended."""
        self._wake.set()

    async def run(self) -> None:
        """Hands out work until it is cancelled."""
        while True:
            self._wake.clear()
            wait_s: float | None = _RETRY_S
            try:
                result = await self._workers.store(
                    dispatch, self._store, self._clock_ns(), self._policy, self._new_id
                )
            except LatlasError as error:
                _LOG.error("cannot hand out work, trying again in %g s: %s", _RETRY_S, error)
            except Exception:
                # A bug, but one that must not leave every device idle for ever.
                _LOG.exception("handing out work failed, trying again in %g s", _RETRY_S)
            else:
                self._deliver(result)
                wait_s = self._wait_s(result)
            with suppress(asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)

    def _wait_s(self, result: Dispatch) -> float | None:
        if result.next_look_ns is None:
            return None
        return max(0.0, (result.next_look_ns - self._clock_ns()) / _NS_PER_S) + 0.01

    def _deliver(self, result: Dispatch) -> None:
        for work in result.work:
            session = self._sessions.get(work.lease.agent_id)
            # An agent that has gone meanwhile keeps the lease until its deadline.
            if session is not None and session.epoch == work.lease.epoch:
                session.lease_ids.add(work.lease.lease_id)
                session.send(lease_message(work))
        for session in self._sessions:
            for lease_id in sorted(session.lease_ids - result.active):
                session.lease_ids.discard(lease_id)
                session.send(cancellation_message(lease_id, _LOST))
        if result.changed:
            self._changes.notify()
