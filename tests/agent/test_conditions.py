from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from latlas_agent.conditions import Snapshot, conditions_between, take_snapshot
from latlas_latency.measurement import Conditions

RASPBERRY_PI = {
    "proc/loadavg": "0.52 0.58 0.59 1/467 12345\n",
    "proc/meminfo": "MemTotal: 8245584 kB\nMemAvailable: 7100400 kB\n",
    "proc/stat": "cpu  1000 0 500 8000 100 0 50 0 0 0\ncpu0 1 1 1 1 1 1 1 1 1 1\ncpu3 1 1\n",
    "proc/pressure/memory": (
        "some avg10=0.00 avg60=0.12 avg300=0.05 total=81234\n"
        "full avg10=0.00 avg60=0.00 avg300=0.00 total=99\n"
    ),
    "proc/self/task/71/schedstat": "5000000 1000000 12\n",
    "proc/self/task/72/schedstat": "1000000 0 3\n",
    "sys/class/thermal/thermal_zone0/temp": "61850\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "3\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1500000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu3/cpufreq/scaling_cur_freq": "2400000\n",
    "sys/devices/system/cpu/cpu3/cpufreq/scaling_governor": "performance\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "0\n",
}
LAPTOP = {
    "proc/cpuinfo": (
        "processor\t: 0\ncpu MHz\t\t: 1800.000\n\nprocessor\t: 1\ncpu MHz\t\t: 4200.000\n"
    ),
    "sys/class/thermal/thermal_zone0/temp": "27800\n",
    "sys/class/thermal/thermal_zone1/temp": "71000\n",
    "sys/class/thermal/thermal_zone2/temp": "-274000\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "4\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "10\n",
}


def plant(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def around(
    root: Path, before: Mapping[str, str], after: Mapping[str, str], own_cpu_ns: int = 0
) -> Conditions:
    """Conditions of a visit of 10 ms in which the kernel's files changed from one to the other."""
    first = take_snapshot(plant(root, before), [0], 0, 0)
    second = take_snapshot(plant(root, after), [0], own_cpu_ns, 10_000_000)
    return conditions_between(first, second, ticks_per_s=100)


def test_a_board_says_all_it_knows(tmp_path: Path) -> None:
    snapshot = take_snapshot(plant(tmp_path, RASPBERRY_PI), [3], own_cpu_ns=5, monotonic_ns=7)
    assert snapshot == Snapshot(
        clock_mhz=2400.0,
        temperature_celsius=61.85,
        throttle_events=None,
        throttle_flags=0,
        cooling=None,
        load_1min=0.52,
        busy_ticks=1550,
        total_ticks=9650,
        own_cpu_ns=5,
        available_memory_bytes=7100400 * 1024,
        governor="performance",
        taken_ns=7,
        waited_ns={"71": 1_000_000, "72": 0},
        memory_stall_us=81234,
        power_mode=None,
        online_cores=2,
    )


def test_a_board_that_says_nothing_has_no_conditions(tmp_path: Path) -> None:
    before, after = (take_snapshot(tmp_path, [0], 0, ns) for ns in (0, 10))
    assert conditions_between(before, after) == Conditions()


def test_the_clock_is_that_of_the_cores_in_use(tmp_path: Path) -> None:
    root = plant(tmp_path, LAPTOP)
    assert take_snapshot(root, [1], 0, 0).clock_mhz == 4200.0
    assert take_snapshot(root, [0, 1], 0, 0).clock_mhz == 3000.0


def test_the_hottest_plausible_sensor_counts(tmp_path: Path) -> None:
    assert take_snapshot(plant(tmp_path, LAPTOP), [0], 0, 0).temperature_celsius == 71.0


@pytest.mark.parametrize(
    ("files", "change", "throttled"),
    [
        (RASPBERRY_PI, {}, False),
        (RASPBERRY_PI, {"sys/devices/platform/soc/soc:firmware/get_throttled": "4"}, True),
        (RASPBERRY_PI, {"sys/devices/platform/soc/soc:firmware/get_throttled": "60000"}, True),
        (RASPBERRY_PI, {"sys/devices/platform/soc/soc:firmware/get_throttled": "1"}, False),
        (LAPTOP, {}, False),
        (
            LAPTOP,
            {"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "5"},
            True,
        ),
        (
            LAPTOP,
            {
                "sys/class/thermal/cooling_device9/type": "Processor",
                "sys/class/thermal/cooling_device9/cur_state": "2",
            },
            True,
        ),
    ],
)
def test_throttling_during_a_visit_is_seen(
    tmp_path: Path, files: Mapping[str, str], change: Mapping[str, str], throttled: bool
) -> None:
    assert around(tmp_path, files, change).throttled is throttled


def test_throttling_before_the_visit_does_not_count(tmp_path: Path) -> None:
    flags = {"sys/devices/platform/soc/soc:firmware/get_throttled": "60000"}
    assert around(tmp_path, flags, flags).throttled is False


def test_what_others_used_is_what_was_busy_minus_the_measurement(tmp_path: Path) -> None:
    # Two cores for one second: 200 ticks, of which 150 busy; the measurement used 100 of them.
    before = {"proc/stat": "cpu  100 0 0 1000 0 0 0 0 0 0\n"}
    after = {"proc/stat": "cpu  240 0 5 1050 0 0 0 5 0 0\n"}
    conditions = around(tmp_path, before, after, own_cpu_ns=1_000_000_000)
    assert conditions.other_cpu_share == pytest.approx(0.25)


def test_a_visit_shorter_than_a_clock_tick_says_nothing_of_others(tmp_path: Path) -> None:
    assert around(tmp_path, RASPBERRY_PI, {}).other_cpu_share is None


def test_waiting_is_that_of_the_thread_that_waited_longest(tmp_path: Path) -> None:
    after = {
        "proc/self/task/71/schedstat": "9000000 1500000 15\n",
        "proc/self/task/72/schedstat": "1000000 2000000 9\n",
    }
    assert around(tmp_path, RASPBERRY_PI, after).waiting_share == pytest.approx(0.2)


def test_a_thread_that_was_born_during_the_visit_waited_since_its_birth(tmp_path: Path) -> None:
    after = {"proc/self/task/90/schedstat": "0 4000000 1\n"}
    assert around(tmp_path, RASPBERRY_PI, after).waiting_share == pytest.approx(0.4)


def test_a_visit_without_waiting_says_so(tmp_path: Path) -> None:
    conditions = around(tmp_path, RASPBERRY_PI, {})
    assert conditions.waiting_share == 0.0
    assert conditions.memory_stall_share == 0.0


def test_memory_stall_is_time_in_which_some_process_stood_still(tmp_path: Path) -> None:
    after = {"proc/pressure/memory": "some avg10=9.00 avg60=1.00 avg300=0.00 total=83734\n"}
    assert around(tmp_path, RASPBERRY_PI, after).memory_stall_share == pytest.approx(0.25)


@pytest.mark.parametrize(
    "files",
    [
        {"proc/pressure/memory": "some\n", "proc/self/task/71/schedstat": "1 2\n"},
        {"proc/pressure/memory": "full total=3\n", "proc/self/task/71/schedstat": "a b c\n"},
        {"proc/pressure/memory": "some total=x\n", "proc/self/task/71/schedstat": ""},
    ],
)
def test_what_cannot_be_read_is_unknown(tmp_path: Path, files: Mapping[str, str]) -> None:
    conditions = around(tmp_path, files, {})
    assert (conditions.waiting_share, conditions.memory_stall_share) == (None, None)


@pytest.mark.parametrize(
    ("files", "power_mode"),
    [
        ({"var/lib/nvpmodel/status": "pmode:0002\n"}, "nvpmodel-2"),
        ({"sys/firmware/acpi/platform_profile": "balanced\n"}, "balanced"),
        (
            {
                "sys/firmware/acpi/platform_profile": "performance\n",
                "sys/devices/system/cpu/cpu0/cpufreq/energy_performance_preference": "power\n",
            },
            "performance, power",
        ),
        (RASPBERRY_PI, None),
    ],
)
def test_the_power_mode_is_what_the_board_is_set_to(
    tmp_path: Path, files: Mapping[str, str], power_mode: str | None
) -> None:
    assert around(tmp_path, files, {}).power_mode == power_mode


def test_a_core_that_is_kept_busy_by_somebody_else_makes_the_measurement_wait() -> None:
    core = min(os.sched_getaffinity(0))
    neighbour = subprocess.Popen(
        [sys.executable, "-c", f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"]
    )
    measurement = (
        "import json, os, time\n"
        "from pathlib import Path\n"
        "from latlas_agent.conditions import conditions_between, take_snapshot\n"
        f"os.sched_setaffinity(0, [{core}])\n"
        "def look():\n"
        f"    return take_snapshot(Path('/'), [{core}], time.process_time_ns(), "
        "time.perf_counter_ns())\n"
        "before = look()\n"
        "while time.perf_counter_ns() < before.taken_ns + 300_000_000: pass\n"
        "print(conditions_between(before, look()).waiting_share)\n"
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", measurement],
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        )
    finally:
        neighbour.kill()
        neighbour.wait()
    if done.stdout.strip() == "None":
        pytest.skip("this kernel does not count the time that threads wait")
    assert float(done.stdout) > 0.2


def test_conditions_of_this_machine() -> None:
    before = take_snapshot(Path("/"), [0], time.process_time_ns(), time.perf_counter_ns())
    time.sleep(0.05)
    after = take_snapshot(Path("/"), [0], time.process_time_ns(), time.perf_counter_ns())
    conditions = conditions_between(before, after)
    assert conditions.other_cpu_share is not None
    assert 0 <= conditions.other_cpu_share <= 1
    assert conditions.available_memory_bytes is not None
    assert conditions.online_cores is not None
    assert conditions.online_cores >= 1
    assert conditions.load_1min == pytest.approx(os.getloadavg()[0], abs=1.0)
