"""What phones print, in the formats of several releases; shortened."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from latlas_agent.android import (
    AppUse,
    Battery,
    Phone,
    PhoneReader,
    Shell,
    Thermal,
    describe_phone,
    find_shell,
    parse_app_use,
    parse_battery,
    parse_switch,
    parse_thermal,
    read_app_use,
    read_phone,
    read_properties,
    run_here,
)

ANDROID_10 = """\
IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 1
\tkilled: false
\tbroadcasts count: -1
ThermalStatusListeners:
\tcallbacks: 2
\tkilled: false
\tbroadcasts count: -1
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=39.0, mType=3, mName=quiet-therm-adc, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=51.3, mType=0, mName=cpu-1-3, mStatus=0}
\tTemperature{mValue=48.0, mType=1, mName=GPU0, mStatus=0}
\tTemperature{mValue=33.5, mType=3, mName=quiet-therm-adc, mStatus=0}
\tTemperature{mValue=4.019, mType=6, mName=vbat, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=0, mType=2, mName=thermal-cpufreq-0}
"""
ANDROID_12_SAMSUNG = """\
IsStatusOverride: false
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=0.0, mType=2, mName=SUBBAT, mStatus=0}
\tTemperature{mValue=25.6, mType=0, mName=AP, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=27.1, mType=0, mName=AP, mStatus=0}
\tTemperature{mValue=23.8, mType=2, mName=BAT, mStatus=0}
\tTemperature{mValue=24.7, mType=3, mName=LRB, mStatus=0}
Current cooling devices from HAL:
Temperature static thresholds from HAL:
"""
ANDROID_15_PIXEL = """\
IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 5
\tkilled: false
\tbroadcasts count: -1
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=91.0, mType=0, mName=BIG, mStatus=0}
\tTemperature{mValue=NaN, mType=-1, mName=VIRTUAL-SKIN-HINT, mStatus=0}
HAL Ready: true
HAL connection:
\tThermal HAL AIDL 2  connected: yes
Current temperatures from HAL:
\tTemperature{mValue=78.2, mType=0, mName=BIG, mStatus=3}
\tTemperature{mValue=66.0, mType=10, mName=TPU, mStatus=0}
\tTemperature{mValue=43.9, mType=3, mName=VIRTUAL-SKIN, mStatus=2}
\tTemperature{mValue=-5700.0, mType=-1, mName=charger, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=3, mType=2, mName=thermal-cpufreq-2}
Temperature static thresholds from HAL:
\tTemperatureThreshold{mType=3, mName=VIRTUAL-SKIN, mHotThrottlingThresholds=[NaN, 39.0, 43.0]}
Temperature headroom thresholds:
\t0.79, 0.93, 1.0
"""
WITHOUT_HAL = """\
IsStatusOverride: false
Thermal Status: 1
Cached temperatures:
\tTemperature{mValue=58.4, mType=13, mName=SOC, mStatus=1}
HAL Ready: false
"""
BATTERY_CHARGING = """\
Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Dock powered: false
  Max charging current: 500000
  Charge counter: 3270000
  status: 2
  health: 2
  present: true
  level: 61
  scale: 100
  voltage: 4156
  temperature: 412
  technology: Li-ion
[EventLogBuffer]
08-11 18:34:14.721  Sending ACTION_BATTERY_CHANGED: level:72, temperature:345
"""
BATTERY_ALONE = """\
Current Battery Service state:
  (UPDATES STOPPED -- use 'reset' to restart)
  AC powered: false
  USB powered: false
  Wireless powered: false
  status: 3
  level: 85
  scale: 200
  temperature: 297
"""
CPU_INFO = """\
Load: 4.88 / 4.96 / 4.93
CPU usage from 182741ms to 9280ms ago (2026-03-24 10:11:22.123 to 2026-03-24 10:14:15.584):
  38% 9120/com.example.feed: 29% user + 9% kernel / faults: 18451 minor 8 major
  112% 1423/system_server: 70% user + 42% kernel / faults: 8451 minor 1 major
 +0% 9999/kworker/u16:3-events_unbound: 0% user + 0% kernel
  2.4% 2210/com.android.systemui: 1.8% user + 0.6% kernel
19% TOTAL: 12% user + 6% kernel + 0.2% iowait + 0.3% irq + 0.1% softirq
"""
PROPERTIES = """\
[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 8]
[ro.soc.model]: [Tensor G3]
[ro.odd]: []
"""
DENIED = "Permission Denial: can't dump thermalservice from from pid=5147, uid=10349\n"


def shell(answers: Mapping[str, str]) -> Shell:
    """A phone that answers these commands and denies all others."""
    return lambda command: answers.get(command, DENIED)


PIXEL = {
    "dumpsys thermalservice": ANDROID_15_PIXEL,
    "dumpsys battery": BATTERY_CHARGING,
    "settings get global low_power": "1\n",
    "dumpsys cpuinfo": CPU_INFO,
    "getprop": PROPERTIES,
}


@pytest.mark.parametrize(
    ("text", "thermal"),
    [
        (ANDROID_10, Thermal(0, 0, 51.3, 33.5)),
        (ANDROID_12_SAMSUNG, Thermal(0, 0, 27.1, 24.7)),
        (ANDROID_15_PIXEL, Thermal(2, 3, 78.2, 43.9)),
        (WITHOUT_HAL, Thermal(1, 1, 58.4, None)),
        ("Can't find service: thermalservice\n", Thermal()),
        ("", Thermal()),
        ("Temperature{}\nTemperature{mValue}\nThermal Status: ?\n", Thermal()),
    ],
)
def test_heat_is_told_by_the_current_sensors_of_the_hardware(text: str, thermal: Thermal) -> None:
    assert parse_thermal(text) == thermal


@pytest.mark.parametrize(
    ("text", "battery"),
    [
        (BATTERY_CHARGING, Battery(0.61, 41.2, powered=True, charging=True)),
        (BATTERY_ALONE, Battery(0.425, 29.7, powered=False, charging=False)),
        ("Current Battery Service state:\n  level: full\n  scale: 0\n", Battery()),
        ("", Battery()),
    ],
)
def test_the_battery_is_told_by_the_first_of_each_line(text: str, battery: Battery) -> None:
    assert parse_battery(text) == battery


@pytest.mark.parametrize(
    ("text", "on"), [("1\n", True), ("0\n", False), ("null\n", False), ("", None), ("Error", None)]
)
def test_a_setting_that_was_never_made_is_off(text: str, on: bool | None) -> None:
    assert parse_switch(text) is on


def test_processes_are_listed_by_the_cores_they_filled() -> None:
    assert parse_app_use(CPU_INFO) == [
        AppUse("system_server", 1423, 1.12),
        AppUse("com.example.feed", 9120, 0.38),
        AppUse("com.android.systemui", 2210, 0.024),
        AppUse("kworker/u16:3-events_unbound", 9999, 0.0),
    ]


def test_a_phone_says_all_it_knows() -> None:
    phone = read_phone(shell(PIXEL))
    assert phone == Phone(Thermal(2, 3, 78.2, 43.9), Battery(0.61, 41.2, True, True), True)
    assert phone.throttled is True
    assert phone.temperature_celsius == 78.2
    assert phone.power_mode == "plugged in, battery saver"


def test_what_an_app_may_not_ask_is_unknown() -> None:
    phone = read_phone(shell({}))
    assert phone == Phone()
    assert (phone.throttled, phone.temperature_celsius, phone.power_mode) == (None, None, None)
    assert read_app_use(shell({})) == []
    some = read_phone(shell({"settings get global low_power": "0\n"}))
    assert some == Phone(battery_saver=False)


@pytest.mark.parametrize("seed", range(20))
def test_no_text_is_too_strange(seed: int) -> None:
    rng = random.Random(seed)
    texts = [ANDROID_15_PIXEL, BATTERY_CHARGING, CPU_INFO, PROPERTIES, "1"]

    def garbled(command: str) -> str:
        letters = list(rng.choice(texts))
        for _ in range(40):
            letters[rng.randrange(len(letters))] = rng.choice("{}=,:%\n\t09.-eNa/\0")
        return "".join(letters)

    read_phone(garbled)
    read_app_use(garbled)
    describe_phone(read_properties(garbled))


def test_a_phone_is_called_after_its_maker_model_and_chip() -> None:
    assert describe_phone(read_properties(shell(PIXEL))) == (
        "Google Pixel 8 (Tensor G3)",
        "Android 14",
    )
    named_twice = {"ro.product.manufacturer": "vivo", "ro.product.model": "vivo X90"}
    assert describe_phone(named_twice) == ("vivo X90", "")
    assert describe_phone({}) == ("", "")


def test_a_phone_is_asked_again_only_when_the_answer_is_old() -> None:
    asked = []

    def ask(command: str) -> str:
        asked.append(command)
        return PIXEL[command]

    moments = iter([*[0] * 8, 100, *[101] * 8])
    read = PhoneReader(ask, max_age_ns=100, clock_ns=lambda: next(moments))
    assert read() == read() == read_phone(shell(PIXEL))
    assert len(asked) == 3
    read()
    assert len(asked) == 6


class SlowPhone:
    """A phone whose services take their time, on a clock of its own.

    Attributes:
        now_s: what the clock says.
        asked: commands that it was asked.
        slow: commands that take `takes_s`, and then say nothing as if they had been given up.
    """

    def __init__(self, takes_s: float, slow: tuple[str, ...]) -> None:
        self.now_s = 0.0
        self.asked: list[str] = []
        self.slow = slow
        self._takes_s = takes_s

    def shell(self, command: str) -> str:
        self.asked.append(command)
        if command in self.slow:
            self.now_s += self._takes_s
            return ""
        return PIXEL[command]

    def reader(self) -> PhoneReader:
        return PhoneReader(self.shell, clock_ns=lambda: int(self.now_s * 1e9))


def test_an_answer_grows_old_from_when_it_came() -> None:
    phone = SlowPhone(1.9, tuple(PIXEL))
    read = phone.reader()
    read()
    assert phone.now_s == pytest.approx(3 * 1.9)
    read()
    assert len(phone.asked) == 3


def test_a_service_that_hangs_is_left_alone_for_a_while() -> None:
    phone = SlowPhone(5.0, ("dumpsys battery",))
    read = phone.reader()
    partly = Phone(Thermal(2, 3, 78.2, 43.9))
    assert read() == partly
    assert phone.asked == ["dumpsys thermalservice", "dumpsys battery"]
    for wait_s, known in ((4, partly), (2, Phone()), (290, Phone())):
        phone.now_s += wait_s
        assert read() == known
    assert len(phone.asked) == 2
    phone.slow = ()
    phone.now_s += 10
    assert read() == read_phone(shell(PIXEL))
    phone.now_s += 6
    read()
    assert len(phone.asked) == 2 + 3 + 3


def test_only_a_phone_has_a_shell_that_is_asked(tmp_path: Path) -> None:
    assert find_shell(tmp_path) is None
    (tmp_path / "system").mkdir()
    (tmp_path / "system/build.prop").touch()
    assert find_shell(tmp_path) is run_here


def test_a_command_that_is_not_there_prints_nothing() -> None:
    assert run_here("latlas-no-such-command at all") == ""
    assert run_here(f"{sys.executable} --version").startswith("Python 3")
