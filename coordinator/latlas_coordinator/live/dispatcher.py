"""The loop that hands out work and takes back what is lost."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress

from latlas_coordinator.domain import Campaign
from latlas_coordinator.handlers.fleet import Dispatch, dispatch
from latlas_coordinator.handlers.settling import end_as_it_is, settle
from latlas_coordinator.live.changes import Changes
from latlas_coordinator.live.sessions import Sessions
from latlas_coordinator.live.workers import Workers
from latlas_coordinator.messages import cancellation_message, lease_message
from latlas_coordinator.scheduling import LeasePolicy
from latlas_coordinator.storage import Store
from latlas_ops.errors import LatlasError

_LOG = logging.getLogger(__name__)

_RETRY_S = 1.0
_LONGEST_RETRY_S = 60.0
_MOST_TRIES = 5
"""So often is a campaign looked at that cannot be; then it ends as it is."""

_NS_PER_S = 1_000_000_000
_sleep = asyncio.sleep
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
        self._settling: dict[str, asyncio.Task[None]] = {}
        self._n_tries: dict[str, int] = {}

    def wake(self) -> None:
        """Says that work or a device may have become free, or a campaign ended."""
        self._wake.set()

    async def run(self) -> None:
        """Hands out work until it is cancelled."""
        try:
            await self._run()
        finally:
            for task in self._settling.values():
                task.cancel()

    async def _run(self) -> None:
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
                self._settle_all(result.complete)
                wait_s = self._wait_s(result)
            with suppress(asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait_s)

    def _wait_s(self, result: Dispatch) -> float | None:
        if result.next_look_ns is None:
            return None
        return max(0.0, (result.next_look_ns - self._clock_ns()) / _NS_PER_S) + 0.01

    def _settle_all(self, complete: Sequence[Campaign]) -> None:
        """Begins to settle campaigns, each once at a time, while work is handed out as ever."""
        for campaign in complete:
            if campaign.name not in self._settling:
                self._settling[campaign.name] = asyncio.create_task(self._settle(campaign))

    async def _settle(self, campaign: Campaign) -> None:
        """Settles a campaign; one that fails for good ends as it is, with the reason."""
        name = campaign.name
        try:
            await self._workers.settle(
                settle, self._store, campaign, self._clock_ns(), self._policy.max_attempts
            )
            self._n_tries.pop(name, None)
        except Exception as error:
            n_tries = self._n_tries[name] = self._n_tries.get(name, 0) + 1
            _LOG.exception("cannot settle campaign %s (try %d)", name, n_tries)
            if n_tries < _MOST_TRIES or not await self._end_as_it_is(campaign, error):
                await _sleep(min(_RETRY_S * 2 ** (n_tries - 1), _LONGEST_RETRY_S))
        finally:
            del self._settling[name]
        self._changes.notify()
        self.wake()

    async def _end_as_it_is(self, campaign: Campaign, error: Exception) -> bool:
        reason = str(error).partition("\n")[0] or type(error).__name__
        try:
            ended = await self._workers.settle(end_as_it_is, self._store, campaign, reason)
        except Exception:
            _LOG.exception("cannot end campaign %s", campaign.name)
            return False
        if ended:
            self._n_tries.pop(campaign.name, None)
        return ended

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
