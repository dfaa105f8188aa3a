"""The whole agent, put together."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import grpc.aio

from latlas_agent.adb import Adb
from latlas_agent.adb_phones import find_phones, watch_returns
from latlas_agent.capabilities import probe_runtimes
from latlas_agent.download import ProgramDownload
from latlas_agent.identity import (
    Identity,
    claim_state_dir,
    load_identity,
    next_epoch,
    read_fingerprint,
)
from latlas_agent.lease import LeaseRunner, WorkerBench
from latlas_agent.phone_bench import PhoneBench
from latlas_agent.phone_presence import Presence
from latlas_agent.probe import probe_hardware
from latlas_agent.programs import ProgramCache
from latlas_agent.runtimes.litert import DELEGATES_VARIABLE
from latlas_agent.session import CHANNEL_OPTIONS, AgentDescription, AgentSession
from latlas_agent.supervisor import WorkerSettings
from latlas_latency.measurement import Device, RuntimeCapability
from latlas_ops.errors import InvalidInputError, RuntimeUnavailableError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AgentConfig:
    """How an agent is started.

    Attributes:
        coordinator: address `HOST:PORT`.
        state_dir: where identity and programs are kept.
        cores: cores that measurements may use; empty means all.
        delegates: shared libraries that become providers of LiteRT and tflite-runtime.
        name: name of the board for people; empty means its host name.
        max_wait_s: time without a coordinator after which to give up; None means never.
        adb: whether to serve the phones that are attached, instead of this machine.
        benchmark_model: TFLite's `benchmark_model` for them; None where it is on the phones.
    """

    coordinator: str
    state_dir: Path
    cores: tuple[int, ...] = ()
    delegates: tuple[Path, ...] = ()
    name: str = ""
    max_wait_s: float | None = None
    adb: bool = False
    benchmark_model: Path | None = None


def agent_version() -> str:
    """The release of Latlas that this agent belongs to."""
    try:
        return version("latlas")
    except PackageNotFoundError:
        return "unknown"


async def run_agent(config: AgentConfig, stop: asyncio.Event) -> None:
    """Runs until `stop` is set.

    Raises:
        InvalidInputError: a core, a delegate or another file in `config` does not exist.
        RuntimeUnavailableError: no runtime works on this board, or no phone can be served.
        LatlasError: see `claim_state_dir`, `load_identity` and `AgentSession.run`.
    """
    _check_cores(config)
    environment = _worker_environment(config)
    with claim_state_dir(config.state_dir):
        identity = load_identity(config.state_dir, read_fingerprint())
        rng = random.Random()
        address = config.coordinator
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            download = ProgramDownload(channel, rng)
            serving = (
                _phones(config, identity, download)
                if config.adb
                else _board(config, identity, download, environment)
            )
            async with serving as (runners, presence):
                session = AgentSession(
                    channel,
                    address=address,
                    description=AgentDescription(identity.agent_id, agent_version()),
                    new_epoch=lambda: next_epoch(config.state_dir, time.time_ns()),
                    runners=runners,
                    presence=presence,
                    rng=rng,
                    max_wait_s=config.max_wait_s,
                )
                await session.run(stop)


@asynccontextmanager
async def _board(
    config: AgentConfig,
    identity: Identity,
    download: ProgramDownload,
    environment: dict[str, str],
) -> AsyncGenerator[tuple[Sequence[LeaseRunner], Presence], None]:
    """What carries out leases of this machine."""
    runtimes = await asyncio.to_thread(probe_runtimes, environment)
    device = _describe(config, identity, runtimes)
    if not device.runtimes:
        raise RuntimeUnavailableError(
            'no runtime works on this device; install one, for example: pip install "latlas[onnx]"'
        )
    _log_runtimes(device)
    usable = os.sched_getaffinity(0)
    if config.cores and usable - set(config.cores):
        os.sched_setaffinity(0, usable - set(config.cores))
    scratch_dir = config.state_dir / "workers"
    shutil.rmtree(scratch_dir, ignore_errors=True)  # left by an agent that was killed
    settings = WorkerSettings(
        device_id=device.device_id,
        scratch_dir=scratch_dir,
        cores=config.cores,
        environment=environment,
    )
    programs = ProgramCache(config.state_dir / "programs")
    yield [LeaseRunner(device, programs, download, WorkerBench(settings))], Presence([device])


@asynccontextmanager
async def _phones(
    config: AgentConfig, identity: Identity, download: ProgramDownload
) -> AsyncGenerator[tuple[Sequence[LeaseRunner], Presence], None]:
    """What carries out leases of the phones that are attached to this machine."""
    adb = await asyncio.to_thread(Adb.find)
    host_name = config.name or socket.gethostname()
    phones = await find_phones(
        adb, config.state_dir, identity.agent_id, host_name, config.benchmark_model
    )
    runners = []
    for phone in phones:
        device = phone.device
        _LOG.info("phone %s is %s: %s", phone.serial, device.device_id, device.device_model)
        _log_runtimes(device)
        bench = PhoneBench(
            adb, phone.serial, device_id=device.device_id, tool=phone.tool, cores=device.cores
        )
        # Not shared: each runner drops what its own leases do not need.
        programs = ProgramCache(config.state_dir / "phones" / device.device_id)
        runners.append(LeaseRunner(device, programs, download, bench))
    presence = Presence(runner.device for runner in runners)
    watching = asyncio.create_task(watch_returns(adb, phones, presence))
    try:
        yield runners, presence
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def _log_runtimes(device: Device) -> None:
    for found in device.runtimes:
        _LOG.info("runtime %s %s: %s", found.runtime, found.version, ", ".join(found.providers))


def _check_cores(config: AgentConfig) -> None:
    """Raises `InvalidInputError` where a core that is to be reserved does not exist."""
    usable = os.sched_getaffinity(0)
    for core in config.cores:
        if core not in usable:
            raise InvalidInputError(
                f"core {core} cannot be used here; there are {', '.join(map(str, sorted(usable)))}"
            )


def _worker_environment(config: AgentConfig) -> dict[str, str]:
    """Environment variables of the processes that programs run in."""
    for path in config.delegates:
        if os.pathsep in str(path):
            raise InvalidInputError(
                f"delegate {path} has a {os.pathsep!r} in its path, which separates delegates from "
                "each other; rename it, or name a link to it"
            )
        if not path.is_file():
            raise InvalidInputError(f"delegate {path} is no file that can be loaded")
    if not config.delegates:
        return dict(os.environ)
    return {**os.environ, DELEGATES_VARIABLE: os.pathsep.join(map(str, config.delegates))}


def _describe(
    config: AgentConfig, identity: Identity, runtimes: tuple[RuntimeCapability, ...]
) -> Device:
    hardware = probe_hardware()
    return Device(
        device_id=identity.device_id,
        fingerprint=identity.fingerprint,
        device_model=hardware.device_model,
        host_name=config.name or socket.gethostname(),
        operating_system=hardware.operating_system,
        architecture=hardware.architecture,
        n_cores=len(hardware.cores),
        memory_bytes=hardware.memory_bytes,
        power_mode=hardware.power_mode,
        runtimes=runtimes,
        cores=hardware.cores,
    )
