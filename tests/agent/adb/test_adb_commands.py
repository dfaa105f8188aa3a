"""Debian's adb against phones that are made up."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from latlas_agent.adb import Adb, Attached, parse_devices
from latlas_agent.lease import DeviceGoneError
from latlas_ops.errors import MeasurementError, RuntimeUnavailableError


@pytest.mark.parametrize("features", [(), ("shell_v2", "cmd")], ids=["old", "new"])
def test_a_phone_is_listed_asked_and_given_files(
    adb: Adb, make_phone: Callable[..., Any], tmp_path: Path, features: tuple[str, ...]
) -> None:
    phone = make_phone("A1", *features)
    assert adb.attached() == [Attached(phone.serial, "device")]
    assert adb.shell(phone.serial)("getprop ro.serialno") == "A1\n"
    file = tmp_path / "file"
    file.write_bytes(bytes(range(256)) * 4000)
    remote = "/data/local/tmp/latlas/file"

    async def use() -> str:
        await adb.push(phone.serial, file, remote, 20)
        return await adb.run(phone.serial, f"cat {remote} | wc -c; false", 20)

    assert asyncio.run(use()).split() == [str(256 * 4000)]
    assert (phone.home / "file").read_bytes() == file.read_bytes()


def test_a_full_phone_says_so(adb: Adb, phone: Any, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    (phone.root / "full").touch()
    with pytest.raises(MeasurementError, match=r"remote No space left on device; free storage"):
        asyncio.run(adb.push(phone.serial, file, "/data/local/tmp/latlas/file", 20))


def test_a_command_that_hangs_is_given_up(adb: Adb, phone: Any) -> None:
    with pytest.raises(MeasurementError, match=r"not done within 0\.5 s"):
        asyncio.run(adb.run(phone.serial, "sleep 60", 0.5))


def test_a_phone_that_is_not_there_is_gone(adb: Adb, phone: Any) -> None:
    with pytest.raises(DeviceGoneError, match=r"phone nowhere is gone .*plug it in again"):
        asyncio.run(adb.run("nowhere", "true", 20))
    phone.unplug()
    with pytest.raises(DeviceGoneError, match=f"phone {phone.serial} is gone"):
        asyncio.run(adb.require(phone.serial))
    phone.plug()
    asyncio.run(adb.require(phone.serial))


def test_without_adb_the_way_out_is_named() -> None:
    with pytest.raises(
        RuntimeUnavailableError, match=r"adb is not installed here.*apt install adb"
    ):
        Adb.find({"PATH": "/nowhere"})


def test_phones_that_do_not_obey_are_named_with_the_way_out() -> None:
    found = parse_devices(
        "* daemon started successfully\nList of devices attached\n"
        "R58N\tunauthorized\n9A2\tno permissions (user in plugdev group?); see [http://x]\n"
        "1B\tdevice\nemulator-5554\toffline\n\n"
    )
    assert [phone.serial for phone in found] == ["1B", "9A2", "R58N", "emulator-5554"]
    ready, denied, unauthorized, offline = (phone.objection for phone in found)
    assert ready == ""
    assert "udev rules" in denied
    assert "unlock it and allow USB debugging" in unauthorized
    assert "plug it in again" in offline
    assert "start Android" in dataclasses.replace(found[0], state="recovery").objection
