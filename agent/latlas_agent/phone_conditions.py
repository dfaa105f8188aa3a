"""The state of a phone around a visit, from what `grep` and `times` print in its shell.

The kernel's files are those that a board has. They are laid out under a folder of their own, so
that what reads a board reads a phone.
"""

from __future__ import annotations

import dataclasses
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from latlas_agent.clocks import allowed_clocks_mhz
from latlas_agent.conditions import Snapshot, take_snapshot

_CPU = "/sys/devices/system/cpu/cpu[0-9]*/cpufreq"
_THERMAL = "/sys/class/thermal"

READ_FILES = (
    f"grep -H '' {_CPU}/scaling_cur_freq {_CPU}/scaling_max_freq {_CPU}/cpuinfo_max_freq"
    f" {_CPU}/scaling_governor {_THERMAL}/thermal_zone*/temp {_THERMAL}/cooling_device*/type"
    f" {_THERMAL}/cooling_device*/cur_state /proc/loadavg /proc/pressure/memory 2>/dev/null;"
    " grep -H '^cpu' /proc/stat 2>/dev/null; grep -H '^Mem' /proc/meminfo 2>/dev/null"
)
"""Prints files as lines `path:text`; clocks first, for they fall as soon as a program has ended."""

_FILE_LINE = re.compile(r"^(/(?:proc|sys)/[\w./+-]+):(.*)$", re.M)
_TIME = re.compile(r"(\d+)m([\d.]+)s")
_NS_PER_S = 1_000_000_000
_S_PER_MIN = 60


def parse_files(text: str) -> dict[str, str]:
    """What each file holds, by its path, from lines `path:text`."""
    lines: dict[str, list[str]] = {}
    for path, line in _FILE_LINE.findall(text):
        if ".." not in PurePosixPath(path).parts:
            lines.setdefault(path, []).append(line)
    return {path: "\n".join(found) + "\n" for path, found in lines.items()}


def parse_children_ns(text: str) -> int | None:
    """Processor time of a shell's children, from the second line that `times` prints."""
    found = [_TIME.findall(line) for line in text.splitlines()]
    pairs = [line for line in found if len(line) == 2]
    if len(pairs) != 2:
        return None
    seconds = sum(int(minutes) * _S_PER_MIN + float(rest) for minutes, rest in pairs[1])
    return round(seconds * _NS_PER_S)


def list_cores(text: str) -> tuple[int, ...]:
    """Core numbers from the kernel's notation, as in `0-3,6`."""
    cores: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            cores.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(cores))


class PhoneWatch:
    """Makes snapshots of one phone out of what its shell prints.

    Cores count as capped where they may reach less than at any time since this watch began.

    Args:
        cores: the phone's cores.
    """

    def __init__(self, cores: Sequence[int]) -> None:
        self._cores = tuple(cores)
        self._usual_mhz: dict[int, float] = {}

    def snapshot(
        self, files: Mapping[str, str], children_ns: int | None, taken_ns: int, used: Sequence[int]
    ) -> Snapshot:
        """The state that the files tell of.

        Args:
            files: what the kernel's files hold, by path.
            children_ns: processor time of the measurement so far; where it is not known, nobody can
                say what others used.
            taken_ns: when, on a clock of the caller's.
            used: cores that the measurement runs on; empty means all.
        """
        cores = tuple(used) or self._cores
        with tempfile.TemporaryDirectory(prefix="latlas-phone-") as folder:
            root = Path(folder)
            for path, text in files.items():
                file = root / path.lstrip("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
            snapshot = take_snapshot(root, cores, children_ns or 0, taken_ns)
            allowed = allowed_clocks_mhz(root, self._cores)
        for core, mhz in allowed.items():
            self._usual_mhz[core] = max(mhz, self._usual_mhz.get(core, mhz))
        told = [core for core in cores if core in allowed]
        capped = any(allowed[core] < self._usual_mhz[core] for core in told) if told else None
        snapshot = dataclasses.replace(snapshot, clock_capped=capped, waited_ns=None)
        if children_ns is None:
            snapshot = dataclasses.replace(snapshot, busy_ticks=None, total_ticks=None)
        return snapshot
