"""The agent's session with its coordinator: one stream, attached again whenever it breaks.

Reports are numbered within the epoch and kept until they are acknowledged; after a reconnection
those beyond the coordinator's last sequence are sent again. Work on leases goes on meanwhile. The
deadline of a lease is judged by the coordinator alone: a board's clock may be years off.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio

from latlas_agent.backoff import backoff_delays_s
from latlas_agent.lease import DeviceGoneError, LeaseRunner
from latlas_agent.outbox import Outbox
from latlas_agent.phone_presence import Presence
from latlas_agent.status import latlas_error_of
from latlas_agent.tasks import Failure
from latlas_agent.timeouts import within
from latlas_latency.wire import device_to_message
from latlas_ops.errors import (
    ConflictError,
    InvalidInputError,
    ProtocolError,
    UnreachableError,
)
from latlas_protos import PROTOCOL_VERSION
from latlas_protos.v1 import fleet_pb2, fleet_pb2_grpc

if TYPE_CHECKING:
    Attachment = grpc.aio.StreamStreamCall[fleet_pb2.AgentMessage, fleet_pb2.CoordinatorMessage]

_LOG = logging.getLogger(__name__)

_MAX_MESSAGE_BYTES = 64 << 20
_WELCOME_TIMEOUT_S = 20.0
_LEAST_RENEWAL_INTERVAL_S = 0.05
_NS_PER_S = 1_000_000_000

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # also the time that one attempt may take
    ("grpc.max_reconnect_backoff_ms", 10_000),
)


@dataclass(frozen=True)
class AgentDescription:
    """What an agent says of itself when it attaches.

    Attributes:
        agent_id: kept across restarts.
        version: of the agent's code.
    """

    agent_id: str
    version: str


@dataclass(eq=False)
class _HeldLease:
    """A lease the agent has not done with.

    Attributes:
        reference: as the coordinator names it.
        work: the task that carries it out.
        finished_at: sequence of the newest report when the work ended; None while it goes on.
        told: whether the coordinator was told so on the present stream.
        device_gone: whether the work ended because its device was taken away. The lease is not
            finished then: the coordinator takes it back when it is told of the devices anew.
    """

    reference: fleet_pb2.LeaseReference
    work: asyncio.Task[None]
    finished_at: int | None = None
    told: bool = False
    device_gone: bool = False


class AgentSession:
    """Keeps one agent attached to its coordinator and carries out the leases that come down.

    Args:
        channel: to the coordinator; the caller closes it.
        address: what to call the coordinator in messages.
        description: what the agent says of itself.
        new_epoch: gives an epoch larger than all before.
        runners: carry out leases, one for each device.
        presence: the devices of the runners; the session tells the coordinator which are there.
        rng: the source of jitter between attempts to connect.
        max_wait_s: time without a coordinator after which to give up; None means never.
        new_outbox: gives an empty outbox.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        address: str,
        description: AgentDescription,
        new_epoch: Callable[[], int],
        runners: Sequence[LeaseRunner],
        presence: Presence,
        rng: random.Random,
        max_wait_s: float | None = None,
        new_outbox: Callable[[], Outbox] = Outbox,
    ) -> None:
        self._stub = cast(
            "fleet_pb2_grpc.FleetServiceAsyncStub", fleet_pb2_grpc.FleetServiceStub(channel)
        )
        self._address = address
        self._description = description
        self._runners = {runner.device.device_id: runner for runner in runners}
        self._presence = presence
        self._rng = rng
        self._max_wait_s = max_wait_s
        self._new_epoch = new_epoch
        self._new_outbox = new_outbox
        self._epoch = new_epoch()
        self._outbox = new_outbox()
        self._held: dict[str, _HeldLease] = {}
        self._works: set[asyncio.Task[None]] = set()  # those of abandoned leases included
        self._device_free: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._something_to_send = asyncio.Event()
        self._broken_work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._attached_since_failure = False

    async def run(self, stop: asyncio.Event) -> None:
        """Stays attached until `stop` is set; ends every worker before it returns.

        Raises:
            UnreachableError: the coordinator did not answer for `max_wait_s`.
            ProtocolError: the other side is no coordinator of this version.
            LatlasError: the coordinator refuses this agent for good.
        """
        attached = asyncio.create_task(self._stay_attached())
        stopped = asyncio.create_task(stop.wait())
        waited: set[asyncio.Future[Any]] = {attached, stopped, self._broken_work}
        try:
            done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
        finally:
            await _cancel(attached, stopped)
            await _cancel(*self._works)
            self._broken_work.cancel()

    async def _stay_attached(self) -> None:
        clock_s = asyncio.get_running_loop().time
        alone_since_s = clock_s()
        delays_s = backoff_delays_s(self._rng)
        while True:
            if not self._presence.devices:
                _LOG.warning("no device is there; waiting for one to come back")
                await self._presence.wait_for_any()
                alone_since_s = clock_s()
            try:
                reason = await self._attach()
            except grpc.aio.AioRpcError as error:
                _raise_if_final(error, self._address)
                reason = _shortly(error)
            if self._attached_since_failure:
                self._attached_since_failure = False
                alone_since_s = clock_s()
                delays_s = backoff_delays_s(self._rng)
            delay_s = next(delays_s)
            if self._max_wait_s is not None:
                left_s = alone_since_s + self._max_wait_s - clock_s()
                if left_s <= 0:
                    raise UnreachableError(
                        f"coordinator {self._address} has not answered for {self._max_wait_s:g} s "
                        f"({reason}); start it with `latlas serve`, or check the address"
                    )
                delay_s = min(delay_s, left_s)
            _LOG.warning(
                "not attached to coordinator %s (%s); trying again in %.1f s",
                self._address,
                reason,
                delay_s,
            )
            await asyncio.sleep(delay_s)

    async def _attach(self) -> str:
        """One stream, from hello to its end; returns why it ended."""
        open_stream: Any = self._stub.Attach  # the stubs demand a request iterator; grpc does not
        call: Attachment = open_stream()
        try:
            with suppress(asyncio.InvalidStateError):  # over already; reading says why
                await call.write(fleet_pb2.AgentMessage(hello=self._hello()))
            try:
                first = await within(_WELCOME_TIMEOUT_S, call.read())
            except TimeoutError:
                return f"no welcome within {_WELCOME_TIMEOUT_S:g} s"
            if not isinstance(first, fleet_pb2.CoordinatorMessage):
                return "it closed the stream without a welcome"
            welcome = self._check_welcome(first)
            names = ", ".join(device.device_id for device in self._presence.devices)
            _LOG.info("attached to %s as %s", self._address, names)
            self._attached_since_failure = True
            if welcome.last_sequence < self._outbox.acknowledged:
                self._start_over()
                return "it has lost what it had acknowledged; attaching as after a restart"
            self._acknowledge(welcome.last_sequence)
            for held in self._held.values():
                held.told = False
            interval_s = max(welcome.renewal_interval_ns / _NS_PER_S, _LEAST_RENEWAL_INTERVAL_S)
            sending = asyncio.create_task(self._send(call, welcome.last_sequence, interval_s))
            receiving = asyncio.create_task(self._receive(call))
            stale = asyncio.create_task(self._presence.stale.wait())
            try:
                ends: set[asyncio.Task[Any]] = {sending, receiving, stale}
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if sending.done():
                    sending.result()
                if stale.done() and not receiving.done():
                    return "other devices are there now"
                await receiving
            finally:
                await _cancel(sending, receiving, stale)
            return "it closed the stream"
        finally:
            call.cancel()

    def _hello(self) -> fleet_pb2.Hello:
        description = self._description
        self._presence.stale.clear()
        return fleet_pb2.Hello(
            protocol_version=PROTOCOL_VERSION,
            agent_id=description.agent_id,
            epoch=self._epoch,
            agent_version=description.version,
            devices=[device_to_message(device) for device in self._presence.devices],
            held=[held.reference for held in self._held.values()],
        )

    def _check_welcome(self, message: fleet_pb2.CoordinatorMessage) -> fleet_pb2.Welcome:
        if message.WhichOneof("message") != "welcome":
            raise ProtocolError(f"{self._address} did not begin with a welcome")
        version = message.welcome.protocol_version
        if version != PROTOCOL_VERSION:
            raise ProtocolError(
                f"coordinator {self._address} speaks protocol version {version}, this agent "
                f"{PROTOCOL_VERSION}; install the same release of latlas on both"
            )
        return message.welcome

    def _start_over(self) -> None:
        """Begins a new epoch: the coordinator's store is another one than it was."""
        for lease_id in list(self._held):
            self._abandon(lease_id, "the coordinator does not know it")
        self._epoch = self._new_epoch()
        self._outbox = self._new_outbox()

    async def _send(self, call: Attachment, sent: int, interval_s: float) -> None:
        """Sends what there is until the stream is over; that is seen best by `_receive`."""
        with suppress(asyncio.InvalidStateError):
            await self._keep_sending(call, sent, interval_s)

    async def _keep_sending(self, call: Attachment, sent: int, interval_s: float) -> None:
        """Sends reports beyond `sent` as they come, news of finished leases, and renewals."""
        clock_s = asyncio.get_running_loop().time
        renew_at_s = clock_s()
        while True:
            self._something_to_send.clear()
            while batch := self._outbox.batch_after(sent):
                reports = fleet_pb2.ReportBatch(reports=batch)
                await call.write(fleet_pb2.AgentMessage(reports=reports))
                sent = batch[-1].sequence
            for held in list(self._held.values()):
                if held.device_gone or held.told or held.finished_at is None:
                    continue
                if held.finished_at <= sent:
                    finished = fleet_pb2.LeaseFinished(lease=held.reference)
                    held.told = True
                    await call.write(fleet_pb2.AgentMessage(finished=finished))
            self._forget_finished()
            if clock_s() >= renew_at_s:
                leases = [held.reference for held in self._held.values()]
                renewal = fleet_pb2.LeaseRenewal(leases=leases)
                await call.write(fleet_pb2.AgentMessage(renewal=renewal))
                renew_at_s = clock_s() + interval_s
            with suppress(TimeoutError):
                await within(max(0.0, renew_at_s - clock_s()), self._something_to_send.wait())

    async def _receive(self, call: Attachment) -> None:
        """Obeys the coordinator until it ends the stream. Extensions need no action."""
        while True:
            message = await call.read()
            if not isinstance(message, fleet_pb2.CoordinatorMessage):
                return
            kind = message.WhichOneof("message")
            if kind == "lease":
                self._accept(message.lease)
            elif kind == "acknowledgement":
                self._acknowledge(message.acknowledgement.sequence)
                self._forget_finished()
            elif kind == "cancellation":
                self._abandon(message.cancellation.lease_id, message.cancellation.reason)

    def _accept(self, lease: fleet_pb2.Lease) -> None:
        known = self._held.get(lease.lease_id)
        if known is not None:
            if lease.fencing_token <= known.reference.fencing_token:
                return
            self._abandon(lease.lease_id, "it was given again under a newer token")
        reference = fleet_pb2.LeaseReference(
            lease_id=lease.lease_id, fencing_token=lease.fencing_token
        )
        work = asyncio.create_task(self._carry_out(lease, reference))
        self._works.add(work)
        work.add_done_callback(self._note_end_of_work)
        self._held[lease.lease_id] = _HeldLease(reference, work)
        _LOG.info("lease %s: %d tasks", lease.lease_id, len(lease.items))

    def _acknowledge(self, sequence: int) -> None:
        self._outbox.acknowledge(sequence)
        self._let_go()

    def _let_go(self) -> None:
        """Drops leases of devices that are gone, as soon as what was measured is committed."""
        for lease_id, held in list(self._held.items()):
            if held.device_gone and self._outbox.acknowledged >= (held.finished_at or 0):
                del self._held[lease_id]
                self._presence.stale.set()

    def _abandon(self, lease_id: str, reason: str) -> None:
        held = self._held.pop(lease_id, None)
        if held is not None:
            _LOG.info("lease %s is abandoned: %s", lease_id, reason)
            held.work.cancel()

    async def _carry_out(self, lease: fleet_pb2.Lease, reference: fleet_pb2.LeaseReference) -> None:
        """The work on one lease; leases of one device wait for one another."""
        runner = self._runners.get(lease.device_id) or next(iter(self._runners.values()))
        gone: DeviceGoneError | None = None
        async with self._device_free[lease.device_id]:
            try:
                await self._report_outcomes(runner, lease, reference)
            except DeviceGoneError as error:
                _LOG.warning("device %s: %s", lease.device_id, error)
                self._presence.lose(lease.device_id)
                gone = error
        held = self._held.get(lease.lease_id)
        if held is not None and held.reference == reference:
            held.finished_at = self._outbox.last_sequence
            held.device_gone = gone is not None
            self._something_to_send.set()
            _LOG.info("lease %s is %s", lease.lease_id, "given back" if gone else "finished")
        elif gone is not None:
            self._presence.stale.set()
        self._let_go()

    async def _report_outcomes(
        self, runner: LeaseRunner, lease: fleet_pb2.Lease, reference: fleet_pb2.LeaseReference
    ) -> None:
        async with aclosing(runner.run(lease)) as outcomes:
            async for outcome in outcomes:
                if isinstance(outcome, Failure):
                    _LOG.warning(
                        "task %s failed: %s: %s",
                        outcome.task_id,
                        outcome.error_code,
                        outcome.reason,
                    )
                await self._outbox.put(reference, outcome)
                self._something_to_send.set()

    def _note_end_of_work(self, work: asyncio.Task[None]) -> None:
        """An exception that nobody foresaw ends the agent, visibly."""
        self._works.discard(work)
        if work.cancelled() or self._broken_work.done():
            return
        error = work.exception()
        if error is not None:
            self._broken_work.set_exception(error)

    def _forget_finished(self) -> None:
        """Drops leases whose end was told and whose reports are all acknowledged."""
        for lease_id, held in list(self._held.items()):
            finished_at = held.finished_at
            if finished_at is None or not held.told or held.device_gone:
                continue
            if self._outbox.acknowledged >= finished_at:
                del self._held[lease_id]


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks and waits for their end; what they raise has been seen or does not matter."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _shortly(error: grpc.aio.AioRpcError) -> str:
    """What went wrong; gRPC puts the cause of a failed connection behind the last colon."""
    details = error.details() or ""
    if error.code() == grpc.StatusCode.UNAVAILABLE and latlas_error_of(error) is None:
        details = details.rpartition(": ")[2]
    return f"{error.code().name}: {details}"


def _raise_if_final(error: grpc.aio.AioRpcError, address: str) -> None:
    """Raises where trying again cannot help."""
    if error.code() == grpc.StatusCode.UNIMPLEMENTED:
        raise ProtocolError(f"{address} is a gRPC server but no Latlas coordinator") from error
    refusal = latlas_error_of(error)
    if isinstance(refusal, (ConflictError, InvalidInputError, ProtocolError)):
        raise refusal from error
