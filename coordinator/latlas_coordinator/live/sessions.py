"""The agents that are connected now."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from latlas_ops.errors import LatlasError
from latlas_protos.v1 import fleet_pb2


@dataclass(eq=False)
class Session:
    """One agent's stream.

    Attributes:
        agent_id: the agent.
        epoch: its epoch.
        last_sequence: last sequence that is committed.
        lease_ids: leases that the agent is known to have.
    """

    agent_id: str
    epoch: int
    last_sequence: int
    lease_ids: set[str] = field(default_factory=set)
    _outbox: asyncio.Queue[fleet_pb2.CoordinatorMessage | LatlasError | None] = field(
        default_factory=asyncio.Queue
    )

    def send(self, message: fleet_pb2.CoordinatorMessage) -> None:
        """Queues a message for the agent."""
        self._outbox.put_nowait(message)

    def end(self, error: LatlasError | None = None) -> None:
        """Ends the stream after what is queued, with `error` if there is one."""
        self._outbox.put_nowait(error)

    async def next_message(self) -> fleet_pb2.CoordinatorMessage | None:
        """The next message for the agent, None at the end; raises the error that ends it."""
        message = await self._outbox.get()
        if isinstance(message, LatlasError):
            raise message
        return message


class Sessions:
    """The session of each connected agent; a newer one takes the place of an older."""

    def __init__(self) -> None:
        self._by_agent: dict[str, Session] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_agent.values()))

    def lock(self, agent_id: str) -> asyncio.Lock:
        """Held while an agent comes or goes, so that memory and store say the same."""
        return self._locks[agent_id]

    def get(self, agent_id: str) -> Session | None:
        """The session of an agent, None if it is not connected."""
        return self._by_agent.get(agent_id)

    def put(self, session: Session) -> Session | None:
        """Registers a session; returns the one whose place it takes."""
        older = self._by_agent.get(session.agent_id)
        self._by_agent[session.agent_id] = session
        return older

    def remove(self, session: Session) -> bool:
        """Forgets a session; False if a newer one has taken its place."""
        if self._by_agent.get(session.agent_id) is not session:
            return False
        del self._by_agent[session.agent_id]
        return True
