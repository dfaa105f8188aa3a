from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from latlas_agent.advice import Advice, core_advice
from latlas_agent.android import AppUse, Battery, Phone, Thermal
from latlas_agent.phone_advice import phone_advice

CPU = "sys/devices/system/cpu"
PLUGGED_IN = Battery(0.8, 30.0, powered=True, charging=False)
COOL = Thermal(0, 0, 40.0, 30.0)


def phone_root(root: Path, allowed_khz: int = 2_800_000) -> Path:
    """A phone with a small core 0 and a big core 7, which may reach `allowed_khz`."""
    for core, possible_khz in ((0, 1_800_000), (7, 2_800_000)):
        folder = root / f"{CPU}/cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "cpuinfo_max_freq").write_text(str(possible_khz))
        (folder / "scaling_max_freq").write_text(str(min(possible_khz, allowed_khz)))
        (folder / "scaling_cur_freq").write_text("1000000")
        (folder / "scaling_governor").write_text("sched_pixel")
    return root


def advise(root: Path, phone: Phone, apps: Sequence[AppUse] = ()) -> list[Advice]:
    return phone_advice(phone_root(root), [0, 7], phone, apps)


def test_a_phone_that_is_plugged_in_and_cool_needs_no_advice(tmp_path: Path) -> None:
    assert advise(tmp_path, Phone(COOL, PLUGGED_IN, False)) == []


def test_a_phone_that_may_not_be_asked_gets_no_advice(tmp_path: Path) -> None:
    assert phone_advice(tmp_path, [0], Phone(), []) == []


@pytest.mark.parametrize(
    ("phone", "about", "says"),
    [
        (
            Phone(COOL, PLUGGED_IN, True),
            "battery saver",
            "adb shell settings put global low_power 0",
        ),
        (
            Phone(COOL, Battery(0.61, 30.0, False, False), False),
            "power",
            "runs on its battery (61 %), and saves power as it sinks: plug it in",
        ),
        (
            Phone(COOL, Battery(0.61, 41.2, True, True), False),
            "charging",
            "charging heats the battery to 41 °C, and the chip with it: let it charge to the end",
        ),
        (
            Phone(Thermal(2, 0, 78.2, 43.9), PLUGGED_IN, False),
            "throttling",
            "holds its clock back at 78 °C (thermal status moderate): take it out of its case",
        ),
        (Phone(Thermal(None, 1), Battery(), None), "throttling", "(thermal status light)"),
        (Phone(Thermal(status=99)), "throttling", "(thermal status shutdown)"),
    ],
)
def test_what_disturbs_a_phone_is_named_with_the_way_out(
    tmp_path: Path, phone: Phone, about: str, says: str
) -> None:
    [advice] = advise(tmp_path, phone)
    assert advice.about == about
    assert says in advice.text
    assert "\n" not in advice.text


def test_a_core_that_the_system_limits_is_named(tmp_path: Path) -> None:
    root = phone_root(tmp_path, allowed_khz=1_500_000)
    [advice] = phone_advice(root, [0, 7], Phone(), [])
    assert advice.about == "clock"
    assert "limits core 7 to 1500 of 2800 MHz, and 1 more: let the phone cool" in advice.text
    assert advice.text.endswith("stays all the same is its maker's, and part of the phone")


def test_busy_apps_are_named(tmp_path: Path) -> None:
    apps = [AppUse("com.example.feed", 9120, 0.38), AppUse("small", 1, 0.05)]
    [advice] = advise(tmp_path, Phone(), apps)
    assert advice.about == "load"
    assert "0.4 cores busy in the last minutes (com.example.feed (pid 9120): 0.4 cores):" in (
        advice.text
    )
    assert phone_advice(tmp_path, [0], Phone(), apps[1:]) == []


def test_big_cores_are_to_be_pinned_where_a_target_uses_unlike_ones(tmp_path: Path) -> None:
    root = phone_root(tmp_path)
    found = core_advice(root, [0, 7], on_phone=True)
    assert [advice.about for advice in found] == ["governor", "unlike cores"]
    assert found[1].text == (
        "at most 1800 MHz on core 0, 2800 MHz on core 7, and a figure is of whichever a thread "
        "happens to run on: add a target with --cores 7"
    )
    assert [advice.about for advice in core_advice(root, [7], on_phone=True)] == ["governor"]


def test_nobody_sets_a_governor_on_a_phone(tmp_path: Path) -> None:
    [advice] = core_advice(phone_root(tmp_path), [7], on_phone=True)
    assert "sched_pixel, which moves the clock: ask for more --rounds" in advice.text
