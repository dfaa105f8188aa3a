"""The clocks of the processor's cores: what they run at, may run at, and could run at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latlas_agent.sysfs import read_int, read_text, to_float

_CPU = Path("sys/devices/system/cpu")
_KHZ_PER_MHZ = 1000


def read_clock_mhz(root: Path, cores: Sequence[int]) -> float | None:
    """Mean clock of `cores`; None where the system does not tell it."""
    clocks = list(_frequencies_mhz(root, cores, "scaling_cur_freq").values())
    clocks = clocks or _cpuinfo_mhz(root, cores)
    return sum(clocks) / len(clocks) if clocks else None


def read_max_clock_mhz(root: Path, cores: Sequence[int]) -> float | None:
    """Mean of the highest clocks that `cores` have, turbo included; None if it is not told."""
    clocks = max_clocks_mhz(root, cores)
    return sum(clocks.values()) / len(clocks) if clocks else None


def max_clocks_mhz(root: Path, cores: Sequence[int]) -> dict[int, float]:
    """The highest clock of each core that tells it."""
    return _frequencies_mhz(root, cores, "cpuinfo_max_freq")


def allowed_clocks_mhz(root: Path, cores: Sequence[int]) -> dict[int, float]:
    """The highest clock that each core may take for now, of those that tell it."""
    return _frequencies_mhz(root, cores, "scaling_max_freq")


def capped_cores(root: Path, cores: Sequence[int]) -> dict[int, tuple[float, float]] | None:
    """Cores whose clock may not reach what they can do: core → MHz allowed and MHz possible.

    A phone's thermal engine and battery saver work that way. None if no core tells both.
    """
    allowed = allowed_clocks_mhz(root, cores)
    possible = max_clocks_mhz(root, cores)
    told = sorted(allowed.keys() & possible.keys())
    if not told:
        return None
    return {
        core: (allowed[core], possible[core]) for core in told if allowed[core] < possible[core]
    }


def _frequencies_mhz(root: Path, cores: Sequence[int], file: str) -> dict[int, float]:
    return {
        core: khz / _KHZ_PER_MHZ
        for core in cores
        if (khz := read_int(root / _CPU / f"cpu{core}/cpufreq/{file}")) is not None
    }


def _cpuinfo_mhz(root: Path, cores: Sequence[int]) -> list[float]:
    clocks, core = [], -1
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "processor" and value.isdigit():
            core = int(value)
        elif key == "cpu MHz" and core in cores and (clock_mhz := to_float(value)) is not None:
            clocks.append(clock_mhz)
    return clocks
