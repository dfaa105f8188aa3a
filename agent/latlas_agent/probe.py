"""What the board is: its model, memory, cores and operating system."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from latlas_agent.android import Shell, describe_phone, find_shell, read_phone, read_properties
from latlas_agent.sysfs import ROOT, read_fields, read_meminfo_bytes, read_nvpmodel, read_text

_PLACEHOLDERS = frozenset(
    {
        "default string",
        "o.e.m.",
        "system manufacturer",
        "system product name",
        "to be filled by o.e.m.",
    }
)
_CPU_NAME_FIELDS = ("model name", "Model", "Hardware", "cpu model", "uarch", "cpu")


@dataclass(frozen=True)
class Hardware:
    """The part of a `Device` that does not depend on runtimes or identity.

    Attributes:
        device_model: board name from the device tree or DMI, with the processor where the board
            name does not fix it; what equal boards share.
        operating_system: name and kernel release.
        architecture: instruction set, for example `aarch64`.
        cores: cores that this process may use.
        memory_bytes: physical memory; 0 if unknown.
        power_mode: the board's power mode, `default` where it has only one.
    """

    device_model: str
    operating_system: str
    architecture: str
    cores: tuple[int, ...]
    memory_bytes: int
    power_mode: str


def probe_hardware(root: Path = ROOT, shell: Shell | None = None) -> Hardware:
    """The hardware described by the kernel's files under `root`, and a phone by Android's words.

    Args:
        root: the root directory.
        shell: the shell of the phone that this is; looked for if None.
    """
    shell = shell or find_shell(root)
    device_model, operating_system = "", ""
    power_mode = _power_mode(root)
    if shell is not None:
        device_model, operating_system = describe_phone(read_properties(shell))
        if read_phone(shell).battery_saver:
            power_mode = "battery-saver"
    return Hardware(
        device_model=device_model or _device_model(root),
        operating_system=_operating_system(root, operating_system),
        architecture=platform.machine(),
        cores=tuple(sorted(os.sched_getaffinity(0))),
        memory_bytes=read_meminfo_bytes(root, "MemTotal") or 0,
        power_mode=power_mode,
    )


def _device_model(root: Path) -> str:
    board = read_text(root / "proc/device-tree/model")
    if board:
        return board
    words: list[str] = []
    for field in ("sys_vendor", "product_name"):
        text = read_text(root / "sys/class/dmi/id" / field)
        if text and text.lower() not in _PLACEHOLDERS:
            words.append(text)
    board, cpu = " ".join(words), _cpu_name(root)
    if board and cpu:
        return f"{board} ({cpu})"
    return board or cpu or f"unknown {platform.machine()}"


def _cpu_name(root: Path) -> str:
    fields = read_fields(root / "proc/cpuinfo")
    name = next((fields[field] for field in _CPU_NAME_FIELDS if fields.get(field)), "")
    return " ".join(name.split())


def _operating_system(root: Path, name: str = "") -> str:
    release = read_fields(root / "etc/os-release", separator="=")
    name = name or release.get("PRETTY_NAME", "").strip('"') or platform.system()
    kernel = read_text(root / "proc/sys/kernel/osrelease") or platform.release()
    return f"{name}, kernel {kernel}"


def _power_mode(root: Path) -> str:
    """The mode set by `nvpmodel` on Jetson boards; other boards have one mode."""
    return read_nvpmodel(root) or "default"
