"""What on this machine disturbs measurements: the culprit and the way out, one line each.

Everything is read from the kernel's files under a root directory; nothing is changed.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from latlas_agent.clocks import max_clocks_mhz, read_clock_mhz
from latlas_agent.conditions import Snapshot, conditions_between
from latlas_agent.sysfs import read_fields, read_int, read_meminfo_bytes, read_text
from latlas_latency.measurement import FlagThresholds

_CPU = Path("sys/devices/system/cpu")
_CPU_FILES = "/sys/devices/system/cpu/cpu*/cpufreq"
_PLATFORM_PROFILE = Path("sys/firmware/acpi/platform_profile")
_RASPBERRY_PI_UNDER_VOLTAGE = 0b1
_RASPBERRY_PI_EVER = 0xF0000
_LEAST_AVAILABLE_SHARE = 0.1
_LEAST_SWAPPED_BYTES = 16 << 20
_LEAST_PROCESS_CORES = 0.1
_N_NAMED_PROCESSES = 3
_COMMAND_LENGTH = 40
_AGENT = re.compile(r"latlas[_-]agent")
_WORKER = "latlas_agent.worker"
_MIB = 1 << 20

_SMALL_CORE_SHARE = 0.8
"""Cores whose highest clock is so far below the others' are of another kind, not merely binned."""


@dataclass(frozen=True)
class Advice:
    """One thing that disturbs measurements.

    Attributes:
        about: what it concerns, in a word or two.
        text: the culprit and the way out, one line.
    """

    about: str
    text: str


@dataclass(frozen=True)
class Process:
    """What the kernel counts of a process: its name and its processor time in clock ticks."""

    name: str
    ticks: int


def list_processes(root: Path) -> dict[int, Process]:
    """Every process by its number."""
    found = {}
    for path in (root / "proc").glob("[0-9]*/stat"):
        # The name stands in parentheses and may itself contain any character.
        start, _, rest = (read_text(path) or "").rpartition(")")
        fields = rest.split()
        if len(fields) > 12 and fields[11].isdigit() and fields[12].isdigit():
            name = start.partition("(")[2]
            found[int(path.parent.name)] = Process(name, int(fields[11]) + int(fields[12]))
    return found


def busiest(
    root: Path, before: Mapping[int, Process], after: Mapping[int, Process], elapsed_ticks: float
) -> list[str]:
    """The processes that used most in between, as in `python -m work (pid 17): 1.0 cores`."""
    used = [
        ((process.ticks - before[pid].ticks) / elapsed_ticks, pid)
        for pid, process in after.items()
        if pid in before
    ]
    return [
        f"{command_line(root, pid) or after[pid].name} (pid {pid}): {cores:.1f} cores"
        for cores, pid in sorted(used, reverse=True)[:_N_NAMED_PROCESSES]
        if cores >= _LEAST_PROCESS_CORES
    ]


def command_line(root: Path, pid: int) -> str:
    """The command line of a process, shortened: interpreters all have the same name."""
    words = _command_words(root, pid)
    line = " ".join([Path(words[0]).name, *words[1:]])
    printable = "".join(letter if letter.isprintable() else " " for letter in line)
    return textwrap.shorten(printable, _COMMAND_LENGTH, placeholder=" ...")


def is_agent(root: Path, pid: int) -> bool:
    """Whether a process is an agent, or one that an agent started."""
    return any(_AGENT.search(word) for word in _command_words(root, pid))


def unless_campaign(names: str, way_out: str) -> str:
    """The way out of a load, but for that of a campaign, which nobody should end.

    Args:
        names: who makes the load, by their command lines.
        way_out: what to do if no worker of an agent is among them.
    """
    if _WORKER in names:
        return "a campaign is at work, look again when it has ended"
    return way_out


def machine_advice(
    root: Path,
    before: Snapshot,
    after: Snapshot,
    culprits: Sequence[str],
    *,
    on_phone: bool = False,
) -> list[Advice]:
    """What concerns the machine as a whole.

    Args:
        root: the root directory.
        before: its state some tenths of a second ago, nothing measured meanwhile.
        after: its state now.
        culprits: the busiest processes in between, see `busiest`.
        on_phone: whether this is a phone, whose battery `phone_advice` knows better.
    """
    conditions = conditions_between(before, after)
    found = []
    others = (conditions.other_cpu_share or 0.0) * (conditions.online_cores or 1)
    if others >= FlagThresholds().other_cores:
        names = ", ".join(culprits) or "none of them stands out"
        way_out = unless_campaign(names, "end them, or wait until they have ended")
        found.append(Advice("load", f"others keep {others:.1f} cores busy ({names}): {way_out}"))
    if conditions.throttled:
        degrees = conditions.temperature_celsius
        at = "" if degrees is None else f" at {degrees:.0f} °C"
        found.append(
            Advice(
                "throttling",
                f"the board holds its clock back{at}: give it a heat sink, a fan and time to cool",
            )
        )
    found += _raspberry_pi(after.throttle_flags, now=bool(conditions.throttled))
    found += _memory(root, conditions.memory_stall_share)
    if not on_phone:
        found += _power(root)
    if "hypervisor" in read_fields(root / "proc/cpuinfo").get("flags", "").split():
        found.append(
            Advice(
                "virtual machine",
                "its host, other guests and real clock are out of sight: measure on a machine of "
                "its own, or with more rounds and look at the label noise",
            )
        )
    return found


def core_advice(root: Path, cores: Sequence[int], *, on_phone: bool = False) -> list[Advice]:
    """What concerns the cores that a target is measured on.

    Args:
        root: the root directory.
        cores: their numbers.
        on_phone: whether this is a phone, which lets nobody but its maker set a governor.
    """
    found = []
    named = _name_cores(cores)
    for name, path, wanted, about in (
        ("governor", "scaling_governor", "performance", "governor"),
        ("preference", "energy_performance_preference", "performance", "power preference"),
    ):
        values = _distinct(root, cores, path)
        if values and values != [wanted]:
            way_out = (
                "ask for more --rounds, and look at the label noise"
                if on_phone
                else f"echo {wanted} | sudo tee {_CPU_FILES}/{path}"
            )
            found.append(
                Advice(
                    about,
                    f"the {name} of {named} is {', '.join(values)}, which moves the clock: "
                    f"{way_out}",
                )
            )
    if read_clock_mhz(root, cores) is None:
        found.append(
            Advice(
                "clock",
                f"the clock of {named} cannot be read, so that a slow one goes unnoticed: fix it "
                "in the firmware, or compare the label noise of several sittings",
            )
        )
    shared = {
        core: siblings - {core} for core in cores if len(siblings := _siblings(root, core)) > 1
    }
    if shared:
        others = sorted(set().union(*shared.values()))
        found.append(
            Advice(
                "hardware threads",
                f"threads of one core share its units, {_name_cores(sorted(shared))} with "
                f"{_name_cores(others)}: leave one of each pair idle, or echo off | "
                f"sudo tee /{_CPU}/smt/control",
            )
        )
    found += _unlike_cores(root, cores)
    return found


def _command_words(root: Path, pid: int) -> list[str]:
    return (read_text(root / f"proc/{pid}/cmdline") or "").split("\0")


def _unlike_cores(root: Path, cores: Sequence[int]) -> Iterator[Advice]:
    clocks = max_clocks_mhz(root, cores)
    fastest = max(clocks.values(), default=0.0)
    small = [core for core, mhz in clocks.items() if mhz < _SMALL_CORE_SHARE * fastest]
    if small:
        big = [core for core in clocks if core not in small]
        yield Advice(
            "unlike cores",
            f"at most {max(clocks[core] for core in small):.0f} MHz on {_name_cores(small)}, "
            f"{fastest:.0f} MHz on {_name_cores(big)}, and a figure is of whichever a thread "
            f"happens to run on: add a target with --cores {','.join(map(str, big))}",
        )


def _raspberry_pi(flags: int | None, *, now: bool) -> Iterator[Advice]:
    if flags is None:
        return
    if flags & _RASPBERRY_PI_UNDER_VOLTAGE:
        yield Advice("power supply", "the voltage is too low: use a supply and cable made for it")
    elif flags & _RASPBERRY_PI_EVER and not now:
        yield Advice(
            "throttling",
            "the board was held back since it booted, by heat or a weak supply: improve cooling or "
            "supply, and watch for visits flagged as throttled",
        )


def _memory(root: Path, stall_share: float | None) -> Iterator[Advice]:
    total, available = (read_meminfo_bytes(root, f) for f in ("MemTotal", "MemAvailable"))
    if total and available is not None and available < _LEAST_AVAILABLE_SHARE * total:
        yield Advice(
            "memory",
            f"only {available // _MIB} MiB of {total // _MIB} MiB are left: end what holds the "
            "rest, or programs will be refused and pages dropped",
        )
    swap, free = (read_meminfo_bytes(root, f) for f in ("SwapTotal", "SwapFree"))
    if swap and free is not None and swap - free >= _LEAST_SWAPPED_BYTES:
        yield Advice(
            "swap",
            f"{(swap - free) // _MIB} MiB lie in swap, and touching them stalls a visit: "
            "sudo swapoff -a while you measure, if the memory suffices",
        )
    if stall_share is not None and stall_share > FlagThresholds().memory_stall_share:
        yield Advice(
            "memory",
            f"processes stood still for want of memory {stall_share:.0%} of the time: end what "
            "uses most of it",
        )


def _power(root: Path) -> Iterator[Advice]:
    profile = read_text(root / _PLATFORM_PROFILE)
    if profile and profile != "performance":
        yield Advice(
            "power mode",
            f"the platform profile is {profile}: echo performance | sudo tee /{_PLATFORM_PROFILE}",
        )
    supplies = (root / "sys/class/power_supply").glob("*")
    mains = [read_int(path / "online") for path in supplies if read_text(path / "type") == "Mains"]
    if mains and not any(mains):
        yield Advice("power", "the machine runs on its battery: plug it in")


def _distinct(root: Path, cores: Sequence[int], file: str) -> list[str]:
    """The distinct values of a frequency setting over cores."""
    values = (read_text(root / _CPU / f"cpu{core}/cpufreq/{file}") for core in cores)
    return sorted({value for value in values if value})


def _siblings(root: Path, core: int) -> set[int]:
    """The hardware threads of a core's core, itself among them, as in `0,4` or `0-1`."""
    text = read_text(root / _CPU / f"cpu{core}/topology/thread_siblings_list") or ""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return found


def _name_cores(cores: Sequence[int]) -> str:
    """`core 3` or `cores 0, 1, 3`."""
    return f"core{'s' if len(cores) != 1 else ''} {', '.join(map(str, cores))}"
