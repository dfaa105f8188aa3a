from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from latlas_agent.gpu import Gpu, GpuProcess
from latlas_agent.gpu_advice import gpu_advice

STEADY = Gpu(
    index=1,
    name="NVIDIA A100-SXM4-40GB",
    clock_mhz=1095,
    max_clock_mhz=1410,
    temperature_celsius=40,
    throttle_reasons=(),
    clock_fixed=True,
    others=(),
    busy_share=0.0,
    available_memory_bytes=39 << 30,
    persistence=True,
    power_limit_watts=400,
    default_power_limit_watts=400,
)


def test_a_steady_gpu_needs_no_advice(tmp_path: Path) -> None:
    assert gpu_advice(tmp_path, STEADY) == []


def test_a_gpu_that_tells_nothing_gets_no_advice(tmp_path: Path) -> None:
    assert gpu_advice(tmp_path, Gpu()) == []


@pytest.mark.parametrize(
    ("change", "about", "says"),
    [
        ({"persistence": False}, "GPU persistence", "sudo nvidia-smi -i 1 -pm 1"),
        (
            {"clock_fixed": False, "clock_mhz": 210},
            "GPU clock",
            "(210 of 1410 MHz now): sudo nvidia-smi -i 1 -lgc 1050,1050",
        ),
        (
            {"clock_fixed": False, "persistence": None, "power_limit_watts": None},
            "GPU clock",
            "sudo jetson_clocks",
        ),
        ({"clock_fixed": None}, None, ""),
        (
            {"power_limit_watts": 250},
            "GPU power cap",
            "may take 250 W of the 400 W it was made for, and slows down under load: "
            "sudo nvidia-smi -i 1 -pl 400",
        ),
        ({"power_limit_watts": 450}, None, ""),
        (
            {"power_limit_watts": 250, "power_capped": True},
            "GPU power cap",
            "may take 250 W of the 400 W it was made for",
        ),
        (
            {"power_capped": True},
            "GPU power cap",
            "stay within its power limit of 400 W, as is normal under full load, and its clock "
            "moves with what it computes: sudo nvidia-smi -i 1 -lgc 1050,1050",
        ),
        (
            {"throttle_reasons": ("power brake", "heat")},
            "GPU throttling",
            "GPU 1 holds its clock back (power brake, heat)",
        ),
        (
            {"others": (GpuProcess(17, 1200 << 20, 0.35),)},
            "GPU in use",
            "others compute on GPU 1 (pid 17 with 1200 MiB at 35 %): end them, or run the agent on "
            "another GPU with CUDA_VISIBLE_DEVICES",
        ),
        (
            {"busy_share": 0.3},
            "GPU in use",
            "GPU 1 is busy 30 % of the time, with a desktop or with processes that the driver does "
            "not name",
        ),
    ],
)
def test_what_disturbs_a_gpu_is_named_with_the_way_out(
    tmp_path: Path, change: dict[str, object], about: str | None, says: str
) -> None:
    found = gpu_advice(tmp_path, dataclasses.replace(STEADY, **change))  # type: ignore[arg-type]
    assert [advice.about for advice in found] == ([] if about is None else [about])
    assert all(says in advice.text and "\n" not in advice.text for advice in found)


def test_a_process_is_named_by_its_command_and_a_campaign_is_not_to_be_ended(
    tmp_path: Path,
) -> None:
    (tmp_path / "proc/17").mkdir(parents=True)
    (tmp_path / "proc/17/cmdline").write_text("/opt/bin/python\0-m\0latlas_agent.worker\0")
    gpu = dataclasses.replace(STEADY, others=(GpuProcess(17, 1 << 30),))
    [advice] = gpu_advice(tmp_path, gpu)
    assert advice.text == (
        "others compute on GPU 1 (python -m latlas_agent.worker, pid 17 with 1024 MiB): a campaign "
        "is at work, look again when it has ended"
    )
