"""The state of the board around a visit: clock, temperature, throttling, load, memory."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latlas_agent.android import Phone
from latlas_agent.clocks import read_clock_mhz, read_max_clock_mhz
from latlas_agent.gpu import Gpu
from latlas_agent.sysfs import (
    plausible_celsius,
    read_int,
    read_meminfo_bytes,
    read_nvpmodel,
    read_text,
    to_float,
)
from latlas_latency.measurement import Conditions

_CPU = Path("sys/devices/system/cpu")
_PLATFORM_PROFILE = Path("sys/firmware/acpi/platform_profile")
_RASPBERRY_PI_FLAGS = Path("sys/devices/platform/soc/soc:firmware/get_throttled")
_PI_THROTTLED_NOW = 0b1110  # frequency capped, throttled, soft temperature limit
_PI_THROTTLED_SINCE_BOOT = _PI_THROTTLED_NOW << 16
_CPU_COOLING_TYPES = ("processor", "cpufreq", "thermal-cpufreq", "cpu")
_CORE_LINE = re.compile(r"cpu\d+")
_NS_PER_S = 1_000_000_000
_NS_PER_US = 1000


@dataclass(frozen=True)
class Snapshot:
    """What the kernel says at one moment; None where it says nothing.

    Attributes:
        clock_mhz: mean clock of the cores in use.
        temperature_celsius: hottest sensor.
        throttle_events: counted throttlings since boot.
        throttle_flags: the Raspberry Pi firmware's flags.
        cooling: whether a cooling device holds the processor back right now.
        load_1min: load average.
        busy_ticks: time that all cores together spent busy, in clock ticks.
        total_ticks: time of all cores together, in clock ticks.
        own_cpu_ns: processor time of the measuring process.
        available_memory_bytes: memory still to be had.
        governor: frequency governor.
        taken_ns: monotonic time of the snapshot.
        waited_ns: per thread of this process the time that it could have run but was kept off
            its core; None if the kernel does not count it.
        memory_stall_us: time in which some process stood still for want of memory.
        power_mode: what the board is set to.
        online_cores: cores that are switched on.
        max_clock_mhz: mean of the highest clocks that the cores in use have.
        clock_capped: whether one of them may reach less than it usually may; None where nobody
            knows what is usual.
        gpu: the GPU that the target runs on; None if it runs on none.
        phone: what Android says; None on other systems.
    """

    clock_mhz: float | None
    temperature_celsius: float | None
    throttle_events: int | None
    throttle_flags: int | None
    cooling: bool | None
    load_1min: float | None
    busy_ticks: int | None
    total_ticks: int | None
    own_cpu_ns: int
    available_memory_bytes: int | None
    governor: str | None
    taken_ns: int
    waited_ns: Mapping[str, int] | None
    memory_stall_us: int | None
    power_mode: str | None
    online_cores: int | None
    max_clock_mhz: float | None = None
    clock_capped: bool | None = None
    gpu: Gpu | None = None
    phone: Phone | None = None


def take_snapshot(root: Path, cores: Sequence[int], own_cpu_ns: int, monotonic_ns: int) -> Snapshot:
    """Reads the kernel's files under `root`; costs about a millisecond.

    Args:
        root: the root directory.
        cores: cores that the measurement runs on.
        own_cpu_ns: processor time of the measuring process so far.
        monotonic_ns: monotonic time now.
    """
    busy_ticks, total_ticks, online_cores = _processor_time(root)
    load = (read_text(root / "proc/loadavg") or "").split()
    return Snapshot(
        clock_mhz=read_clock_mhz(root, cores),
        temperature_celsius=_temperature_celsius(root),
        throttle_events=_throttle_events(root),
        throttle_flags=read_int(root / _RASPBERRY_PI_FLAGS, base=16),
        cooling=_cooling(root),
        load_1min=to_float(load[0]) if load else None,
        busy_ticks=busy_ticks,
        total_ticks=total_ticks,
        own_cpu_ns=own_cpu_ns,
        available_memory_bytes=read_meminfo_bytes(root, "MemAvailable"),
        governor=read_text(root / _CPU / f"cpu{min(cores, default=0)}/cpufreq/scaling_governor"),
        taken_ns=monotonic_ns,
        waited_ns=_waited_ns(root),
        memory_stall_us=_memory_stall_us(root),
        power_mode=read_power_mode(root, min(cores, default=0)),
        online_cores=online_cores,
        max_clock_mhz=read_max_clock_mhz(root, cores),
    )


def conditions_between(
    before: Snapshot, after: Snapshot, ticks_per_s: int = os.sysconf("SC_CLK_TCK")
) -> Conditions:
    """The conditions of what happened between two snapshots."""
    gpu, phone = after.gpu, after.phone
    temperatures = (
        after.temperature_celsius,
        gpu.temperature_celsius if gpu else None,
        phone.temperature_celsius if phone else None,
    )
    power_modes = (
        after.power_mode,
        gpu.power_mode if gpu else None,
        phone.power_mode if phone else None,
    )
    return Conditions(
        clock_mhz=after.clock_mhz,
        temperature_celsius=max((t for t in temperatures if t is not None), default=None),
        throttled=_throttled(before, after),
        load_1min=after.load_1min,
        other_cpu_share=_other_cpu_share(before, after, ticks_per_s),
        available_memory_bytes=after.available_memory_bytes,
        governor=after.governor,
        waiting_share=_waiting_share(before, after),
        memory_stall_share=_memory_stall_share(before, after),
        power_mode=", ".join(mode for mode in power_modes if mode) or None,
        online_cores=after.online_cores,
        max_clock_mhz=gpu.max_clock_mhz if gpu else after.max_clock_mhz,
        gpu_clock_mhz=gpu.clock_mhz if gpu else None,
        other_gpu_share=gpu.other_share if gpu else None,
        other_gpu_memory_bytes=gpu.other_memory_bytes if gpu else None,
        available_gpu_memory_bytes=gpu.available_memory_bytes if gpu else None,
    )


def read_power_mode(root: Path, core: int) -> str | None:
    """What the board is set to, as one text; None where it has no such setting.

    A Jetson says which mode `nvpmodel` set; a PC which platform profile its firmware follows and
    which way a core's hardware leans between speed and energy.
    """
    settings = (
        read_nvpmodel(root),
        read_text(root / _PLATFORM_PROFILE),
        read_text(root / _CPU / f"cpu{core}/cpufreq/energy_performance_preference"),
    )
    return ", ".join(setting for setting in settings if setting) or None


def _throttled(before: Snapshot, after: Snapshot) -> bool | None:
    """Whether any of the signs that the board has shows throttling; None if it has none."""
    signs: list[bool] = []
    if before.throttle_events is not None and after.throttle_events is not None:
        signs.append(after.throttle_events > before.throttle_events)
    if before.throttle_flags is not None and after.throttle_flags is not None:
        now = (before.throttle_flags | after.throttle_flags) & _PI_THROTTLED_NOW
        newly = after.throttle_flags & ~before.throttle_flags & _PI_THROTTLED_SINCE_BOOT
        signs.append(bool(now or newly))
    for snapshot in (before, after):
        told = [snapshot.cooling]
        if snapshot.gpu is not None:
            told.append(snapshot.gpu.throttled)
        if snapshot.phone is not None:
            # Elsewhere a lower limit is a choice of the user's; on a phone only the system sets it.
            told += [snapshot.phone.throttled, snapshot.clock_capped]
        signs += [sign for sign in told if sign is not None]
    return any(signs) if signs else None


def _other_cpu_share(before: Snapshot, after: Snapshot, ticks_per_s: int) -> float | None:
    if (
        before.busy_ticks is None
        or before.total_ticks is None
        or after.busy_ticks is None
        or after.total_ticks is None
        or after.total_ticks <= before.total_ticks
    ):
        return None
    own_ticks = (after.own_cpu_ns - before.own_cpu_ns) * ticks_per_s / _NS_PER_S
    others = after.busy_ticks - before.busy_ticks - own_ticks
    return min(1.0, max(0.0, others / (after.total_ticks - before.total_ticks)))


def _waiting_share(before: Snapshot, after: Snapshot) -> float | None:
    """Of the thread that waited longest: the others of a visit wait for it in the end."""
    elapsed_ns = after.taken_ns - before.taken_ns
    if before.waited_ns is None or after.waited_ns is None or elapsed_ns <= 0:
        return None
    waited_ns = max(
        total_ns - before.waited_ns.get(thread, 0) for thread, total_ns in after.waited_ns.items()
    )
    return min(1.0, max(0.0, waited_ns / elapsed_ns))


def _memory_stall_share(before: Snapshot, after: Snapshot) -> float | None:
    elapsed_ns = after.taken_ns - before.taken_ns
    if before.memory_stall_us is None or after.memory_stall_us is None or elapsed_ns <= 0:
        return None
    stalled_ns = (after.memory_stall_us - before.memory_stall_us) * _NS_PER_US
    return min(1.0, max(0.0, stalled_ns / elapsed_ns))


def _waited_ns(root: Path) -> dict[str, int] | None:
    """Per thread the second figure of its `schedstat`: nanoseconds spent waiting for a core.

    The file of the process as a whole would speak of its first thread alone.
    """
    waited = {}
    for path in (root / "proc/self/task").glob("*/schedstat"):
        words = (read_text(path) or "").split()
        if len(words) == 3 and words[1].isdigit():
            waited[path.parent.name] = int(words[1])
    return waited or None


def _memory_stall_us(root: Path) -> int | None:
    """Time in which at least one process stalled, from the kernel's pressure accounting."""
    for line in (read_text(root / "proc/pressure/memory") or "").splitlines():
        name, *fields = line.split()
        if name == "some":
            total = dict(field.partition("=")[::2] for field in fields).get("total", "")
            return int(total) if total.isdigit() else None
    return None


def _processor_time(root: Path) -> tuple[int | None, int | None, int | None]:
    """Busy and total ticks of all cores, and how many cores there are.

    Time stolen by a hypervisor counts as busy.
    """
    lines = [line.split() for line in (read_text(root / "proc/stat") or "").splitlines()]
    cores = sum(1 for line in lines if line and _CORE_LINE.fullmatch(line[0])) or None
    name, *words = (lines[0] if lines else []) or [""]
    if name != "cpu" or len(words) < 5 or not all(word.isdigit() for word in words):
        return None, None, cores
    ticks = [int(word) for word in words[:8]]  # the guest columns are already part of user
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, sum(ticks), cores


def _temperature_celsius(root: Path) -> float | None:
    temperatures = [
        plausible_celsius(millidegrees / 1000)
        for zone in (root / "sys/class/thermal").glob("thermal_zone*")
        if (millidegrees := read_int(zone / "temp")) is not None
    ]
    return max((t for t in temperatures if t is not None), default=None)


def _throttle_events(root: Path) -> int | None:
    counts = [
        count
        for path in (root / _CPU).glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
        if (count := read_int(path)) is not None
    ]
    return sum(counts) if counts else None


def _cooling(root: Path) -> bool | None:
    states = [
        state
        for device in (root / "sys/class/thermal").glob("cooling_device*")
        if (read_text(device / "type") or "").lower().startswith(_CPU_COOLING_TYPES)
        and (state := read_int(device / "cur_state")) is not None
    ]
    return any(states) if states else None
