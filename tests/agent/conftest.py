"""What the agent's tests share: real ONNX programs, a plug-in that misbehaves, a coordinator."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import onnxruntime
import pytest

from latlas_agent.supervisor import Job, WorkerSettings
from latlas_agent.tasks import Task
from latlas_latency.measurement import Device, RuntimeCapability, Target
from latlas_latency.wire import target_to_message
from latlas_ops import get_space
from latlas_ops.network import Network
from latlas_ops.writers.onnx_writer import OnnxProgram, write_onnx
from latlas_protos.v1 import fleet_pb2, fleet_pb2_grpc

CPU = "CPUExecutionProvider"

MISBEHAVING_RUNTIME = '''
"""A runtime whose programs are words: what the program does instead of computing."""

import os
import pathlib
import signal
import sys
import time

from latlas_latency.measurement import RuntimeCapability
from latlas_ops.errors import CorruptProgramError


class Session:
    def __init__(self, word):
        self.word = word
        self.hoard = []

    def run(self):
        if self.word in ("hang", "slow"):
            pathlib.Path("running").touch()
        if self.word == "hang":
            time.sleep(3600)
        if self.word == "exit":
            print("giving up", file=sys.stderr)
            os._exit(3)
        if self.word == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if self.word == "allocate":
            self.hoard.append(bytearray(1 << 33))
        if self.word == "raise":
            raise ValueError("no such operator")
        if self.word == "print":
            print("a runtime that talks on standard output", flush=True)
        if self.word == "slow":
            time.sleep(0.05)
        time.sleep(0.0005)


class MisbehavingRuntime:
    def capability(self):
        if os.environ.get("MISBEHAVING_PROBE") == "die":
            os._exit(7)
        return RuntimeCapability(
            "misbehaving", "1", ("none",), ("fp32",), ("all",), ("word",), False
        )

    def load(self, program, target, shapes=()):
        word = program.read_text()
        if word == "corrupt":
            raise CorruptProgramError("that is no word")
        return Session(word)
'''


@dataclass(frozen=True)
class Program:
    """A program as bytes, its digest and, where it was written here, what is in it."""

    data: bytes
    onnx: OnnxProgram | None = None

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


def sample_networks(space_name: str, n_networks: int, seed: int = 1) -> list[Network]:
    space = get_space(space_name)
    batch = space.sample(n_networks, np.random.default_rng(seed))
    return [space.network(arch) for arch in space.archs(batch)]


@pytest.fixture(scope="session")
def networks() -> Callable[..., list[Network]]:
    """`networks(space_name, n)`: networks drawn from a space."""
    return sample_networks


@pytest.fixture(scope="session")
def digits_programs() -> list[Program]:
    """Three small real networks as ONNX programs."""
    written = [write_onnx(network) for network in sample_networks("digits", 3)]
    return [Program(program.model_bytes, program) for program in written]


@pytest.fixture(scope="session")
def tflite_model() -> Callable[..., bytes]:
    """`tflite_model(*operators, shape, ...)`: a small TFLite model; see `write_tflite_model`."""
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert, which writes models, is missing")
    return write_tflite_model


def write_tflite_model(
    *operators: str,
    shape: Sequence[int] = (1, 4, 4, 2),
    signature: Sequence[int] = (),
    dtype: str = "FLOAT32",
    scale: float | None = None,
    identifier: bytes = b"TFL3",
) -> bytes:
    """A chain of unary operators, named as in the schema; any other name is a custom operator.

    Args:
        operators: in order.
        shape: of every tensor.
        signature: the same shape with -1 where it is free.
        dtype: element type of every tensor.
        scale: of quantisation; None means none.
        identifier: what marks the file.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    builtin = schema.BuiltinOperator
    model = schema.ModelT()
    model.version = 3
    model.description = "test"
    model.buffers = [schema.BufferT()]
    model.operatorCodes = []
    for name in operators:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(builtin, name, builtin.CUSTOM)
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.customCode = None if hasattr(builtin, name) else name
        code.version = 1
        model.operatorCodes.append(code)
    graph = schema.SubGraphT()
    graph.name = "main"
    graph.tensors = []
    for number in range(len(operators) + 1):
        tensor = schema.TensorT()
        tensor.name = f"t{number}"
        tensor.shape = list(shape)
        tensor.shapeSignature = list(signature) or None
        tensor.type = getattr(schema.TensorType, dtype)
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [scale]
            tensor.quantization.zeroPoint = [0]
        graph.tensors.append(tensor)
    graph.operators = []
    for number in range(len(operators)):
        operator = schema.OperatorT()
        operator.opcodeIndex = number
        operator.inputs, operator.outputs = [number], [number + 1]
        graph.operators.append(operator)
    graph.inputs, graph.outputs = [0], [len(operators)]
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), identifier)
    return bytes(builder.Output())


@pytest.fixture(scope="session")
def delegate(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`delegate(n, crashes=False)`: a TFLite delegate that takes the first `n` nodes of a graph."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("cc is not installed here")
    folder = tmp_path_factory.mktemp("delegates")

    def build(most_nodes: int, crashes: bool = False) -> Path:
        library = folder / f"libtakes{most_nodes}{'crashes' * crashes}.so"
        defined = [f"-DMOST_NODES={most_nodes}", f"-DCRASHES={int(crashes)}"]
        source = Path(__file__).with_name("fake_delegate.c")
        command = [compiler, "-shared", "-fPIC", *defined, "-o", str(library), str(source)]
        subprocess.run(command, check=True, timeout=60)
        return library

    return build


@pytest.fixture(scope="session")
def onnx_target() -> Target:
    return Target(
        name="here",
        device_model="test board",
        runtime="onnxruntime",
        runtime_version=onnxruntime.__version__,
        provider=CPU,
    )


@pytest.fixture(scope="session")
def word_target() -> Target:
    return Target(
        name="words",
        device_model="test board",
        runtime="misbehaving",
        runtime_version="1",
        provider="none",
    )


@pytest.fixture(scope="session")
def device() -> Device:
    return Device(
        device_id="device-1",
        fingerprint="f",
        device_model="test board",
        host_name="here",
        operating_system="Linux",
        architecture="x86_64",
        n_cores=len(os.sched_getaffinity(0)),
        memory_bytes=1 << 32,
        power_mode="default",
        runtimes=(
            RuntimeCapability(
                "onnxruntime",
                onnxruntime.__version__,
                (CPU,),
                ("fp32",),
                ("disabled", "basic", "extended", "all"),
                ("onnx",),
                True,
            ),
            RuntimeCapability("misbehaving", "1", ("none",), ("fp32",), ("all",), ("word",), False),
        ),
    )


@pytest.fixture(scope="session")
def worker_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which a third-party plug-in is installed, as `pip` would install it."""
    site = tmp_path_factory.mktemp("site")
    (site / "misbehaving_runtime.py").write_text(MISBEHAVING_RUNTIME)
    metadata = site / "misbehaving_runtime-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: misbehaving-runtime\n")
    (metadata / "entry_points.txt").write_text(
        "[latlas.runtimes]\nmisbehaving = misbehaving_runtime:MisbehavingRuntime\n"
    )
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path}


@pytest.fixture
def settings(tmp_path: Path, worker_environment: dict[str, str]) -> WorkerSettings:
    return WorkerSettings(
        device_id="device-1",
        scratch_dir=tmp_path / "workers",
        memory_limit_bytes=1 << 30,
        environment=worker_environment,
    )


@pytest.fixture
def make_job(tmp_path: Path, onnx_target: Target, word_target: Target) -> Callable[..., Job]:
    """`make_job(task_id, program, **fields)`: a task with its program in place.

    A program is a `Program` for onnxruntime, or a word for the plug-in that misbehaves.
    """

    def make(task_id: str, program: Program | str, **fields: object) -> Job:
        if isinstance(program, str):
            data, format_, target = program.encode(), "word", word_target
        else:
            data, format_, target = program.data, "onnx", onnx_target
        path = tmp_path / hashlib.sha256(data).hexdigest()
        path.write_bytes(data)
        values: dict[str, object] = {
            "task_id": task_id,
            "program_sha256": path.name,
            "program_format": format_,
            "program_bytes": len(data),
            "target": target,
            "mode": "plain",
            "rounds": (0,),
            "warmup_runs": 1,
            "min_runs": 3,
            "min_duration_ns": 0,
            "timeout_ns": 60_000_000_000,
            **fields,
        }
        return Job(Task(**values), path)  # type: ignore[arg-type]

    return make


@dataclass
class Stream:
    """The coordinator's end of one attached stream."""

    coordinator: Coordinator
    hello: fleet_pb2.Hello
    requests: AsyncIterator[fleet_pb2.AgentMessage]
    context: grpc.aio.ServicerContext  # type: ignore[type-arg]
    received: list[fleet_pb2.AgentMessage] = field(default_factory=list)

    async def send(self, **message: object) -> None:
        await self.context.write(fleet_pb2.CoordinatorMessage(**message))  # type: ignore[arg-type]

    async def welcome(self, last_sequence: int = 0, interval_ns: int = 50_000_000) -> None:
        await self.send(
            welcome=fleet_pb2.Welcome(
                protocol_version=1, last_sequence=last_sequence, renewal_interval_ns=interval_ns
            )
        )

    async def receive(self, kind: str) -> fleet_pb2.AgentMessage:
        """The next message of a kind; the others are kept in `received`."""
        while True:
            message = await anext(self.requests)
            self.received.append(message)
            if message.WhichOneof("message") == kind:
                return message

    async def reports(self, n_reports: int) -> list[fleet_pb2.Report]:
        """The next reports, at least `n_reports` of them."""
        found: list[fleet_pb2.Report] = []
        while len(found) < n_reports:
            found += (await self.receive("reports")).reports.reports
        return found

    async def acknowledge(self, sequence: int) -> None:
        await self.send(acknowledgement=fleet_pb2.Acknowledgement(sequence=sequence))


@dataclass
class Coordinator(fleet_pb2_grpc.FleetServiceServicer):
    """A coordinator that plays one script per attached stream, then shows the last one again.

    Attributes:
        scripts: what it does once an agent has said hello, stream by stream.
        programs: what it serves, by digest; a program may be served wrongly on purpose.
        offsets: offsets at which downloads were asked for.
        compress: whether pieces of programs travel compressed.
    """

    scripts: list[Callable[[Stream], object]] = field(default_factory=list)
    programs: dict[str, bytes] = field(default_factory=dict)
    offsets: list[int] = field(default_factory=list)
    break_download_after: int | None = None
    compress: bool = False
    hellos: list[fleet_pb2.Hello] = field(default_factory=list)
    address: str = ""
    failure: BaseException | None = None
    done: asyncio.Event = field(default_factory=asyncio.Event)

    async def Attach(self, request_iterator, context):  # type: ignore[no-untyped-def]
        requests = request_iterator.__aiter__()
        hello = (await anext(requests)).hello
        self.hellos.append(hello)
        script = self.scripts[min(len(self.hellos), len(self.scripts)) - 1]
        try:
            await script(Stream(self, hello, requests, context))  # type: ignore[misc]
        except (asyncio.CancelledError, StopAsyncIteration, grpc.aio.AbortError):
            raise
        except BaseException as error:
            self.failure = error
            self.done.set()
            raise

    async def DownloadProgram(self, request, context):  # type: ignore[no-untyped-def]
        self.offsets.append(request.offset_bytes)
        data = self.programs.get(request.sha256)
        if data is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such program")
        for start in range(request.offset_bytes, len(data), 4096):
            if self.break_download_after is not None and start >= self.break_download_after:
                self.break_download_after = None
                await context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
            piece = data[start : start + 4096]
            yield fleet_pb2.ProgramChunk(
                data=zlib.compress(piece) if self.compress else piece,
                total_bytes=len(data),
                compressed=self.compress,
            )

    def lease(self, lease_id: str, jobs: list[Job], token: int = 1) -> fleet_pb2.Lease:
        """A lease over the tasks of some jobs, whose programs are served from now on."""
        items = []
        for job in jobs:
            task = job.task
            self.programs.setdefault(task.program_sha256, job.program.read_bytes())
            items.append(
                fleet_pb2.LeaseItem(
                    task_id=task.task_id,
                    program_sha256=task.program_sha256,
                    program_format=task.program_format,
                    program_bytes=task.program_bytes,
                    target=target_to_message(task.target),
                    mode=task.mode,
                    rounds=task.rounds,
                    warmup_runs=task.warmup_runs,
                    min_runs=task.min_runs,
                    min_duration_ns=task.min_duration_ns,
                    timeout_ns=task.timeout_ns,
                )
            )
        return fleet_pb2.Lease(
            lease_id=lease_id, fencing_token=token, device_id="device-1", items=items
        )


@asynccontextmanager
async def serve(coordinator: Coordinator) -> AsyncIterator[Coordinator]:
    server = grpc.aio.server()
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(coordinator, server)
    coordinator.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield coordinator
    finally:
        await server.stop(None)
    if coordinator.failure is not None:
        raise coordinator.failure


@pytest.fixture
def coordinator() -> Callable[..., object]:
    """`coordinator(*scripts)`: an async context in which a coordinator serves on loopback."""

    def make(*scripts: Callable[[Stream], object]) -> object:
        return serve(Coordinator(list(scripts)))

    return make
