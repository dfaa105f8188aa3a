"""What a visit's conditions are made of where a GPU or a phone has something to tell."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from latlas_agent.android import Battery, Phone, Thermal
from latlas_agent.conditions import Snapshot, conditions_between, take_snapshot
from latlas_agent.gpu import Gpu, GpuProcess
from latlas_agent.nvml import Nvml
from latlas_agent.watch import Watch, open_gpu, open_watch
from latlas_latency.measurement import Conditions
from latlas_ops.errors import RuntimeUnavailableError

BUSY_GPU = Gpu(
    clock_mhz=1095,
    max_clock_mhz=1410,
    temperature_celsius=61,
    throttle_reasons=(),
    others=(GpuProcess(17, 2 << 30, 0.35),),
    available_memory_bytes=30 << 30,
    persistence=False,
    power_limit_watts=250,
)
COOL_PHONE = Phone(Thermal(0, 0, 51.0, 33.0), Battery(0.6, 30.0, False, False), True)
CPUFREQ = "sys/devices/system/cpu/cpu0/cpufreq"


def conditions(root: Path, before: Snapshot | None = None, **parts: Gpu | Phone) -> Conditions:
    """Of a visit on a machine that tells nothing but these parts."""
    empty = take_snapshot(root, [0], 0, 0)
    after = dataclasses.replace(empty, taken_ns=10, **parts)  # type: ignore[arg-type]
    return conditions_between(before or empty, after)


def test_a_visit_on_a_gpu_carries_the_state_of_the_gpu(tmp_path: Path) -> None:
    assert conditions(tmp_path, gpu=BUSY_GPU) == Conditions(
        temperature_celsius=61,
        throttled=False,
        power_mode="GPU 250 W, persistence off",
        max_clock_mhz=1410,
        gpu_clock_mhz=1095,
        other_gpu_share=0.35,
        other_gpu_memory_bytes=2 << 30,
        available_gpu_memory_bytes=30 << 30,
    )


def test_the_hottest_of_board_and_gpu_counts(tmp_path: Path) -> None:
    (tmp_path / "sys/class/thermal/thermal_zone0").mkdir(parents=True)
    zone = tmp_path / "sys/class/thermal/thermal_zone0/temp"
    for millidegrees, celsius in ((70_000, 70.0), (40_000, 61.0)):
        zone.write_text(str(millidegrees))
        assert conditions(tmp_path, gpu=BUSY_GPU).temperature_celsius == celsius


def test_a_gpu_that_held_back_at_either_end_throttled_the_visit(tmp_path: Path) -> None:
    hot = dataclasses.replace(BUSY_GPU, throttle_reasons=("heat",))
    before = dataclasses.replace(take_snapshot(tmp_path, [0], 0, 0), gpu=hot)
    assert conditions(tmp_path, gpu=hot).throttled is True
    assert conditions(tmp_path, before, gpu=BUSY_GPU).throttled is True


def test_a_visit_on_a_phone_carries_what_android_says(tmp_path: Path) -> None:
    assert conditions(tmp_path, phone=COOL_PHONE) == Conditions(
        temperature_celsius=51.0, throttled=False, power_mode="on battery, battery saver"
    )
    hot = dataclasses.replace(COOL_PHONE, thermal=Thermal(status=1))
    assert conditions(tmp_path, phone=hot).throttled is True
    assert conditions(tmp_path, phone=Phone()) == Conditions()


def test_a_gpu_at_its_power_limit_does_not_throttle_the_visit(tmp_path: Path) -> None:
    loaded = dataclasses.replace(BUSY_GPU, power_capped=True)
    assert conditions(tmp_path, gpu=loaded).throttled is False


def cap(root: Path, mhz: int) -> None:
    """Lets core 0, which can do 2800 MHz, take `mhz` at most."""
    (root / CPUFREQ).mkdir(parents=True, exist_ok=True)
    (root / CPUFREQ / "scaling_max_freq").write_text(str(1000 * mhz))
    (root / CPUFREQ / "cpuinfo_max_freq").write_text("2800000")


def throttled(watch: Watch) -> bool | None:
    return conditions_between(watch.before(), watch.after()).throttled


def test_a_phones_clock_capped_for_good_is_not_throttling_and_a_lower_cap_is(
    tmp_path: Path,
) -> None:
    cap(tmp_path, 2400)
    watch = Watch(tmp_path, [0], read_phone=lambda: COOL_PHONE)
    assert throttled(watch) is False
    cap(tmp_path, 1800)
    assert throttled(watch) is True
    cap(tmp_path, 2400)
    assert throttled(watch) is False


def test_a_phone_that_was_hot_when_its_worker_started_is_seen_to_throttle_after_it_cooled(
    tmp_path: Path,
) -> None:
    cap(tmp_path, 1800)
    watch = Watch(tmp_path, [0], read_phone=Phone)
    cap(tmp_path, 2800)
    assert throttled(watch) is False
    cap(tmp_path, 1800)
    assert throttled(watch) is True


def test_elsewhere_than_on_a_phone_a_capped_clock_is_a_choice(tmp_path: Path) -> None:
    cap(tmp_path, 2800)
    watch = Watch(tmp_path, [0])
    cap(tmp_path, 1800)
    assert throttled(watch) is None
    assert conditions(tmp_path).max_clock_mhz == 2800.0


def test_a_gpu_is_read_at_both_ends_of_a_visit(tmp_path: Path) -> None:
    clocks: Iterator[Gpu] = iter([Gpu(clock_mhz=210), Gpu(clock_mhz=1410)])
    watch = Watch(tmp_path, [0], lambda: next(clocks), lambda: COOL_PHONE)
    before, after = watch.before(), watch.after()
    assert (before.gpu, after.gpu) == (Gpu(clock_mhz=210), Gpu(clock_mhz=1410))
    assert (before.phone, after.phone) == (COOL_PHONE, COOL_PHONE)
    assert conditions_between(before, after).gpu_clock_mhz == 1410


def test_slow_questions_are_asked_outside_of_what_the_snapshots_enclose(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []

    def take_time() -> None:
        begin_ns = time.perf_counter_ns()
        time.sleep(0.002)
        asked.append((begin_ns, time.perf_counter_ns()))

    def read_phone() -> Phone:
        take_time()
        return Phone()

    def read_gpu() -> Gpu:
        take_time()
        return Gpu()

    watch = Watch(tmp_path, [0], read_gpu, read_phone)
    before = watch.before()
    n_asked_before = len(asked)
    after = watch.after()
    assert n_asked_before == 2
    assert all(end_ns <= before.taken_ns for _, end_ns in asked[:2])
    assert all(begin_ns >= after.taken_ns for begin_ns, _ in asked[2:])


def test_a_target_on_the_processor_asks_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "sys/class/devfreq/17000000.gpu").mkdir(parents=True)
    assert open_watch(tmp_path, [0], "CPUExecutionProvider", {}).before().gpu is None
    assert open_watch(tmp_path, [0], "CUDAExecutionProvider", {}).before().gpu == Gpu()


def test_a_gpu_that_cannot_be_asked_leaves_the_conditions_without_it(tmp_path: Path) -> None:
    try:
        Nvml.load()
    except RuntimeUnavailableError:
        assert open_watch(tmp_path, [0], "CUDAExecutionProvider", {}).before().gpu is None
    else:
        pytest.skip("this machine has an NVIDIA GPU that can be asked")


def test_why_a_gpu_cannot_be_asked_is_said(tmp_path: Path) -> None:
    def load() -> Nvml:
        raise RuntimeUnavailableError("driver and library have different versions")

    with pytest.raises(RuntimeUnavailableError, match="different versions"):
        open_gpu(tmp_path, {}, own_pid=1, load_nvml=load)
