"""The whole agent, put together."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import shutil
import socket
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import grpc.aio

from latlas_agent.capabilities import probe_runtimes
from latlas_agent.download import ProgramDownload
from latlas_agent.identity import (
    Identity,
    claim_state_dir,
    load_identity,
    next_epoch,
    read_fingerprint,
)
from latlas_agent.lease import LeaseRunner
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
    """

    coordinator: str
    state_dir: Path
    cores: tuple[int, ...] = ()
    delegates: tuple[Path, ...] = ()
    name: str = ""
    max_wait_s: float | None = None


def agent_version() -> str:
    """The release of Latlas that this agent belongs to."""
    try:
        return version("latlas")
    except PackageNotFoundError:
        return "unknown"


async def run_agent(config: AgentConfig, stop: asyncio.Event) -> None:
    """Runs until `stop` is set.

    Raises:
        InvalidInputError: a core or a delegate in `config` does not exist.
        RuntimeUnavailableError: no runtime works on this board.
        LatlasError: see `claim_state_dir`, `load_identity` and `AgentSession.run`.
    """
    usable = os.sched_getaffinity(0)
    for core in config.cores:
        if core not in usable:
            raise InvalidInputError(
                f"core {core} cannot be used here; there are {', '.join(map(str, sorted(usable)))}"
            )
    environment = _worker_environment(config)
    with claim_state_dir(config.state_dir):
        identity = load_identity(config.state_dir, read_fingerprint())
        runtimes = await asyncio.to_thread(probe_runtimes, environment)
        device = _describe(config, identity, runtimes)
        if not device.runtimes:
            raise RuntimeUnavailableError(
                "no runtime works on this device; install one, for example: pip install "
                '"latlas[onnx]"'
            )
        for found in device.runtimes:
            _LOG.info("runtime %s %s: %s", found.runtime, found.version, ", ".join(found.providers))
        description = AgentDescription(
            agent_id=identity.agent_id,
            version=agent_version(),
            device=device,
        )
        if config.cores and usable - set(config.cores):
            os.sched_setaffinity(0, usable - set(config.cores))
        scratch_dir = config.state_dir / "workers"
        shutil.rmtree(scratch_dir, ignore_errors=True)  # left by an agent that was killed
        rng = random.Random()
        address = config.coordinator
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
            runner = LeaseRunner(
                device,
                ProgramCache(config.state_dir / "programs"),
                ProgramDownload(channel, rng),
                WorkerSettings(
                    device_id=device.device_id,
                    scratch_dir=scratch_dir,
                    cores=config.cores,
                    environment=environment,
                ),
            )
            session = AgentSession(
                channel,
                address=address,
                description=description,
                new_epoch=lambda: next_epoch(config.state_dir, time.time_ns()),
                runner=runner,
                rng=rng,
                max_wait_s=config.max_wait_s,
            )
            await session.run(stop)


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
