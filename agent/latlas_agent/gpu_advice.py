"""What disturbs measurements on a GPU: the culprit and the way out, one line each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from latlas_agent.advice import Advice, command_line, unless_campaign
from latlas_agent.gpu import Gpu, GpuProcess, describe

_BUSY_SHARE = 0.1
_STEADY_SHARE = 0.75
"""A clock that most GPUs hold under full load."""

_CLOCK_STEP_MHZ = 15


def gpu_advice(root: Path, gpu: Gpu) -> list[Advice]:
    """What concerns the GPU of a target, looked at while nothing is measured on it.

    Args:
        root: the root directory.
        gpu: its state.
    """
    return [*_neighbours(root, gpu), *_clock(gpu), *_power(gpu)]


def _neighbours(root: Path, gpu: Gpu) -> Iterator[Advice]:
    if gpu.others:
        names = "; ".join(_name(root, process) for process in gpu.others)
        way_out = unless_campaign(
            names, "end them, or run the agent on another GPU with CUDA_VISIBLE_DEVICES"
        )
        yield Advice("GPU in use", f"others compute on GPU {gpu.index} ({names}): {way_out}")
    elif gpu.busy_share is not None and gpu.busy_share >= _BUSY_SHARE:
        yield Advice(
            "GPU in use",
            f"GPU {gpu.index} is busy {100 * gpu.busy_share:.0f} % of the time, with a desktop or "
            "with processes that the driver does not name: end them, or use a GPU without a screen",
        )


def _name(root: Path, process: GpuProcess) -> str:
    command = command_line(root, process.pid)
    return f"{command}, {describe([process])}" if command else describe([process])


def _clock(gpu: Gpu) -> Iterator[Advice]:
    if gpu.throttle_reasons:
        yield Advice(
            "GPU throttling",
            f"GPU {gpu.index} holds its clock back ({', '.join(gpu.throttle_reasons)}): fix a "
            "lower clock that it can keep, and see to its cooling and power supply",
        )
    if gpu.clock_fixed is not False:
        return
    text = f"the clock of GPU {gpu.index} moves with its load"
    if gpu.clock_mhz is not None and gpu.max_clock_mhz is not None:
        text += f" ({gpu.clock_mhz:.0f} of {gpu.max_clock_mhz:.0f} MHz now)"
    if gpu.persistence is None:
        yield Advice("GPU clock", f"{text}: sudo jetson_clocks")
        return
    yield Advice("GPU clock", f"{text}: {_fix_clock(gpu)} (-rgc undoes it)")


def _fix_clock(gpu: Gpu) -> str:
    """The command that fixes the clock where most GPUs can keep it."""
    highest = gpu.max_clock_mhz or 0.0
    steady = int(_STEADY_SHARE * highest) // _CLOCK_STEP_MHZ * _CLOCK_STEP_MHZ
    return f"sudo nvidia-smi -i {gpu.index} -lgc {steady},{steady}"


def _power(gpu: Gpu) -> Iterator[Advice]:
    if gpu.persistence is False:
        yield Advice(
            "GPU persistence",
            f"the driver forgets clocks and unloads when nobody uses GPU {gpu.index}: "
            f"sudo nvidia-smi -i {gpu.index} -pm 1",
        )
    limit, usual = gpu.power_limit_watts, gpu.default_power_limit_watts
    if limit is not None and usual is not None and limit < usual:
        yield Advice(
            "GPU power cap",
            f"GPU {gpu.index} may take {limit:g} W of the {usual:g} W it was made for, and slows "
            f"down under load: sudo nvidia-smi -i {gpu.index} -pl {usual:.0f}",
        )
    elif gpu.power_capped:
        at = "" if limit is None else f" of {limit:g} W"
        yield Advice(
            "GPU power cap",
            f"GPU {gpu.index} lowers its clock to stay within its power limit{at}, as is normal "
            f"under full load, and its clock moves with what it computes: {_fix_clock(gpu)}",
        )
