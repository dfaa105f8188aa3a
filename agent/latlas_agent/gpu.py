"""The state of the GPU that a target runs on, and how boards without NVML tell it.

The integrated GPU of a Jetson has hardly any NVML: the kernel's devfreq node and a load file speak
for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latlas_agent.sysfs import read_int, read_meminfo_bytes, read_text

NVIDIA_PROVIDERS = frozenset(
    {
        "CUDAExecutionProvider",
        "NvTensorRTRTXExecutionProvider",
        "TensorrtExecutionProvider",
        "cuda",
    }
)
"""Execution providers that compute on an NVIDIA GPU."""

_DEVFREQ_NAMES = ("gpu", "ga10b", "gv11b", "gp10b", "gm20b")
_LOAD_FILES = ("sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load")
_COOLING_TYPES = ("gpu", "devfreq", "thermal-devfreq")
_HZ_PER_MHZ = 1_000_000
_MIB = 1 << 20


@dataclass(frozen=True)
class GpuProcess:
    """Another process on the GPU; None where the driver does not say.

    Attributes:
        pid: its number.
        memory_bytes: memory that it holds on the GPU.
        share: share of the last second in which it computed, 0 to 1.
    """

    pid: int
    memory_bytes: int | None = None
    share: float | None = None


@dataclass(frozen=True)
class Gpu:
    """What a GPU says at one moment; None where it says nothing.

    Attributes:
        index: its number among the board's GPUs, as `nvidia-smi -i` counts.
        name: what it is; empty where it has no name of its own.
        clock_mhz: clock of its shader cores.
        max_clock_mhz: the highest clock that it has, or may take.
        temperature_celsius: its sensor.
        throttle_reasons: why it holds its clock back, in words; empty if it does not, or for its
            power limit alone.
        power_capped: whether it lowers its clock to stay within its power limit, as most do under
            full load.
        clock_fixed: whether its clock is fixed by hand.
        others: processes that compute on it and are not the one that measures.
        busy_share: share of time in which anything computed on it, 0 to 1.
        available_memory_bytes: memory still to be had on it.
        persistence: whether the driver stays loaded while nobody uses the GPU.
        power_limit_watts: power that it may take.
        default_power_limit_watts: power that it was made to take.
    """

    index: int = 0
    name: str = ""
    clock_mhz: float | None = None
    max_clock_mhz: float | None = None
    temperature_celsius: float | None = None
    throttle_reasons: tuple[str, ...] | None = None
    power_capped: bool | None = None
    clock_fixed: bool | None = None
    others: tuple[GpuProcess, ...] | None = None
    busy_share: float | None = None
    available_memory_bytes: int | None = None
    persistence: bool | None = None
    power_limit_watts: float | None = None
    default_power_limit_watts: float | None = None

    @property
    def throttled(self) -> bool | None:
        """Whether it holds its clock back, but for its power limit."""
        return None if self.throttle_reasons is None else bool(self.throttle_reasons)

    @property
    def other_share(self) -> float | None:
        """Share of time in which others computed on it, 0 to 1."""
        if self.others is None:
            return None
        shares = [process.share for process in self.others if process.share is not None]
        return min(1.0, sum(shares)) if shares or not self.others else None

    @property
    def other_memory_bytes(self) -> int | None:
        """Memory on the GPU that others hold, as far as the driver tells."""
        if self.others is None:
            return None
        held = [each.memory_bytes for each in self.others if each.memory_bytes is not None]
        return sum(held) if held or not self.others else None

    @property
    def power_mode(self) -> str | None:
        """What it is set to, as one text."""
        settings = []
        if self.power_limit_watts is not None:
            settings.append(f"GPU {self.power_limit_watts:g} W")
        if self.persistence is not None:
            settings.append(f"persistence {'on' if self.persistence else 'off'}")
        return ", ".join(settings) or None


def find_devfreq(root: Path) -> Path | None:
    """The devfreq node of an integrated GPU: `17000000.gpu`, `17000000.ga10b` on older systems."""
    nodes = sorted((root / "sys/class/devfreq").glob("*"))
    return next((node for node in nodes if _names_gpu(node.name)), None)


def read_devfreq(root: Path, node: Path) -> Gpu:
    """What the kernel says of an integrated GPU; who else computes on it is not told.

    Its memory is the board's.

    Args:
        root: the root directory.
        node: see `find_devfreq`.
    """
    lowest, highest = (_mhz(node / name) for name in ("min_freq", "max_freq"))
    load_files = (root / _LOAD_FILES[0], root / _LOAD_FILES[1], node / "device/load")
    loads = [load for path in load_files if (load := read_int(path)) is not None]
    cooling = _cooling(root)
    return Gpu(
        clock_mhz=_mhz(node / "cur_freq"),
        max_clock_mhz=highest,
        throttle_reasons=None if cooling is None else ("heat",) * cooling,
        clock_fixed=None if lowest is None or highest is None else lowest == highest,
        busy_share=min(1.0, loads[0] / 1000) if loads else None,
        available_memory_bytes=read_meminfo_bytes(root, "MemAvailable"),
    )


def describe(processes: Sequence[GpuProcess]) -> str:
    """As in `pid 17 with 1200 MiB at 35 %`, separated by commas."""
    texts = []
    for process in processes:
        text = f"pid {process.pid}"
        if process.memory_bytes is not None:
            text += f" with {process.memory_bytes // _MIB} MiB"
        if process.share:
            text += f" at {100 * process.share:.0f} %"
        texts.append(text)
    return ", ".join(texts)


def _names_gpu(node_name: str) -> bool:
    """Whether the last part of a node's name is a GPU's, as in `57000000.gpu` or `gpu-gpc-0`."""
    return node_name.rpartition(".")[2].startswith(_DEVFREQ_NAMES)


def _mhz(path: Path) -> float | None:
    hertz = read_int(path)
    return None if hertz is None else hertz / _HZ_PER_MHZ


def _cooling(root: Path) -> bool | None:
    """Whether a cooling device holds the GPU back right now; None if there is none."""
    states = [
        state
        for device in (root / "sys/class/thermal").glob("cooling_device*")
        if (read_text(device / "type") or "").lower().startswith(_COOLING_TYPES)
        and (state := read_int(device / "cur_state")) is not None
    ]
    return any(states) if states else None
