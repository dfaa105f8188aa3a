"""Advice about machines whose kernel's files were recorded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from latlas_agent.advice import Advice, busiest, core_advice, list_processes, machine_advice
from latlas_agent.conditions import take_snapshot

CPU = "sys/devices/system/cpu"
STEADY = {
    "proc/stat": "cpu  0 0 0 0 0 0 0 0\ncpu0 0\ncpu1 0\ncpu2 0\ncpu3 0\n",
    "proc/meminfo": "MemTotal: 8000000 kB\nMemAvailable: 7000000 kB\nSwapTotal: 0 kB\n",
    "proc/cpuinfo": "processor : 0\nflags : fpu sse2\n",
    f"{CPU}/cpu0/cpufreq/scaling_governor": "performance\n",
    f"{CPU}/cpu0/cpufreq/scaling_cur_freq": "2400000\n",
    f"{CPU}/cpu0/topology/thread_siblings_list": "0\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "0\n",
}


def plant(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def machine(root: Path, change: Mapping[str, str], culprits: tuple[str, ...] = ()) -> list[Advice]:
    """Advice on a machine that is steady but for `change`, looked at for a second."""
    before = take_snapshot(plant(root, STEADY), [0], 0, 0)
    after = take_snapshot(plant(root, change), [0], 0, 1_000_000_000)
    return machine_advice(root, before, after, culprits)


def cores(root: Path, change: Mapping[str, str], numbers: tuple[int, ...] = (0,)) -> list[Advice]:
    return core_advice(plant(root, {**STEADY, **change}), numbers)


def test_a_steady_board_needs_no_advice(tmp_path: Path) -> None:
    assert machine(tmp_path, {}) == []
    assert cores(tmp_path, {}) == []


def test_a_machine_that_tells_nothing_gets_advice_on_its_clock_alone(tmp_path: Path) -> None:
    snapshot = take_snapshot(tmp_path, [0], 0, 0)
    assert machine_advice(tmp_path, snapshot, snapshot, ()) == []
    assert [advice.about for advice in core_advice(tmp_path, [0])] == ["clock"]


@pytest.mark.parametrize(
    ("change", "about", "says"),
    [
        (
            {"proc/stat": "cpu  100 0 0 300 0 0 0 0\ncpu0 0\ncpu1 0\ncpu2 0\ncpu3 0\n"},
            "load",
            "others keep 1.0 cores busy (stress (pid 17): 0.9 cores): end them",
        ),
        (
            {
                "sys/devices/platform/soc/soc:firmware/get_throttled": "4",
                "sys/class/thermal/thermal_zone0/temp": "84600",
            },
            "throttling",
            "holds its clock back at 85 °C: give it a heat sink",
        ),
        (
            {"sys/devices/platform/soc/soc:firmware/get_throttled": "1"},
            "power supply",
            "the voltage is too low",
        ),
        (
            {
                "proc/meminfo": (
                    "MemTotal: 8000000 kB\nMemAvailable: 102400 kB\n"
                    "SwapTotal: 0 kB\nSwapFree: 0 kB\n"
                )
            },
            "memory",
            "only 100 MiB of 7812 MiB are left",
        ),
        (
            {
                "proc/meminfo": (
                    "MemTotal: 8000000 kB\nMemAvailable: 7000000 kB\n"
                    "SwapTotal: 1024000 kB\nSwapFree: 921600 kB\n"
                )
            },
            "swap",
            "100 MiB lie in swap",
        ),
        (
            {"sys/firmware/acpi/platform_profile": "low-power\n"},
            "power mode",
            "is low-power: echo performance | sudo tee /sys/firmware/acpi/platform_profile",
        ),
        (
            {
                "sys/class/power_supply/AC/type": "Mains\n",
                "sys/class/power_supply/AC/online": "0\n",
                "sys/class/power_supply/BAT0/type": "Battery\n",
            },
            "power",
            "runs on its battery: plug it in",
        ),
        (
            {"proc/cpuinfo": "processor : 0\nflags : fpu hypervisor sse2\n"},
            "virtual machine",
            "out of sight",
        ),
    ],
)
def test_what_disturbs_the_machine_is_named_with_the_way_out(
    tmp_path: Path, change: Mapping[str, str], about: str, says: str
) -> None:
    [advice] = machine(tmp_path, change, culprits=("stress (pid 17): 0.9 cores",))
    assert advice.about == about
    assert says in advice.text
    assert "\n" not in advice.text


def test_a_campaign_at_work_is_not_to_be_ended(tmp_path: Path) -> None:
    busy = {"proc/stat": "cpu  100 0 0 300 0 0 0 0\ncpu0 0\ncpu1 0\ncpu2 0\ncpu3 0\n"}
    culprit = "python -m latlas_agent.worker (pid 17): 1.0 cores"
    [advice] = machine(tmp_path, busy, culprits=(culprit,))
    assert advice.text.endswith("a campaign is at work, look again when it has ended")


def test_memory_pressure_is_told_by_how_long_processes_stood_still(tmp_path: Path) -> None:
    pressure = "proc/pressure/memory"
    before = take_snapshot(plant(tmp_path, {**STEADY, pressure: "some total=0\n"}), [0], 0, 0)
    root = plant(tmp_path, {pressure: "some avg10=30.00 total=300000\n"})
    [advice] = machine_advice(root, before, take_snapshot(root, [0], 0, 1_000_000_000), ())
    assert advice.about == "memory"
    assert "30% of the time" in advice.text


def test_being_held_back_since_it_booted_is_history_and_told_as_such(tmp_path: Path) -> None:
    flags = {"sys/devices/platform/soc/soc:firmware/get_throttled": "50000"}
    before = take_snapshot(plant(tmp_path, {**STEADY, **flags}), [0], 0, 0)
    after = take_snapshot(tmp_path, [0], 0, 1_000_000_000)
    [advice] = machine_advice(tmp_path, before, after, ())
    assert "since it booted" in advice.text


@pytest.mark.parametrize(
    ("change", "numbers", "about", "says"),
    [
        (
            {f"{CPU}/cpu0/cpufreq/scaling_governor": "ondemand\n"},
            (0,),
            "governor",
            "the governor of core 0 is ondemand, which moves the clock: echo performance | sudo "
            "tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        ),
        (
            {f"{CPU}/cpu1/cpufreq/energy_performance_preference": "balance_power\n"},
            (0, 1),
            "power preference",
            "of cores 0, 1 is balance_power",
        ),
        (
            {f"{CPU}/cpu0/topology/thread_siblings_list": "0,4\n"},
            (0,),
            "hardware threads",
            "core 0 with core 4",
        ),
        (
            {f"{CPU}/cpu0/topology/thread_siblings_list": "0-1\n"},
            (0,),
            "hardware threads",
            "core 0 with core 1",
        ),
    ],
)
def test_what_disturbs_the_cores_of_a_target_is_named_with_the_way_out(
    tmp_path: Path, change: Mapping[str, str], numbers: tuple[int, ...], about: str, says: str
) -> None:
    [advice] = cores(tmp_path, change, numbers)
    assert advice.about == about
    assert says in advice.text


def test_only_the_cores_that_are_asked_about_count(tmp_path: Path) -> None:
    other_core = {f"{CPU}/cpu1/cpufreq/scaling_governor": "powersave\n"}
    assert cores(tmp_path, other_core) == []


def test_the_busiest_processes_are_named_by_their_command(tmp_path: Path) -> None:
    tail = "1 1 0 -1 0 0 0 0 0"
    plant(
        tmp_path,
        {
            "proc/17/stat": f"17 (python) R 1 {tail} 100 20 0 0\n",
            "proc/17/cmdline": "/opt/bin/python\0-m\0work\0",
            "proc/18/stat": f"18 (odd ) name) S 1 {tail} 5 5 0 0\n",
            "proc/19/stat": f"19 (kworker/0:1) S 1 {tail} 0 0 0 0\n",
            "proc/20/stat": "broken\n",
        },
    )
    before = list_processes(tmp_path)
    assert sorted(before) == [17, 18, 19]
    assert before[18].name == "odd ) name"
    plant(
        tmp_path,
        {
            "proc/17/stat": f"17 (python) R 1 {tail} 180 30 0 0\n",
            "proc/18/stat": f"18 (odd ) name) S 1 {tail} 20 10 0 0\n",
            "proc/19/stat": f"19 (kworker/0:1) S 1 {tail} 1 1 0 0\n",
        },
    )
    assert busiest(tmp_path, before, list_processes(tmp_path), elapsed_ticks=100) == [
        "python -m work (pid 17): 0.9 cores",
        "odd ) name (pid 18): 0.2 cores",
    ]
