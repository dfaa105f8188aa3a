"""A coordinator on a real socket, and agents that say exactly what a test wants."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from latlas_coordinator.domain import (
    AgentRecord,
    Findings,
    LeaseItem,
    Looked,
    NewLease,
    ProfilePlan,
    ProgramRecord,
    Report,
    ReportBatch,
    Role,
    Sampling,
    Task,
)
from latlas_coordinator.handlers.campaigns import CampaignDefinition, start_campaign
from latlas_coordinator.scheduling import LeasePolicy
from latlas_coordinator.server import ServerAddresses, serve
from latlas_coordinator.storage import Store
from latlas_latency.measurement import (
    PROFILED,
    WHOLE_NETWORK,
    Device,
    RuntimeCapability,
    Series,
    Target,
    Visit,
)
from latlas_latency.wire import device_to_message, visit_to_message
from latlas_ops.costs import op_cost
from latlas_ops.network import Network
from latlas_ops.opspec import OpSpec
from latlas_protos.v1 import fleet_pb2, fleet_pb2_grpc, query_pb2, query_pb2_grpc

LIMIT_S = 20.0
CAPABILITY = RuntimeCapability(
    "onnxruntime",
    "1.32.0",
    ("AzureExecutionProvider", "CPUExecutionProvider"),
    ("fp32",),
    ("all", "basic"),
    ("onnx",),
    True,
)


def make_device(device_id: str = "device-a", **changes: object) -> Device:
    values = {
        "device_id": device_id,
        "fingerprint": "f" * 8,
        "device_model": "bench",
        "host_name": "host",
        "operating_system": "Linux",
        "architecture": "x86_64",
        "n_cores": 4,
        "memory_bytes": 8 << 30,
        "power_mode": "default",
        "runtimes": (CAPABILITY,),
    }
    return Device(**{**values, **changes})


class Client:
    """Stubs for a coordinator."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.channel = grpc.insecure_channel(address)
        self.query = query_pb2_grpc.QueryServiceStub(self.channel)
        self.fleet = fleet_pb2_grpc.FleetServiceStub(self.channel)


class RunningServer(Client):
    """`serve` in a thread of its own, with stubs for it."""

    def __init__(self, database: Path | str, policy: LeasePolicy) -> None:
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        ready: Future[ServerAddresses] = Future()

        async def main() -> None:
            self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
            await serve(
                database=database,
                host="127.0.0.1",
                port=0,
                http_port=None,
                insecure=False,
                on_ready=ready.set_result,
                stop=self._stop,
                policy=policy,
            )

        def run() -> None:
            try:
                asyncio.run(main())
            except BaseException as error:
                if not ready.done():
                    ready.set_exception(error)
                raise

        self._thread = threading.Thread(target=run)
        self._thread.start()
        super().__init__(ready.result(LIMIT_S).grpc)

    def stop(self) -> None:
        """Asks it to stop."""
        self._loop.call_soon_threadsafe(self._stop.set)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        """Asks it to stop and waits until it has."""
        self.channel.close()
        if self.is_running:
            self.stop()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()


@pytest.fixture
def policy() -> LeasePolicy:
    """Leases that outlast any test; tests of expiry override it."""
    return LeasePolicy(duration_ns=60_000_000_000)


@pytest.fixture
def start_server(tmp_path: Path, policy: LeasePolicy) -> Iterator[Callable[[], RunningServer]]:
    """Starts a coordinator on the test's database; the same one each time."""
    running: list[RunningServer] = []

    def start() -> RunningServer:
        running.append(RunningServer(tmp_path / "latlas.db", policy))
        return running[-1]

    yield start
    for server in running:
        server.close()


@pytest.fixture
def server(start_server: Callable[[], RunningServer]) -> RunningServer:
    return start_server()


class FakeAgent:
    """One stream of a scripted agent. Leaves everything to the test."""

    def __init__(
        self,
        address: str,
        *,
        agent_id: str = "agent-a",
        epoch: int = 1,
        devices: tuple[Device, ...] = (make_device(),),
        held: tuple[fleet_pb2.LeaseReference, ...] = (),
        protocol_version: int = 1,
    ) -> None:
        self._channel = grpc.insecure_channel(address)
        self._outgoing: queue.Queue[fleet_pb2.AgentMessage | None] = queue.Queue()
        self._incoming: queue.Queue[fleet_pb2.CoordinatorMessage | grpc.RpcError | None] = (
            queue.Queue()
        )
        self._call = fleet_pb2_grpc.FleetServiceStub(self._channel).Attach(
            iter(self._outgoing.get, None)
        )
        self.say(
            hello=fleet_pb2.Hello(
                protocol_version=protocol_version,
                agent_id=agent_id,
                epoch=epoch,
                agent_version="0.1",
                devices=[device_to_message(device) for device in devices],
                held=held,
            )
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.sequence = 0

    def _read(self) -> None:
        try:
            for message in self._call:
                self._incoming.put(message)
            self._incoming.put(None)
        except grpc.RpcError as error:
            self._incoming.put(error)

    def say(self, **message: object) -> None:
        self._outgoing.put(fleet_pb2.AgentMessage(**message))

    def hear(self, kind: str, limit_s: float = LIMIT_S) -> object:
        """The next message, which must be of this kind; raises what ended the stream."""
        message = self._incoming.get(timeout=limit_s)
        if isinstance(message, grpc.RpcError):
            raise message
        assert message is not None, "the stream has ended"
        assert message.WhichOneof("message") == kind, message
        return getattr(message, kind)

    def hear_any(self) -> str:
        """The kind of the next message."""
        message = self._incoming.get(timeout=LIMIT_S)
        assert isinstance(message, fleet_pb2.CoordinatorMessage)
        return message.WhichOneof("message") or ""

    def hears_nothing(self, for_s: float) -> bool:
        try:
            message = self._incoming.get(timeout=for_s)
        except queue.Empty:
            return True
        raise AssertionError(f"heard {message}")

    def report(self, lease: fleet_pb2.Lease, *outcomes: object, sequence: int = 0) -> int:
        """Sends visits or failures; returns the sequence of the last one."""
        reference = reference_of(lease)
        reports = []
        for offset, outcome in enumerate(outcomes):
            if sequence:
                number = sequence + offset
            else:
                self.sequence += 1
                number = self.sequence
            field = "visit" if isinstance(outcome, Visit) else "failure"
            content = visit_to_message(outcome) if isinstance(outcome, Visit) else outcome
            reports.append(fleet_pb2.Report(sequence=number, lease=reference, **{field: content}))
        self.say(reports=fleet_pb2.ReportBatch(reports=reports))
        return reports[-1].sequence

    def work(self, lease: fleet_pb2.Lease) -> None:
        """Makes up all visits of a lease, has them acknowledged, and finishes it."""
        last = 0
        for item in lease.items:
            visits = [make_visit(item, number, lease.device_id) for number in item.rounds]
            last = self.report(lease, *visits)
        while self.hear("acknowledgement").sequence < last:
            pass
        self.say(finished=fleet_pb2.LeaseFinished(lease=reference_of(lease)))

    def end(self) -> None:
        """Ends this side of the stream in good order."""
        self._outgoing.put(None)

    def break_stream(self) -> None:
        """Ends the connection without a word."""
        self._call.cancel()
        self._outgoing.put(None)
        self._reader.join(LIMIT_S)
        self._channel.close()


def reference_of(lease: fleet_pb2.Lease) -> fleet_pb2.LeaseReference:
    return fleet_pb2.LeaseReference(lease_id=lease.lease_id, fencing_token=lease.fencing_token)


def make_visit(
    item: fleet_pb2.LeaseItem, number: int, device_id: str = "device-a", scale: float = 1.0
) -> Visit:
    """A made-up visit; profiled ones time two nodes."""
    network_ns = (scale * np.array([1_000_000, 1_000_200, 1_000_100])).astype(np.int64) + number
    series = [Series(WHOLE_NETWORK, network_ns)]
    if item.mode == PROFILED:
        series += [Series("a", network_ns // 2, "a/Conv"), Series("b", network_ns // 3, "b/Conv")]
    return Visit(
        task_id=item.task_id,
        device_id=device_id,
        round=number,
        mode=item.mode,
        started_ns=1_700_000_000_000_000_000 + number,
        duration_ns=int(network_ns.sum()),
        warmup_runs=item.warmup_runs,
        series=tuple(series),
    )


class Bench:
    """What tests of the services use: agents, visits, and a campaign of uploaded programs."""

    device = staticmethod(make_device)
    visit = staticmethod(make_visit)
    reference = staticmethod(reference_of)
    capability = CAPABILITY

    def __init__(self) -> None:
        self._agents: list[FakeAgent] = []
        self._clients: list[Client] = []

    def client(self, address: str) -> Client:
        self._clients.append(Client(address))
        return self._clients[-1]

    def agent(self, server: Client, **arguments: object) -> FakeAgent:
        self._agents.append(FakeAgent(server.address, **arguments))
        return self._agents[-1]

    def attached(self, server: Client, **arguments: object) -> FakeAgent:
        """An agent that has heard its welcome."""
        agent = self.agent(server, **arguments)
        agent.sequence = agent.hear("welcome").last_sequence
        return agent

    def add_target(self, server: Client, name: str = "bench-ort") -> None:
        target = fleet_pb2.LeaseItem().target
        target.name = name
        server.query.AddTarget(query_pb2.AddTargetRequest(target=target))

    def upload(self, server: Client, data: bytes, program_format: str = "onnx") -> str:
        request = query_pb2.UploadProgramRequest(program_format=program_format, data=data)
        return server.query.UploadProgram(iter([request])).sha256

    def measure(
        self, server: Client, name: str = "m1", n_tasks: int = 2, n_rounds: int = 2
    ) -> query_pb2.Campaign:
        """Starts a campaign of uploaded programs."""
        programs = [
            query_pb2.MeasuredProgram(
                sha256=self.upload(server, f"program {i}".encode()), label=f"mine {i}"
            )
            for i in range(n_tasks)
        ]
        return server.query.StartCampaign(
            query_pb2.StartCampaignRequest(
                name=name,
                target="bench-ort",
                measure=query_pb2.MeasurePlan(programs=programs),
                sampling=query_pb2.Sampling(
                    n_rounds=n_rounds, warmup_runs=1, min_runs=3, timeout_ns=10**9
                ),
            )
        )

    def campaign(self, server: Client, name: str = "m1") -> query_pb2.Campaign:
        return server.query.GetCampaign(query_pb2.CampaignRequest(name=name))

    def finished(self, server: Client, name: str = "m1") -> query_pb2.Campaign:
        """Waits for the end of a campaign."""
        *_, last = server.query.WatchCampaign(query_pb2.CampaignRequest(name=name), timeout=LIMIT_S)
        return last

    @contextmanager
    def refused(self, error_code: str, match: str) -> Iterator[None]:
        """A call that ends with this class of error, whose message contains `match`."""
        with pytest.raises(grpc.RpcError) as caught:
            yield
        metadata = dict(caught.value.trailing_metadata())
        assert metadata.get("latlas-error") == error_code, caught.value
        assert match in caught.value.details()

    def close(self) -> None:
        for agent in self._agents:
            agent.break_stream()
        for client in self._clients:
            client.channel.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    found = Bench()
    yield found
    found.close()


class ImaginedDevice:
    """A device on which every op takes a known time, and a store that it measures for."""

    agent = AgentRecord("imagined-agent", 1, "0.1")
    device = make_device("imagined")
    target = Target("bench-ort", "bench", "onnxruntime", "1.32.0", "CPUExecutionProvider")
    plan = ProfilePlan("digits", 30, 6, 12, min_occurrences=1, seed=0)
    fixed_ns = 20_000
    profiler_ns = 3_000
    n_runs = 4

    def op_ns(self, op: OpSpec) -> float:
        """The true time of an op."""
        return 5_000 + op_cost(op).macs / 50

    def network_ms(self, network: Network) -> float:
        """The true time of a network."""
        return (self.fixed_ns + 1.04 * sum(self.op_ns(op) for op in network.ops)) / 1e6

    def connect(self, store: Store) -> None:
        store.attach_agent(self.agent, [self.device], 0)
        store.add_target(self.target)

    def start(self, store: Store, name: str) -> None:
        """Starts a profile campaign of the space `digits`."""
        start_campaign(store, CampaignDefinition(name, "bench-ort", self.plan, Sampling(2)), 0)

    def measure(self, store: Store, campaign: str, roles: tuple[Role, ...] = tuple(Role)) -> None:
        """Measures all tasks of these roles."""
        tasks = [found for found in store.list_tasks(campaign) if found.task.role in roles]
        programs = store.get_programs({found.task.program_sha256 for found in tasks})
        items = tuple(LeaseItem(found.task.task_id, found.missing_rounds) for found in tasks)
        lease = store.create_lease(
            NewLease(
                lease_id=f"of-{campaign}",
                agent_id=self.agent.agent_id,
                epoch=self.agent.epoch,
                device_id=self.device.device_id,
                campaign=campaign,
                items=items,
                created_ns=0,
                deadline_ns=10**18,
            )
        )
        rng = np.random.default_rng(0)
        visits = [
            self._visit(found.task, programs[found.task.program_sha256], number, rng)
            for found in tasks
            for number in found.missing_rounds
        ]
        last = store.attach_agent(self.agent, [self.device], 0)
        reports = tuple(
            Report(last + offset, lease.reference, visit) for offset, visit in enumerate(visits, 1)
        )
        store.record_reports([ReportBatch(self.agent.agent_id, self.agent.epoch, reports)], 0)
        store.finish_lease(self.agent.agent_id, self.agent.epoch, lease.reference)
        for done in store.list_complete_campaigns():
            looked = Looked.at(
                store.list_tasks(done.name), len(store.list_visit_summaries(done.name))
            )
            store.settle_campaign(done.name, Findings(), {}, looked)

    def _visit(
        self, task: Task, program: ProgramRecord, number: int, rng: np.random.Generator
    ) -> Visit:
        """The true times with 0.5 % of noise."""
        noise = rng.normal(1, 0.005, size=self.n_runs)
        network = program.network
        assert network is not None
        nodes = []
        if task.mode == PROFILED:
            tensors = {position: name for name, position in program.tensor_positions.items()}
            for position, op in enumerate(network.ops):
                node_ns = (self.op_ns(op) + self.profiler_ns) * noise
                nodes.append(Series(tensors[position], node_ns.astype(np.int64), f"{position}/Op"))
        whole_ns = (self.network_ms(network) * 1e6 + self.profiler_ns * len(nodes)) * noise
        return Visit(
            task_id=task.task_id,
            device_id=self.device.device_id,
            round=number,
            mode=task.mode,
            started_ns=number,
            duration_ns=int(whole_ns.sum()),
            warmup_runs=1,
            series=(Series(WHOLE_NETWORK, whole_ns.astype(np.int64)), *nodes),
        )


@pytest.fixture(scope="session")
def imagined() -> ImaginedDevice:
    return ImaginedDevice()
