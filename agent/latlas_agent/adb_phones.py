"""The phones that an agent serves through adb: who they are, what they have, when they return."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latlas_agent.adb import READY, Adb
from latlas_agent.android import Shell, describe_phone, read_phone, read_properties
from latlas_agent.identity import Identity, load_phone_identities
from latlas_agent.phone_command import FOLDER, BenchmarkModel, sha256_version
from latlas_agent.phone_conditions import list_cores
from latlas_agent.phone_presence import Presence
from latlas_latency.measurement import Device
from latlas_ops.errors import InvalidInputError, LatlasError, RuntimeUnavailableError

_LOG = logging.getLogger(__name__)

ON_PHONE = "/data/local/tmp/benchmark_model"
"""Where `benchmark_model` is looked for on a phone unless a file of this host is given."""

_PUSH_TIMEOUT_S = 120.0
_SHELL_TIMEOUT_S = 30.0
_LOOK_S = 2.0
_SIGNAL_BASE = 128
_KIB = 1024


@dataclass(frozen=True)
class AdbPhone:
    """A phone that can be measured: what adb calls it, what it is, and the tool on it."""

    serial: str
    device: Device
    tool: BenchmarkModel


async def find_phones(
    adb: Adb, state_dir: Path, agent_id: str, host_name: str, tool: Path | None
) -> list[AdbPhone]:
    """The attached phones, `benchmark_model` in place on each.

    Phones that cannot be used are named in the log.

    Args:
        adb: reaches them.
        state_dir: where their identities are kept.
        agent_id: the agent.
        host_name: name of this host, for people.
        tool: `benchmark_model` for Android, on this host; None where it is on the phones.

    Raises:
        InvalidInputError: `tool` cannot be read.
        RuntimeUnavailableError: no phone can be used; the message says why.
        StorageError: identities cannot be kept.
    """
    version = _read_version(tool) if tool else ""
    objections: list[str] = []
    serials: dict[str, str] = {}
    shells: dict[str, Shell] = {}
    for attached in adb.attached():
        shell = adb.shell(attached.serial)
        own = await asyncio.to_thread(_own_serial, shell) if attached.state == READY else ""
        if attached.objection:
            objections.append(attached.objection)
        elif not own:
            objections.append(f"phone {attached.serial} does not tell its serial number")
        elif own in serials.values():
            objections.append(f"phone {attached.serial} is another way to a phone served already")
        else:
            serials[attached.serial], shells[attached.serial] = own, shell
    identities = load_phone_identities(state_dir, agent_id, list(serials.values()))
    phones = []
    for serial, own in serials.items():
        try:
            placed = await _place_tool(adb, serial, tool, version)
        except LatlasError as error:
            objections.append(str(error))
            continue
        device = await asyncio.to_thread(
            describe, shells[serial], identities[own], f"{host_name} {serial}", placed
        )
        if not device.architecture:
            objections.append(f"phone {serial} went away while it was asked what it is")
            continue
        phones.append(AdbPhone(serial, device, placed))
    if not phones:
        raise RuntimeUnavailableError(
            "; ".join(objections)
            or "no phone is attached: plug one in with USB debugging on, and see adb devices"
        )
    for objection in objections:
        _LOG.warning("not served: %s", objection)
    return phones


def describe(shell: Shell, identity: Identity, host_name: str, tool: BenchmarkModel) -> Device:
    """A phone as a device, asked through its shell."""
    model, operating_system = describe_phone(read_properties(shell))
    cores = list_cores(shell("cat /sys/devices/system/cpu/present"))
    architecture, release = (shell(f"uname -{flag}").strip() for flag in "mr")
    memory = [line.split() for line in shell("cat /proc/meminfo").splitlines()]
    kib = next((int(words[1]) for words in memory if words[:1] == ["MemTotal:"]), 0)
    return Device(
        device_id=identity.device_id,
        fingerprint=identity.fingerprint,
        device_model=model or f"unknown phone {architecture}".strip(),
        host_name=host_name,
        operating_system=f"{operating_system or 'Android'}, kernel {release}",
        architecture=architecture,
        n_cores=max(1, len(cores)),
        memory_bytes=kib * _KIB,
        power_mode="battery-saver" if read_phone(shell).battery_saver else "default",
        runtimes=tool.capabilities(),
        cores=cores,
    )


async def watch_returns(
    adb: Adb, phones: Sequence[AdbPhone], presence: Presence, look_s: float = _LOOK_S
) -> None:
    """Gives phones back to the agent when they are attached again; never returns.

    Args:
        adb: reaches them.
        phones: those that the agent serves.
        presence: knows which are gone.
        look_s: time between looks, while one is gone.
    """
    while True:
        await asyncio.sleep(look_s)
        there = {device.device_id for device in presence.devices}
        gone = {phone.serial: phone for phone in phones if phone.device.device_id not in there}
        if not gone:
            continue
        try:
            states = {one.serial: one.state for one in await asyncio.to_thread(adb.attached)}
            for serial in sorted(gone):
                if states.get(serial) == READY:
                    presence.regain(gone[serial].device)
                    _LOG.info("phone %s is back", serial)
        except LatlasError as error:
            _LOG.warning("cannot look for phones: %s", error)


def _own_serial(shell: Shell) -> str:
    """The serial number that the phone itself tells; adb may know it by an address."""
    return shell("getprop ro.serialno").strip()


def _read_version(tool: Path) -> str:
    try:
        return sha256_version(tool.read_bytes())
    except OSError as error:
        raise InvalidInputError(
            f"--benchmark-model {tool} cannot be read: {error.strerror}"
        ) from error


async def _place_tool(adb: Adb, serial: str, tool: Path | None, version: str) -> BenchmarkModel:
    """The tool on a phone, copied there unless it is there; tried out.

    Raises:
        DeviceGoneError: the phone went.
        LatlasError: it cannot be copied or run; the message says why.
    """
    path = f"{FOLDER}/benchmark_model-{version}" if tool else ON_PHONE
    found = await _ask_sha256(adb, serial, path)
    if tool is not None and not found.startswith(version):
        await adb.push(serial, tool, path, _PUSH_TIMEOUT_S)
        await adb.run(serial, f"chmod 755 {path}", _SHELL_TIMEOUT_S)
        found = await _ask_sha256(adb, serial, path)
    if not found:
        raise RuntimeUnavailableError(
            f"phone {serial} has no {path}: give --benchmark-model FILE"
            if tool is None
            else f"phone {serial} does not keep {path}: free storage on it"
        )
    said = await adb.run(
        serial, f'{path} --help >/dev/null 2>&1; echo "@latlas status $?"', _SHELL_TIMEOUT_S
    )
    status = said.rpartition("@latlas status ")[2].strip()
    if status in ("126", "127") or (status.isdigit() and int(status) > _SIGNAL_BASE):
        raise RuntimeUnavailableError(
            f"phone {serial} cannot run {path} (status {status}): take the benchmark_model that "
            "was built for its processor"
        )
    return BenchmarkModel(path, found[: len(version) or len(sha256_version(b""))])


async def _ask_sha256(adb: Adb, serial: str, path: str) -> str:
    """The SHA-256 of a file on a phone; empty if it is not there."""
    said = await adb.run(
        serial, f"mkdir -p {FOLDER}; sha256sum {path} 2>/dev/null", _SHELL_TIMEOUT_S
    )
    return (said.split() or [""])[0]
