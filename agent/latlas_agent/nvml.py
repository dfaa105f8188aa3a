"""NVIDIA's management library (NVML), as far as the conditions of a visit need it.

The library comes with the driver, and its symbols keep their meaning for good: what changes gets a
new name with a new version at its end. A dozen of them are called here through ctypes. The package
`nvidia-ml-py` would wrap the same calls in 6,000 lines that have to match the driver no better, and
be one more thing to install on a board.

What a GPU does not support, or a library is too old for, is None; no call raises.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import Any

from latlas_agent.gpu import Gpu, GpuProcess
from latlas_ops.errors import RuntimeUnavailableError

_LIBRARY = "libnvidia-ml.so.1"

_SUCCESS = 0
_NOT_FOUND = 6
_INSUFFICIENT_SIZE = 7
_FUNCTION_NOT_FOUND = 13
_REASONS = {
    4: "this process may not use it",
    9: "the NVIDIA driver is not loaded; see whether nvidia-smi works",
    12: "the driver lacks a library; install the driver again",
    15: "the GPU fell off the bus; reboot",
    18: "driver and library have different versions, as after an upgrade of the driver; reboot, or "
    "load the driver's module anew",
}

_SM_CLOCK = 1
_ON_THE_DIE = 0
_NAME_BYTES = 96
_NOT_AVAILABLE = (1 << 64) - 1
_FIXED_BY_HAND = 0x2
_IDLE = 0x1
_POWER_CAP = 0x4
_THROTTLING = {
    0x8: "hardware slowdown",
    0x20: "heat",
    0x40: "heat, by the hardware",
    0x80: "power brake",
}
"""Bits of the reasons for a clock below the highest that are throttling.

Idleness and clocks set by hand are none, and neither is the power cap: under full load many GPUs
stay at their power limit for good.
"""

_SURELY_IDLE_SHARE = 0.5
"""A clock that has fallen so far in idleness is not fixed."""

_PROCESS_WINDOW_US = 1_000_000
_LIST_SIZE = 64
_MILLI = 1000


class _Memory(ctypes.Structure):
    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class _Utilisation(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Process(ctypes.Structure):
    """As of versions 2 and 3 of the call."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class _ProcessSample(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("time_us", ctypes.c_ulonglong),
        ("sm", ctypes.c_uint),
        ("memory", ctypes.c_uint),
        ("encoder", ctypes.c_uint),
        ("decoder", ctypes.c_uint),
    )


class Nvml:
    """The library, initialised.

    Args:
        library: the loaded library, or what answers like it.

    Raises:
        RuntimeUnavailableError: it does not work here; the message says why.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        code = self._call("nvmlInit_v2")
        if code != _SUCCESS:
            raise RuntimeUnavailableError(
                f"NVIDIA's management library does not work: {_REASONS.get(code, f'error {code}')}"
            )

    @classmethod
    def load(cls, load: Callable[[str], Any] = ctypes.CDLL) -> Nvml:
        """The library of this machine.

        Raises:
            RuntimeUnavailableError: there is none, or it does not work.
        """
        try:
            library = load(_LIBRARY)
        except OSError as error:
            raise RuntimeUnavailableError(
                f"{_LIBRARY} cannot be loaded: install NVIDIA's driver, or in a container set "
                "NVIDIA_DRIVER_CAPABILITIES=compute,utility"
            ) from error
        return cls(library)

    def find(self, environment: Mapping[str, str]) -> int:
        """The number of the GPU that CUDA takes for its first one.

        Args:
            environment: environment variables of the process that computes.

        Raises:
            RuntimeUnavailableError: there is none, or it cannot be told which it is.
        """
        count = self._number("nvmlDeviceGetCount_v2") or 0
        if not count:
            raise RuntimeUnavailableError("NVIDIA's management library lists no GPU")
        chosen = environment.get("CUDA_VISIBLE_DEVICES")
        first = "0" if chosen is None else chosen.split(",")[0].strip()
        if first.isdigit() and int(first) < count:
            names = {self._text(self._handle(index), "nvmlDeviceGetName") for index in range(count)}
            if len(names) > 1 and environment.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
                raise RuntimeUnavailableError(
                    f"the {count} GPUs differ, and CUDA counts them in an order of its own: set "
                    "CUDA_DEVICE_ORDER=PCI_BUS_ID"
                )
            return int(first)
        for index in range(count):
            uuid = self._text(self._handle(index), "nvmlDeviceGetUUID")
            if uuid and first.startswith("GPU-") and uuid.startswith(first):
                return index
        raise RuntimeUnavailableError(
            f"CUDA_VISIBLE_DEVICES={chosen} names no whole GPU of the {count} here: give the "
            "number of one"
        )

    def read(self, index: int, own_pid: int | None, unix_ns: int) -> Gpu:
        """What a GPU says now; takes about a millisecond.

        Args:
            index: its number.
            own_pid: the process that measures; None if it does not use the GPU, so that all are
                others.
            unix_ns: time of day.
        """
        gpu = self._handle(index)
        clock = self._number("nvmlDeviceGetClockInfo", gpu, _SM_CLOCK)
        highest = self._number("nvmlDeviceGetMaxClockInfo", gpu, _SM_CLOCK)
        reasons = self._number(
            "nvmlDeviceGetCurrentClocksThrottleReasons", gpu, kind=ctypes.c_ulonglong
        )
        memory, load = _Memory(), _Utilisation()
        memory_told = self._tells("nvmlDeviceGetMemoryInfo", gpu, ctypes.byref(memory))
        load_told = self._tells("nvmlDeviceGetUtilizationRates", gpu, ctypes.byref(load))
        persistence = self._number("nvmlDeviceGetPersistenceMode", gpu)
        return Gpu(
            index=index,
            name=self._text(gpu, "nvmlDeviceGetName") or "",
            clock_mhz=clock,
            max_clock_mhz=highest,
            temperature_celsius=self._number("nvmlDeviceGetTemperature", gpu, _ON_THE_DIE),
            throttle_reasons=None if reasons is None else _throttling(reasons),
            power_capped=None if reasons is None else bool(reasons & _POWER_CAP),
            clock_fixed=_clock_fixed(reasons, clock, highest),
            others=self._others(gpu, own_pid, unix_ns),
            busy_share=load.gpu / 100 if load_told else None,
            available_memory_bytes=int(memory.free) if memory_told else None,
            persistence=None if persistence is None else bool(persistence),
            power_limit_watts=self._watts(gpu, "nvmlDeviceGetEnforcedPowerLimit"),
            default_power_limit_watts=self._watts(gpu, "nvmlDeviceGetPowerManagementDefaultLimit"),
        )

    def _others(
        self, gpu: ctypes.c_void_p, own_pid: int | None, unix_ns: int
    ) -> tuple[GpuProcess, ...] | None:
        """Computing processes but `own_pid`; None if it cannot be told which that is.

        A process in a container does not see the numbers that the driver knows: it is missing
        among them, and would be taken for somebody else.
        """
        processes = self._list("nvmlDeviceGetComputeRunningProcesses_v3", _Process, gpu)
        if processes is None:
            processes = self._list("nvmlDeviceGetComputeRunningProcesses_v2", _Process, gpu)
        if processes is None:
            return None
        pids = {process.pid for process in processes}
        if own_pid is not None and own_pid not in pids:
            return None
        shares = self._shares(gpu, unix_ns)
        return tuple(
            GpuProcess(
                pid=process.pid,
                memory_bytes=None if process.memory == _NOT_AVAILABLE else int(process.memory),
                share=None if shares is None else shares.get(process.pid, 0.0),
            )
            for process in processes
            if process.pid != own_pid
        )

    def _shares(self, gpu: ctypes.c_void_p, unix_ns: int) -> dict[int, float] | None:
        """The latest share of each process within the last second; None where it is not told.

        Drivers put rows among the samples that are older than what was asked for, empty, or beyond
        100 %: they are left out.
        """
        since_us = max(0, unix_ns // 1000 - _PROCESS_WINDOW_US)
        samples = self._list(
            "nvmlDeviceGetProcessUtilization",
            _ProcessSample,
            gpu,
            after=(ctypes.c_ulonglong(since_us),),
            empty_code=_NOT_FOUND,  # no process computed since then
        )
        if samples is None:
            return None
        samples = [each for each in samples if each.sm <= 100 and each.time_us > since_us]
        samples.sort(key=lambda sample: int(sample.time_us))
        return {sample.pid: sample.sm / 100 for sample in samples}

    def _handle(self, index: int) -> ctypes.c_void_p:
        """The handle of a GPU; one that is refused makes every call after it fail."""
        handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        return handle

    def _call(self, function: str, *arguments: object) -> int:
        symbol = getattr(self._library, function, None)
        return _FUNCTION_NOT_FOUND if symbol is None else int(symbol(*arguments))

    def _tells(self, function: str, *arguments: object) -> bool:
        return self._call(function, *arguments) == _SUCCESS

    def _number(self, function: str, *arguments: object, kind: Any = ctypes.c_uint) -> int | None:
        value = kind()
        return int(value.value) if self._tells(function, *arguments, ctypes.byref(value)) else None

    def _watts(self, gpu: ctypes.c_void_p, function: str) -> float | None:
        milliwatts = self._number(function, gpu)
        return None if milliwatts is None else milliwatts / _MILLI

    def _text(self, gpu: ctypes.c_void_p, function: str) -> str | None:
        buffer = ctypes.create_string_buffer(_NAME_BYTES)
        told = self._tells(function, gpu, buffer, ctypes.c_uint(_NAME_BYTES))
        return buffer.value.decode(errors="replace") if told else None

    def _list(
        self,
        function: str,
        kind: Any,
        gpu: ctypes.c_void_p,
        after: tuple[object, ...] = (),
        empty_code: int | None = None,
    ) -> list[Any] | None:
        """What a call writes into an array whose size it wants to be told.

        `empty_code` is what it returns where there is nothing to write.
        """
        size = _LIST_SIZE
        for _ in range(2):
            items, count = (kind * size)(), ctypes.c_uint(size)
            # One of these calls wants the array before its size, the other one after it.
            pair = (items, ctypes.byref(count)) if after else (ctypes.byref(count), items)
            code = self._call(function, gpu, *pair, *after)
            if code != _INSUFFICIENT_SIZE:
                break
            size = count.value + _LIST_SIZE
        if code == empty_code:
            return []
        return list(items[: count.value]) if code == _SUCCESS else None


def _throttling(reasons: int) -> tuple[str, ...]:
    return tuple(words for bit, words in _THROTTLING.items() if reasons & bit)


def _clock_fixed(reasons: int | None, clock: int | None, highest: int | None) -> bool | None:
    """Whether the clock is fixed by hand; the library has no call for it, only signs."""
    if reasons is None:
        return None
    if reasons & _FIXED_BY_HAND:
        return True
    fell = clock is not None and highest is not None and clock < _SURELY_IDLE_SHARE * highest
    return False if reasons & _IDLE and fell else None
