"""NVIDIA's management library, played by an object that answers as the real one does."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from latlas_agent.gpu import Gpu, GpuProcess
from latlas_agent.nvml import Nvml
from latlas_ops.errors import RuntimeUnavailableError

OK, NOT_SUPPORTED, INSUFFICIENT_SIZE, NOT_FOUND, MISMATCH = 0, 3, 7, 6, 18
OWN_PID = 4711
NOT_AVAILABLE = (1 << 64) - 1

A100 = {
    "nvmlDeviceGetName": "NVIDIA A100-SXM4-40GB",
    "nvmlDeviceGetUUID": "GPU-3f5c",
    "nvmlDeviceGetClockInfo": 1095,
    "nvmlDeviceGetMaxClockInfo": 1410,
    "nvmlDeviceGetTemperature": 61,
    "nvmlDeviceGetCurrentClocksThrottleReasons": 0,
    "nvmlDeviceGetMemoryInfo": {"total": 40 << 30, "free": 30 << 30, "used": 10 << 30},
    "nvmlDeviceGetUtilizationRates": {"gpu": 97, "memory": 40},
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetEnforcedPowerLimit": 400_000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 400_000,
    "nvmlDeviceGetComputeRunningProcesses_v3": [(OWN_PID, 8 << 30), (17, 2 << 30)],
    "nvmlDeviceGetProcessUtilization": [(OWN_PID, 60), (17, 35)],
}


class Refused(NamedTuple):
    """An answer that is nothing but a code."""

    code: int


class FakeLibrary:
    """Functions as of `libnvidia-ml.so.1`: they return a code and write through pointers.

    Args:
        *gpus: per GPU what each function answers; one that is not there is not supported.
        init: what `nvmlInit_v2` returns.
        absent: functions that this release of the library does not have.
    """

    def __init__(
        self, *gpus: Mapping[str, Any], init: int = OK, absent: tuple[str, ...] = ()
    ) -> None:
        self._gpus = gpus
        self._init = init
        self._absent = absent

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("nvml") or name in self._absent:
            raise AttributeError(name)
        special = {
            "nvmlInit_v2": lambda: self._init,
            "nvmlDeviceGetCount_v2": self._count,
            "nvmlDeviceGetHandleByIndex_v2": self._handle,
        }
        return special.get(name) or (lambda gpu, *rest: self._answer(name, gpu, *rest))

    def _count(self, count: Any) -> int:
        count._obj.value = len(self._gpus)
        return OK

    def _handle(self, index: ctypes.c_uint, handle: Any) -> int:
        handle._obj.value = index.value + 1  # a null pointer is no handle
        return OK if index.value < len(self._gpus) else NOT_FOUND

    def _answer(self, name: str, gpu: ctypes.c_void_p, *rest: Any) -> int:
        answer = self._gpus[(gpu.value or 0) - 1].get(name)
        if answer is None:
            return NOT_SUPPORTED
        if isinstance(answer, str):
            rest[0].value = answer.encode()
        elif isinstance(answer, dict):
            for field, value in answer.items():
                setattr(rest[0]._obj, field, value)
        elif isinstance(answer, list):
            return self._list(answer, *rest)
        elif isinstance(answer, Refused):
            return answer.code
        else:
            rest[-1]._obj.value = answer
        return OK

    def _list(self, answer: list[tuple[int, ...]], *rest: Any) -> int:
        """Rows of a process and its memory, or of a sample's process, load and age."""
        by_array = isinstance(rest[0], ctypes.Array)
        items, count = (rest[0], rest[1]) if by_array else (rest[1], rest[0])
        room, count._obj.value = count._obj.value, len(answer)
        if room < len(answer):
            return INSUFFICIENT_SIZE
        for item, (pid, value, *age_us) in zip(items, answer, strict=False):
            item.pid = pid
            setattr(item, "sm" if by_array else "memory", value)
            if by_array:
                [since] = rest[2:]
                item.time_us = since.value + (age_us[0] if age_us else 1)
        return OK


def read(change: Mapping[str, Any] | None = None, own_pid: int | None = OWN_PID) -> Gpu:
    """An A100 that is busy with a measurement and one other process, but for `change`."""
    return Nvml(FakeLibrary({**A100, **(change or {})})).read(0, own_pid, time.time_ns())


def test_a_gpu_says_all_it_knows() -> None:
    assert read() == Gpu(
        index=0,
        name="NVIDIA A100-SXM4-40GB",
        clock_mhz=1095,
        max_clock_mhz=1410,
        temperature_celsius=61,
        throttle_reasons=(),
        power_capped=False,
        clock_fixed=None,
        others=(GpuProcess(17, 2 << 30, 0.35),),
        busy_share=0.97,
        available_memory_bytes=30 << 30,
        persistence=True,
        power_limit_watts=400.0,
        default_power_limit_watts=400.0,
    )
    assert read().other_share == 0.35
    assert read().other_memory_bytes == 2 << 30
    assert read().power_mode == "GPU 400 W, persistence on"


@pytest.mark.parametrize("function", sorted(set(A100) - {"nvmlDeviceGetUUID"}))
def test_what_a_gpu_does_not_support_is_unknown_and_the_rest_is_told(function: str) -> None:
    full, lacking = vars(read()), vars(read({function: None}))
    different = [field for field, value in full.items() if lacking[field] != value]
    reasons = ["throttle_reasons", "power_capped"]
    assert len(different) == 1 or different == reasons
    empty = {"name": "", "others": (GpuProcess(17, 2 << 30, None),)}
    if function == "nvmlDeviceGetComputeRunningProcesses_v3":
        empty = {"others": None}
    assert lacking[different[0]] == empty.get(different[0])


@pytest.mark.parametrize(
    ("reasons", "words"),
    [
        (0x1, ()),  # idle
        (0x2, ()),  # clocks set by hand
        (0x4, ()),  # at the power limit
        (0x8 | 0x40, ("hardware slowdown", "heat, by the hardware")),
        (0x20, ("heat",)),
        (0x4 | 0x20, ("heat",)),
        (0x80, ("power brake",)),
        (0x10 | 0x100, ()),  # kept in step with other GPUs, with a display
    ],
)
def test_only_heat_and_hardware_are_throttling(reasons: int, words: tuple[str, ...]) -> None:
    gpu = read({"nvmlDeviceGetCurrentClocksThrottleReasons": reasons})
    assert gpu.throttle_reasons == words
    assert gpu.throttled is bool(words)
    assert gpu.power_capped is bool(reasons & 0x4)


@pytest.mark.parametrize(
    ("reasons", "mhz", "fixed"),
    [
        (0x2, 1095, True),
        (0x1, 210, False),  # it fell in idleness
        (0x1, 1410, None),  # idle and fast: perhaps fixed there
        (0x0, 210, None),
        (None, 210, None),
    ],
)
def test_whether_the_clock_is_fixed_shows_by_signs(
    reasons: int | None, mhz: int, fixed: bool | None
) -> None:
    change = {
        "nvmlDeviceGetCurrentClocksThrottleReasons": reasons,
        "nvmlDeviceGetClockInfo": mhz,
    }
    assert read(change).clock_fixed is fixed


def test_before_anything_is_measured_all_processes_are_others() -> None:
    gpu = read(own_pid=None)
    assert [process.pid for process in gpu.others or ()] == [OWN_PID, 17]
    assert gpu.other_share == pytest.approx(0.95)


def test_in_a_container_whose_numbers_the_driver_does_not_know_others_are_unknown() -> None:
    gpu = read(own_pid=1)
    assert (gpu.others, gpu.other_share, gpu.other_memory_bytes) == (None, None, None)


def test_alone_on_a_gpu_the_others_have_nothing() -> None:
    gpu = read({"nvmlDeviceGetComputeRunningProcesses_v3": [(OWN_PID, 8 << 30)]})
    assert (gpu.others, gpu.other_share, gpu.other_memory_bytes) == ((), 0.0, 0)


@pytest.mark.parametrize(
    "rows",
    [
        [(17, 35), (17, 37100, 2), (17, 0, -900_000), (0, 0, -5_000_000)],  # nonsense, stale, empty
        [(17, 80), (17, 35, 2), (17, 90, 0)],  # unordered
    ],
)
def test_nonsense_among_the_samples_is_left_out(rows: list[tuple[int, ...]]) -> None:
    assert read({"nvmlDeviceGetProcessUtilization": rows}).other_share == 0.35


def test_a_process_of_which_only_nonsense_is_told_is_idle() -> None:
    rows = [(17, 37100, 2), (17, 60, -1)]
    assert read({"nvmlDeviceGetProcessUtilization": rows}).other_share == 0.0


def test_where_no_process_computed_lately_all_are_idle() -> None:
    gpu = read({"nvmlDeviceGetProcessUtilization": Refused(NOT_FOUND)})
    assert gpu.others == (GpuProcess(17, 2 << 30, 0.0),)
    assert read({"nvmlDeviceGetProcessUtilization": Refused(4)}).other_share is None
    processes = read({"nvmlDeviceGetComputeRunningProcesses_v3": Refused(NOT_FOUND)})
    assert processes.others is None


def test_memory_that_the_driver_does_not_tell_is_not_counted() -> None:
    processes = [(OWN_PID, 1), (17, NOT_AVAILABLE)]
    gpu = read({"nvmlDeviceGetComputeRunningProcesses_v3": processes})
    assert gpu.others == (GpuProcess(17, None, 0.35),)
    assert gpu.other_memory_bytes is None


def test_more_processes_than_there_was_room_for_are_listed() -> None:
    processes = [(OWN_PID, 1), *((100 + number, 1) for number in range(150))]
    gpu = read({"nvmlDeviceGetComputeRunningProcesses_v3": processes})
    assert len(gpu.others or ()) == 150


def test_an_older_library_lists_processes_by_its_own_call() -> None:
    v3, v2 = (f"nvmlDeviceGetComputeRunningProcesses_v{version}" for version in (3, 2))
    library = FakeLibrary({**A100, v2: [(OWN_PID, 1), (18, 5)]}, absent=(v3,))
    gpu = Nvml(library).read(0, OWN_PID, time.time_ns())
    assert [process.pid for process in gpu.others or ()] == [18]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (MISMATCH, "driver and library have different versions"),
        (9, "the NVIDIA driver is not loaded"),
        (4, "this process may not use it"),
        (999, "error 999"),
    ],
)
def test_a_library_that_does_not_work_says_why(code: int, says: str) -> None:
    with pytest.raises(RuntimeUnavailableError, match=says):
        Nvml(FakeLibrary(A100, init=code))


def test_without_the_library_there_is_a_way_out() -> None:
    def load(name: str) -> object:
        raise OSError(f"{name}: cannot open shared object file")

    with pytest.raises(RuntimeUnavailableError, match=r"libnvidia-ml\.so\.1 cannot be loaded"):
        Nvml.load(load)


TWINS = (A100, {**A100, "nvmlDeviceGetUUID": "GPU-77aa"})
PAIR = (A100, {**TWINS[1], "nvmlDeviceGetName": "NVIDIA T4"})


@pytest.mark.parametrize(
    ("gpus", "environment", "index"),
    [
        (TWINS, {}, 0),
        (TWINS, {"CUDA_VISIBLE_DEVICES": "1"}, 1),
        (TWINS, {"CUDA_VISIBLE_DEVICES": "1,0"}, 1),
        (TWINS, {"CUDA_VISIBLE_DEVICES": "GPU-77"}, 1),
        (PAIR, {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, 1),
        (PAIR, {"CUDA_VISIBLE_DEVICES": "GPU-77aa"}, 1),
    ],
)
def test_the_gpu_is_the_one_that_cuda_takes(
    gpus: tuple[Mapping[str, Any], ...], environment: Mapping[str, str], index: int
) -> None:
    assert Nvml(FakeLibrary(*gpus)).find(environment) == index


@pytest.mark.parametrize(
    ("gpus", "environment", "says"),
    [
        ((), {}, "lists no GPU"),
        (PAIR, {}, "the 2 GPUs differ, .* set CUDA_DEVICE_ORDER=PCI_BUS_ID"),
        (TWINS, {"CUDA_VISIBLE_DEVICES": ""}, "names no whole GPU of the 2 here"),
        (TWINS, {"CUDA_VISIBLE_DEVICES": "7"}, "CUDA_VISIBLE_DEVICES=7 names no whole GPU"),
        (TWINS, {"CUDA_VISIBLE_DEVICES": "MIG-3f5c"}, "names no whole GPU"),
    ],
)
def test_a_gpu_that_cannot_be_told_is_refused(
    gpus: tuple[Mapping[str, Any], ...], environment: Mapping[str, str], says: str
) -> None:
    with pytest.raises(RuntimeUnavailableError, match=says):
        Nvml(FakeLibrary(*gpus)).find(environment)


def test_calls_are_those_of_a_library_in_c(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler is here to build a stand-in for the library")
    source, library = Path(__file__).with_name("fake_nvml.c"), tmp_path / "libnvidia-ml.so.1"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(library), str(source)], check=True, timeout=60
    )
    nvml = Nvml.load(lambda _: ctypes.CDLL(str(library)))
    index = nvml.find({})
    gpu = nvml.read(index, own_pid=1001, unix_ns=5_000_000_001_000_000_000)
    assert (gpu.name, gpu.clock_mhz, gpu.max_clock_mhz) == ("NVIDIA Made-up", 1410, None)
    assert (gpu.throttle_reasons, gpu.power_capped) == (("heat",), True)
    assert (gpu.available_memory_bytes, gpu.busy_share) == (1 << 33, 0.4)
    assert gpu.others is not None
    assert gpu.others[:3] == (
        GpuProcess(1000, None, 0.0),
        GpuProcess(1002, 2 << 32, 0.25),
        GpuProcess(1003, 3 << 32, 0.0),
    )
    assert len(gpu.others) == 99


def test_the_gpu_of_this_machine() -> None:
    try:
        nvml = Nvml.load()
        index = nvml.find(os.environ)
    except RuntimeUnavailableError as error:
        pytest.skip(f"no NVIDIA GPU can be asked here: {error}")
    gpu = nvml.read(index, None, time.time_ns())
    assert gpu.name
    assert gpu.clock_mhz
    assert gpu.available_memory_bytes
