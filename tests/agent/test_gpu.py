"""The integrated GPU of a Jetson, as its kernel's files tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from latlas_agent.gpu import Gpu, GpuProcess, describe, find_devfreq, read_devfreq

DEVFREQ = "sys/class/devfreq"
ORIN = {
    f"{DEVFREQ}/17000000.gpu/cur_freq": "306000000\n",
    f"{DEVFREQ}/17000000.gpu/min_freq": "306000000\n",
    f"{DEVFREQ}/17000000.gpu/max_freq": "624750000\n",
    f"{DEVFREQ}/15340000.vic/cur_freq": "115200000\n",
    "sys/devices/platform/gpu.0/load": "125\n",
    "sys/class/thermal/cooling_device3/type": "gpu-throttle-alert\n",
    "sys/class/thermal/cooling_device3/cur_state": "0\n",
    "sys/class/thermal/cooling_device0/type": "cpu-throttle-alert\n",
    "sys/class/thermal/cooling_device0/cur_state": "1\n",
    "proc/meminfo": "MemTotal: 7990000 kB\nMemAvailable: 5000000 kB\n",
}


def plant(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def jetson(root: Path, change: Mapping[str, str] | None = None) -> Gpu:
    plant(root, {**ORIN, **(change or {})})
    node = find_devfreq(root)
    assert node is not None
    return read_devfreq(root, node)


def test_a_jetson_says_all_it_knows(tmp_path: Path) -> None:
    gpu = jetson(tmp_path)
    assert gpu == Gpu(
        clock_mhz=306.0,
        max_clock_mhz=624.75,
        throttle_reasons=(),
        clock_fixed=False,
        busy_share=0.125,
        available_memory_bytes=5000000 * 1024,
    )
    assert (gpu.other_share, gpu.other_memory_bytes, gpu.power_mode) == (None, None, None)


def test_jetson_clocks_fixes_the_clock(tmp_path: Path) -> None:
    assert jetson(tmp_path, {f"{DEVFREQ}/17000000.gpu/min_freq": "624750000"}).clock_fixed is True


def test_a_gpu_that_is_held_back_for_heat_is_throttled(tmp_path: Path) -> None:
    hot = {"sys/class/thermal/cooling_device3/cur_state": "2\n"}
    assert jetson(tmp_path, hot).throttle_reasons == ("heat",)


@pytest.mark.parametrize(
    "name", ["17000000.ga10b", "17000000.gv11b", "57000000.gpu", "gpu-gpc-0", "17000000.gpu"]
)
def test_the_node_has_had_many_names(tmp_path: Path, name: str) -> None:
    plant(tmp_path, {f"{DEVFREQ}/{name}/cur_freq": "1", f"{DEVFREQ}/15340000.vic/cur_freq": "1"})
    assert find_devfreq(tmp_path) == tmp_path / DEVFREQ / name


def test_a_board_without_such_a_node_has_no_gpu_of_this_kind(tmp_path: Path) -> None:
    assert find_devfreq(tmp_path) is None
    plant(tmp_path, {f"{DEVFREQ}/15340000.vic/cur_freq": "1"})
    assert find_devfreq(tmp_path) is None


def test_a_node_that_says_nothing_leaves_all_unknown(tmp_path: Path) -> None:
    assert read_devfreq(tmp_path, tmp_path / "nothing") == Gpu()


def test_processes_are_described_by_what_is_known_of_them() -> None:
    processes = [GpuProcess(17, 1200 << 20, 0.35), GpuProcess(18, None, 0.0), GpuProcess(19)]
    assert describe(processes) == "pid 17 with 1200 MiB at 35 %, pid 18, pid 19"


@pytest.mark.parametrize(
    ("others", "share", "memory_bytes"),
    [
        (None, None, None),
        ((), 0.0, 0),
        ((GpuProcess(1),), None, None),
        ((GpuProcess(1, 5), GpuProcess(2, 6, 0.25)), 0.25, 11),
        ((GpuProcess(1, 5, 0.75), GpuProcess(2, 6, 0.5)), 1.0, 11),
    ],
)
def test_others_are_summed_as_far_as_they_are_told(
    others: tuple[GpuProcess, ...] | None, share: float | None, memory_bytes: int | None
) -> None:
    gpu = Gpu(others=others)
    assert (gpu.other_share, gpu.other_memory_bytes) == (share, memory_bytes)
