from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import pytest

from latlas_agent.probe import probe_hardware

# Recorded from real machines, shortened.
RASPBERRY_PI_5 = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/meminfo": "MemTotal:        8245584 kB\nMemAvailable:    7100400 kB\n",
    "proc/sys/kernel/osrelease": "6.6.31+rpt-rpi-2712\n",
    "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
}
LAPTOP = {
    "sys/class/dmi/id/sys_vendor": "LENOVO\n",
    "sys/class/dmi/id/product_name": "20XW004AGE\n",
    "proc/cpuinfo": (
        "processor\t: 0\nmodel\t\t: 140\n"
        "model name\t: 11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz\n"
    ),
}
SELF_BUILT_PC = {
    "sys/class/dmi/id/sys_vendor": "To Be Filled By O.E.M.\n",
    "sys/class/dmi/id/product_name": "System Product Name\n",
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD Ryzen 7  5800X 8-Core Processor\n",
}
JETSON = {
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "var/lib/nvpmodel/status": "pmode:0001\n",
}


def plant(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_board_with_a_device_tree_is_called_what_it_says(tmp_path: Path) -> None:
    hardware = probe_hardware(plant(tmp_path, RASPBERRY_PI_5))
    assert hardware.device_model == "Raspberry Pi 5 Model B Rev 1.0"
    assert hardware.memory_bytes == 8245584 * 1024
    assert hardware.operating_system == (
        "Debian GNU/Linux 12 (bookworm), kernel 6.6.31+rpt-rpi-2712"
    )
    assert hardware.power_mode == "default"


def test_a_computer_is_called_after_its_product_and_processor(tmp_path: Path) -> None:
    assert probe_hardware(plant(tmp_path, LAPTOP)).device_model == (
        "LENOVO 20XW004AGE (11th Gen Intel(R) Core(TM) i7-1165G7 @ 2.80GHz)"
    )


def test_placeholders_of_a_self_built_computer_are_left_out(tmp_path: Path) -> None:
    hardware = probe_hardware(plant(tmp_path, SELF_BUILT_PC))
    assert hardware.device_model == "AMD Ryzen 7 5800X 8-Core Processor"


def test_the_power_mode_of_a_jetson_is_part_of_what_it_is(tmp_path: Path) -> None:
    assert probe_hardware(plant(tmp_path, JETSON)).power_mode == "nvpmodel-1"


@pytest.mark.parametrize(("low_power", "power_mode"), [("0", "default"), ("1", "battery-saver")])
def test_a_phone_is_what_android_says(tmp_path: Path, low_power: str, power_mode: str) -> None:
    answers = {
        "getprop": (
            "[ro.product.manufacturer]: [Google]\n[ro.product.model]: [Pixel 8]\n"
            "[ro.soc.model]: [Tensor G3]\n[ro.build.version.release]: [14]\n"
        ),
        "settings get global low_power": low_power,
    }
    files = {
        "proc/device-tree/model": "ZUMA SHIBA MP based on ZUMA\0",
        "proc/sys/kernel/osrelease": "5.15.110-android14\n",
    }
    hardware = probe_hardware(plant(tmp_path, files), lambda command: answers.get(command, ""))
    assert hardware.device_model == "Google Pixel 8 (Tensor G3)"
    assert hardware.operating_system == "Android 14, kernel 5.15.110-android14"
    assert hardware.power_mode == power_mode


def test_a_phone_that_may_not_be_asked_is_called_after_its_kernel(tmp_path: Path) -> None:
    root = plant(tmp_path, {"proc/device-tree/model": "ZUMA SHIBA MP based on ZUMA\0"})
    assert probe_hardware(root, lambda _: "").device_model == "ZUMA SHIBA MP based on ZUMA"


def test_a_board_that_says_nothing_still_has_a_model(tmp_path: Path) -> None:
    hardware = probe_hardware(tmp_path)
    assert hardware.device_model == f"unknown {platform.machine()}"
    assert hardware.memory_bytes == 0


def test_this_machine_can_be_probed() -> None:
    hardware = probe_hardware()
    assert hardware.device_model
    assert hardware.cores == tuple(sorted(os.sched_getaffinity(0)))
    assert hardware.memory_bytes > 0
    assert hardware.architecture == platform.machine()
