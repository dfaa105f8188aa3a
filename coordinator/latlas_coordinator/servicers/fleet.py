"""The fleet service: one stream per agent, and the download of programs."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator

import grpc.aio

from latlas_coordinator import messages
from latlas_coordinator.domain import LeaseReference, RecordedBatch, ReportBatch
from latlas_coordinator.handlers.fleet import Greeting, attach
from latlas_coordinator.live.coordinator import Coordinator, stopping_error
from latlas_coordinator.live.sessions import Session
from latlas_ops.errors import InvalidInputError, LatlasError, ProtocolError, UnreachableError
from latlas_protos import PROTOCOL_VERSION
from latlas_protos.v1 import fleet_pb2, fleet_pb2_grpc

_LOG = logging.getLogger(__name__)

_HELLO_TIMEOUT_S = 10.0
_MAX_JOINING = 64
_CHUNK_BYTES = 1 << 20
_PROBE_BYTES = 1 << 16
_LEAST_GAIN = 0.7
_NOT_HELD = "the agent does not hold it any more"

_Requests = AsyncIterator[fleet_pb2.AgentMessage]
_AttachContext = grpc.aio.ServicerContext[fleet_pb2.AgentMessage, fleet_pb2.CoordinatorMessage]
_DownloadContext = grpc.aio.ServicerContext[
    fleet_pb2.DownloadProgramRequest, fleet_pb2.ProgramChunk
]


class FleetServicer(fleet_pb2_grpc.FleetServiceServicer):
    """Lets agents in, sends them work and takes in what they report."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._joining = asyncio.Semaphore(_MAX_JOINING)

    async def Attach(  # type: ignore[override]  # the stubs know generators only
        self, request_iterator: _Requests, context: _AttachContext
    ) -> None:
        """See `fleet.proto`."""
        requests = aiter(request_iterator)
        greeting = await _read_hello(requests)
        joining = asyncio.create_task(self._join(greeting))
        try:
            session = await asyncio.shield(joining)
        except asyncio.CancelledError:
            # The store must not hold an agent as connected that has gone meanwhile.
            await self._leave(await joining)
            raise
        reading = asyncio.create_task(self._read(session, requests))
        reading.add_done_callback(lambda task: _end_with(session, task))
        try:
            while (message := await session.next_message()) is not None:
                await context.write(message)
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            await self._leave(session)

    async def DownloadProgram(  # type: ignore[override]
        self, request: fleet_pb2.DownloadProgramRequest, context: _DownloadContext
    ) -> None:
        """See `fleet.proto`."""
        store, workers = self._coordinator.store, self._coordinator.workers
        data = await workers.store(store.read_program, request.sha256)
        if not 0 <= request.offset_bytes <= len(data):
            raise InvalidInputError(
                f"program {request.sha256} has {len(data)} bytes, none at {request.offset_bytes}"
            )
        for start in range(request.offset_bytes, len(data), _CHUNK_BYTES):
            chunk = data[start : start + _CHUNK_BYTES]
            smaller = await workers.compute(_compressed, chunk)
            compressed = smaller is not None
            await context.write(
                fleet_pb2.ProgramChunk(
                    data=smaller or chunk, total_bytes=len(data), compressed=compressed
                )
            )

    # -- coming and going ------------------------------------------------------------------

    async def _join(self, greeting: Greeting) -> Session:
        agent, coordinator = greeting.agent, self._coordinator
        async with self._joining, coordinator.sessions.lock(agent.agent_id):
            if coordinator.stopping:
                raise stopping_error()
            attachment = await coordinator.workers.store(
                attach, coordinator.store, greeting, coordinator.clock_ns(), coordinator.policy
            )
            session = Session(agent.agent_id, agent.epoch, attachment.last_sequence)
            session.lease_ids.update(lease.lease_id for lease in attachment.kept)
            session.send(
                fleet_pb2.CoordinatorMessage(
                    welcome=fleet_pb2.Welcome(
                        protocol_version=PROTOCOL_VERSION,
                        last_sequence=attachment.last_sequence,
                        renewal_interval_ns=coordinator.policy.renewal_interval_ns,
                    )
                )
            )
            for lease in attachment.lost:
                session.send(messages.cancellation_message(lease.lease_id, _NOT_HELD))
            older = coordinator.sessions.put(session)
        if older is not None:
            older.end(UnreachableError(f"agent {agent.agent_id} has opened a newer stream"))
        _LOG.info("agent %s epoch %d is attached", agent.agent_id, agent.epoch)
        coordinator.changes.notify()
        coordinator.dispatcher.wake()
        return session

    async def _leave(self, session: Session) -> None:
        coordinator = self._coordinator
        async with coordinator.sessions.lock(session.agent_id):
            if not coordinator.sessions.remove(session):
                return
            await coordinator.workers.store(
                coordinator.store.detach_agent,
                session.agent_id,
                session.epoch,
                coordinator.clock_ns(),
            )
        _LOG.info("agent %s epoch %d is gone", session.agent_id, session.epoch)
        coordinator.changes.notify()

    # -- what agents say -------------------------------------------------------------------

    async def _read(self, session: Session, requests: _Requests) -> None:
        """Takes in the agent's messages, one after the other, until it ends its side."""
        async for message in requests:
            kind = message.WhichOneof("message")
            if kind == "reports":
                await self._take_reports(session, message.reports)
            elif kind == "renewal":
                await self._renew(session, message.renewal)
            elif kind == "finished":
                await self._finish(session, message.finished)
            else:
                raise ProtocolError(f"agent {session.agent_id} sent {kind or 'an empty message'}")

    async def _take_reports(self, session: Session, message: fleet_pb2.ReportBatch) -> None:
        expected = session.last_sequence + 1
        reports = []
        for report in message.reports:
            if report.sequence > expected:
                raise ProtocolError(
                    f"agent {session.agent_id} sent report {report.sequence} where {expected} was "
                    "due"
                )
            expected = max(expected, report.sequence + 1)
            reports.append(messages.report_from_message(report))
        result = await self._coordinator.committer.commit(
            ReportBatch(session.agent_id, session.epoch, tuple(reports))
        )
        for reason in result.refused:
            _LOG.warning("a report of agent %s is refused: %s", session.agent_id, reason)
        session.last_sequence = max(session.last_sequence, result.last_sequence)
        session.send(messages.acknowledgement_message(session.last_sequence))
        self._after_reports(result)

    def _after_reports(self, result: RecordedBatch) -> None:
        if result.n_visits or result.n_failures:
            self._coordinator.changes.notify()
        if result.n_failures:
            self._coordinator.dispatcher.wake()

    async def _renew(self, session: Session, message: fleet_pb2.LeaseRenewal) -> None:
        coordinator = self._coordinator
        leases = [messages.reference_from_message(lease) for lease in message.leases]
        now_ns = coordinator.clock_ns()
        deadline_ns = now_ns + coordinator.policy.duration_ns
        extended = await coordinator.workers.store(
            coordinator.store.extend_leases,
            session.agent_id,
            session.epoch,
            leases,
            deadline_ns,
            now_ns,
        )
        for lease in leases:
            if lease in extended:
                session.send(messages.extension_message(lease.lease_id, deadline_ns))
            else:
                session.lease_ids.discard(lease.lease_id)
                session.send(messages.cancellation_message(lease.lease_id, _NOT_HELD))

    async def _finish(self, session: Session, message: fleet_pb2.LeaseFinished) -> None:
        coordinator = self._coordinator
        lease: LeaseReference = messages.reference_from_message(message.lease)
        session.lease_ids.discard(lease.lease_id)
        await coordinator.workers.store(
            coordinator.store.finish_lease, session.agent_id, session.epoch, lease
        )
        coordinator.dispatcher.wake()


def _compressed(chunk: bytes) -> bytes | None:
    """The chunk compressed, None where its beginning says that this does not pay.

    Trained weights hardly shrink, those of programs that the coordinator wrote do.
    """
    probe = chunk[:_PROBE_BYTES]
    if len(zlib.compress(probe, 1)) >= _LEAST_GAIN * len(probe):
        return None
    return zlib.compress(chunk, 1)


async def _read_hello(requests: _Requests) -> Greeting:
    """The first message of a stream."""
    try:
        message = await asyncio.wait_for(anext(requests), _HELLO_TIMEOUT_S)
    except (asyncio.TimeoutError, TimeoutError) as error:
        raise ProtocolError(f"no hello within {_HELLO_TIMEOUT_S:g} s") from error
    except StopAsyncIteration as error:
        raise ProtocolError("the stream ended before a hello") from error
    if message.WhichOneof("message") != "hello":
        raise ProtocolError("an agent's first message must be a hello")
    if message.hello.protocol_version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"agent {message.hello.agent_id} speaks protocol version "
            f"{message.hello.protocol_version}, this coordinator {PROTOCOL_VERSION}: install the "
            "same release on both"
        )
    return messages.greeting_from_message(message.hello)


def _end_with(session: Session, reading: asyncio.Task[None]) -> None:
    """Ends a session for the reason for which its reading side has ended."""
    if reading.cancelled():
        return
    error = reading.exception()
    if error is None:
        session.end()
    elif isinstance(error, LatlasError):
        session.end(error)
    else:
        _LOG.error("reading from agent %s failed", session.agent_id, exc_info=error)
        session.end(LatlasError("internal error; the coordinator's log says more"))
