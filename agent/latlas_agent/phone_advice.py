"""What disturbs measurements on a phone: the culprit and the way out, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from latlas_agent.advice import Advice
from latlas_agent.android import THERMAL_STATUS, AppUse, Phone
from latlas_agent.clocks import capped_cores
from latlas_latency.measurement import FlagThresholds

_WARM_BATTERY_CELSIUS = 38.0
"""Phones begin to hold their clock back when the skin is a little above this."""

_N_NAMED_APPS = 3
_LEAST_APP_CORES = 0.1


def phone_advice(
    root: Path, cores: Sequence[int], phone: Phone, apps: Sequence[AppUse]
) -> list[Advice]:
    """What concerns a phone as a whole.

    Args:
        root: the root directory.
        cores: cores that may be used.
        phone: its state.
        apps: who used its processor in the last minutes, Latlas's own left out.
    """
    return [*_heat(phone), *_power(phone), *_caps(root, cores), *_load(apps)]


def _heat(phone: Phone) -> Iterator[Advice]:
    thermal, battery = phone.thermal, phone.battery
    level = max(thermal.status or 0, thermal.chip_status or 0)
    if level:
        name = THERMAL_STATUS[min(level, len(THERMAL_STATUS) - 1)]
        celsius = phone.temperature_celsius
        at = "" if celsius is None else f" at {celsius:.0f} °C"
        yield Advice(
            "throttling",
            f"the phone holds its clock back{at} (thermal status {name}): take it out of its "
            "case, put a fan at it, and let it cool",
        )
    if battery.charging and (battery.celsius or 0.0) >= _WARM_BATTERY_CELSIUS:
        yield Advice(
            "charging",
            f"charging heats the battery to {battery.celsius:.0f} °C, and the chip with it: let it "
            "charge to the end before you measure, or charge from a weaker port",
        )


def _power(phone: Phone) -> Iterator[Advice]:
    if phone.battery_saver:
        yield Advice(
            "battery saver",
            "the battery saver is on and lowers the clock: plug the phone in, then "
            "adb shell settings put global low_power 0",
        )
    if phone.battery.powered is False:
        level = phone.battery.level
        charge = "" if level is None else f" ({100 * level:.0f} %)"
        yield Advice(
            "power",
            f"the phone runs on its battery{charge}, and saves power as it sinks: plug it in",
        )


def _caps(root: Path, cores: Sequence[int]) -> Iterator[Advice]:
    capped = capped_cores(root, cores)
    if capped:
        worst = min(capped, key=lambda core: capped[core][0] / capped[core][1])
        allowed, possible = capped[worst]
        others = f", and {len(capped) - 1} more" if len(capped) > 1 else ""
        yield Advice(
            "clock",
            f"the system limits core {worst} to {allowed:.0f} of {possible:.0f} MHz{others}: let "
            "the phone cool, switch the battery saver off, and choose its performance mode if it "
            "has one; a limit that stays all the same is its maker's, and part of the phone",
        )


def _load(apps: Sequence[AppUse]) -> Iterator[Advice]:
    total = sum(app.cores for app in apps)
    if total >= FlagThresholds().other_cores:
        names = ", ".join(
            f"{app.name} (pid {app.pid}): {app.cores:.1f} cores"
            for app in apps[:_N_NAMED_APPS]
            if app.cores >= _LEAST_APP_CORES
        )
        yield Advice(
            "load",
            f"others kept {total:.1f} cores busy in the last minutes "
            f"({names or 'many small ones'}): close them, switch to flight mode, or wait until "
            "updates are done",
        )
