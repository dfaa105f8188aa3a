"""What Android tells about a phone: heat, battery, battery saver, and who is busy.

Everything is asked through a shell that is passed in: of the phone itself, or of `adb` on another
machine. An app asks in vain for much of it (`Permission Denial`), and releases differ in what they
print: what cannot be understood is None, and no text raises.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from latlas_agent.sysfs import plausible_celsius, to_float

Shell = Callable[[str], str]
"""Runs a command line and returns what it prints; empty where it cannot be run."""

THERMAL_STATUS = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
"""Names of the thermal status, by number."""

_THERMAL = "dumpsys thermalservice"
_BATTERY = "dumpsys battery"
_BATTERY_SAVER = "settings get global low_power"
_CPU_USE = "dumpsys cpuinfo"
_SIGNS = ("system/build.prop", "system/bin/app_process", "system/bin/app_process64")
_SHELL_TIMEOUT_S = 5.0
_DENIAL = re.compile(r"permission denial|can't find service|securityexception", re.I)

_STATUS = re.compile(r"^\s*Thermal Status:\s*(\d+)", re.M)
_TEMPERATURE = re.compile(r"Temperature\{([^}]*)\}")
_CHIP_TYPES = frozenset({"0", "1", "9", "10", "13"})  # CPU, GPU, NPU, TPU, SoC
_SKIN_TYPE = "3"

_POWERED = ("AC powered", "USB powered", "Wireless powered", "Dock powered")
_CHARGING = "2"
_USE = re.compile(r"^\s*\+?([\d.]+)%\s+(\d+)/(.+?):\s", re.M)

_MAX_AGE_NS = 5_000_000_000
_PATIENCE_NS = 2_000_000_000
_REST_NS = 300_000_000_000


@dataclass(frozen=True)
class Thermal:
    """What the thermal service says; None where it says nothing.

    Attributes:
        status: 0 (`none`) to 6 (`shutdown`), see `THERMAL_STATUS`; goes by the phone's skin.
        chip_status: the same of the worst sensor on the chip.
        chip_celsius: hottest sensor on the chip.
        skin_celsius: hottest sensor of the skin.
    """

    status: int | None = None
    chip_status: int | None = None
    chip_celsius: float | None = None
    skin_celsius: float | None = None


@dataclass(frozen=True)
class Battery:
    """What the battery service says; None where it says nothing.

    Attributes:
        level: charge, 0 to 1.
        celsius: its temperature.
        powered: whether the phone is plugged in.
        charging: whether the battery charges.
    """

    level: float | None = None
    celsius: float | None = None
    powered: bool | None = None
    charging: bool | None = None


@dataclass(frozen=True)
class Phone:
    """The state of a phone.

    Attributes:
        thermal: its heat.
        battery: its battery.
        battery_saver: whether the battery saver is on; None if that is not told.
    """

    thermal: Thermal = Thermal()
    battery: Battery = Battery()
    battery_saver: bool | None = None

    @property
    def throttled(self) -> bool | None:
        """Whether it holds its clock back for heat."""
        levels = [s for s in (self.thermal.status, self.thermal.chip_status) if s is not None]
        return max(levels) > 0 if levels else None

    @property
    def temperature_celsius(self) -> float | None:
        """The hottest part that is told of."""
        told = (self.thermal.chip_celsius, self.thermal.skin_celsius, self.battery.celsius)
        return max((celsius for celsius in told if celsius is not None), default=None)

    @property
    def power_mode(self) -> str | None:
        """What it runs on and is set to, as one text."""
        settings = []
        if self.battery.powered is not None:
            settings.append("plugged in" if self.battery.powered else "on battery")
        if self.battery_saver:
            settings.append("battery saver")
        return ", ".join(settings) or None


@dataclass(frozen=True)
class AppUse:
    """Processor time of one process over the last minutes; `cores` is how many it filled."""

    name: str
    pid: int
    cores: float


class PhoneReader:
    """The state of a phone, asked again when the last answer is old.

    Asking costs tens of milliseconds of the phone's own time, which no visit should bear. A service
    that hangs would cost every visit seconds: once a command took longer than 2 s, nothing is asked
    for five minutes, in which the state is unknown as soon as the last answer is old.

    Args:
        shell: runs commands on the phone.
        max_age_ns: how long an answer is good.
        clock_ns: monotonic time.
    """

    def __init__(
        self,
        shell: Shell,
        max_age_ns: int = _MAX_AGE_NS,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._shell = shell
        self._max_age_ns = max_age_ns
        self._clock_ns = clock_ns
        self._last: tuple[int, Phone] | None = None
        self._hung = False

    def __call__(self) -> Phone:
        """The state now, or a little before."""
        now_ns = self._clock_ns()
        wait_ns = _REST_NS if self._hung else self._max_age_ns
        if self._last is None or now_ns - self._last[0] > wait_ns:
            self._hung = False
            phone = read_phone(self._run)
            now_ns = self._clock_ns()
            self._last = (now_ns, phone)
        answered_ns, phone = self._last
        return phone if now_ns - answered_ns <= self._max_age_ns else Phone()

    def _run(self, command: str) -> str:
        """What a command prints; nothing after one that hung."""
        if self._hung:
            return ""
        begin_ns = self._clock_ns()
        text = self._shell(command)
        self._hung = self._clock_ns() - begin_ns > _PATIENCE_NS
        return text


def read_phone(shell: Shell) -> Phone:
    """Asks for the state of a phone."""
    return Phone(
        thermal=parse_thermal(_ask(shell, _THERMAL)),
        battery=parse_battery(_ask(shell, _BATTERY)),
        battery_saver=parse_switch(_ask(shell, _BATTERY_SAVER)),
    )


def read_app_use(shell: Shell) -> list[AppUse]:
    """The processes that used the processor in the last minutes, busiest first."""
    return parse_app_use(_ask(shell, _CPU_USE))


def read_properties(shell: Shell) -> dict[str, str]:
    """System properties, from `[ro.product.model]: [Pixel 8]`."""
    return dict(re.findall(r"^\[([^\]]+)\]: \[([^\]]*)\]", _ask(shell, "getprop"), re.M))


def describe_phone(properties: Mapping[str, str]) -> tuple[str, str]:
    """Device model and operating system, each empty if the properties do not tell.

    The chip belongs to the model: phones of one name are sold with different ones.
    """
    maker = properties.get("ro.product.manufacturer", "")
    model = properties.get("ro.product.model", "")
    chip = properties.get("ro.soc.model") or properties.get("ro.board.platform", "")
    name = model if model.lower().startswith(maker.lower()) else f"{maker} {model}".strip()
    release = properties.get("ro.build.version.release", "")
    return (f"{name} ({chip})" if name and chip else name), f"Android {release}" if release else ""


def find_shell(root: Path) -> Shell | None:
    """The shell of the phone that this runs on; None on any other machine."""
    if any(os.path.exists(root / sign) for sign in _SIGNS):
        return run_here
    return None


def run_here(command: str) -> str:
    """Runs a command of a phone on the phone itself; see `Shell`.

    Apps do not have the system's commands on their path.
    """
    path = os.pathsep.join((os.environ.get("PATH", ""), "/system/bin"))
    try:
        done = subprocess.run(
            command.split(),
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SHELL_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")


def parse_thermal(text: str) -> Thermal:
    """What `dumpsys thermalservice` says (Android 10 and later).

    Sensors are listed twice: as the hardware says now, and as cached when last something changed,
    which may be long ago and counts only where the first list is missing.
    """
    status = _STATUS.search(text)
    sections: dict[str, list[dict[str, str]]] = {}
    heading = ""
    for line in text.splitlines():
        found = _TEMPERATURE.search(line)
        if found:
            pairs = (part.partition("=")[::2] for part in found[1].split(","))
            sensor = {key.strip(): value.strip() for key, value in pairs}
            sections.setdefault(heading, []).append(sensor)
        elif line.rstrip().endswith(":"):
            heading = line.strip().lower()
    current = [found for name, found in sections.items() if name.startswith("current temp")]
    cached = [found for name, found in sections.items() if name.startswith("cached temp")]
    sensors = [sensor for found in current or cached for sensor in found]
    chip = [sensor for sensor in sensors if sensor.get("mType") in _CHIP_TYPES]
    levels = [int(level) for sensor in chip if (level := sensor.get("mStatus", "")).isdigit()]
    return Thermal(
        status=int(status[1]) if status else None,
        chip_status=max(levels, default=None),
        chip_celsius=_hottest(chip),
        skin_celsius=_hottest([each for each in sensors if each.get("mType") == _SKIN_TYPE]),
    )


def parse_battery(text: str) -> Battery:
    """What `dumpsys battery` says; later lines of a log that some makers append do not count."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, found, value = line.partition(":")
        if found:
            fields.setdefault(key.strip(), value.strip())
    level, scale = to_float(fields.get("level", "")), to_float(fields.get("scale", "100"))
    tenths = to_float(fields.get("temperature", ""))
    powered = [fields[name] == "true" for name in _POWERED if name in fields]
    status = fields.get("status", "")
    return Battery(
        level=level / scale if level is not None and scale else None,
        celsius=plausible_celsius(None if tenths is None else tenths / 10),
        powered=any(powered) if powered else None,
        charging=status == _CHARGING if status.isdigit() else None,
    )


def parse_switch(text: str) -> bool | None:
    """A setting that is 0 or 1; one that was never set (`null`) is off."""
    word = text.strip()
    if word in ("0", "null"):
        return False
    return True if word == "1" else None


def parse_app_use(text: str) -> list[AppUse]:
    """Processes of `dumpsys cpuinfo`, as in `38% 1234/com.app: 29% user + 9% kernel`.

    The percentages are of one core.
    """
    found = [
        AppUse(name, int(pid), percent / 100)
        for share, pid, name in _USE.findall(text)
        if (percent := to_float(share)) is not None
    ]
    return sorted(found, key=lambda use: -use.cores)


def _ask(shell: Shell, command: str) -> str:
    """What a command prints; empty if it is denied."""
    text = shell(command)
    return "" if _DENIAL.search(text.partition("\n")[0]) else text


def _hottest(sensors: list[dict[str, str]]) -> float | None:
    values = (plausible_celsius(to_float(sensor.get("mValue", ""))) for sensor in sensors)
    return max((value for value in values if value is not None), default=None)
