from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from latlas_agent.clocks import (
    capped_cores,
    max_clocks_mhz,
    read_clock_mhz,
    read_max_clock_mhz,
)


def phone(root: Path, allowed_khz: Mapping[int, int]) -> Path:
    """A phone with two small cores and a big one, whose clocks may reach `allowed_khz`."""
    for core, possible_khz in {0: 1_800_000, 1: 1_800_000, 7: 2_800_000}.items():
        folder = root / f"sys/devices/system/cpu/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "cpuinfo_max_freq").write_text(f"{possible_khz}\n")
        (folder / "scaling_max_freq").write_text(f"{allowed_khz.get(core, possible_khz)}\n")
        (folder / "scaling_cur_freq").write_text("1000000\n")
    return root


def test_the_highest_clock_is_the_mean_of_the_cores_in_use(tmp_path: Path) -> None:
    root = phone(tmp_path, {})
    assert read_max_clock_mhz(root, [0, 7]) == 2300.0
    assert max_clocks_mhz(root, [0, 7, 9]) == {0: 1800.0, 7: 2800.0}
    assert read_clock_mhz(root, [0, 1]) == 1000.0


def test_a_core_that_may_not_reach_its_highest_clock_is_capped(tmp_path: Path) -> None:
    root = phone(tmp_path, {7: 2_100_000})
    assert capped_cores(root, [0, 1, 7]) == {7: (2100.0, 2800.0)}
    assert capped_cores(root, [0, 1]) == {}


def test_a_clock_that_the_kernel_does_not_tell_as_a_number_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    told = {0: "1800.000", 1: "unknown", 2: "nan", 3: "2200.000"}
    lines = [f"processor\t: {core}\ncpu MHz\t\t: {clock}\n" for core, clock in told.items()]
    (tmp_path / "proc/cpuinfo").write_text("\n".join(lines))
    assert read_clock_mhz(tmp_path, [0, 1, 2, 3]) == 2000.0
    assert read_clock_mhz(tmp_path, [1, 2]) is None


def test_a_machine_without_frequencies_tells_nothing(tmp_path: Path) -> None:
    assert capped_cores(tmp_path, [0]) is None
    assert read_max_clock_mhz(tmp_path, [0]) is None
    assert read_clock_mhz(tmp_path, [0]) is None
