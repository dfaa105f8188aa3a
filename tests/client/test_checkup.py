"""What `latlas doctor` finds out per target, on a recorded board."""

import dataclasses
import os

import pytest

from latlas.checkup import (
    Finding,
    Noise,
    describe_noise,
    expect_noise,
    look_at_machine,
    look_at_targets,
)
from latlas_agent.gpu import Gpu
from latlas_agent.noise import NoiseEstimate
from latlas_latency.measurement import Target
from latlas_ops.errors import MeasurementError, RuntimeUnavailableError

STEADY = NoiseEstimate(0.012, 0.008, 0.03, 3, 72, 0, {}, 3.0)


@pytest.fixture
def board(tmp_path):
    """A board with four steady cores."""
    files = {"proc/device-tree/model": "Pi 5\0"}
    for core in range(4):
        files[f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"] = "performance"
        files[f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq"] = "2400000"
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def target():
    return Target("pi5", "Pi 5", "onnxruntime", "1.32.0", "CPUExecutionProvider", cores=(3,))


def look(board, *targets):
    return look_at_targets(board, range(4), targets)


def test_a_target_on_a_steady_core_needs_no_advice(board, target):
    assert look(board, target) == []


def test_advice_on_a_core_goes_to_the_targets_that_use_it(board, target):
    governor = board / "sys/devices/system/cpu/cpu3/cpufreq/scaling_governor"
    governor.write_text("ondemand")
    other = dataclasses.replace(target, name="other", cores=(2,))
    [found] = look(board, target, other)
    assert (found.target, found.about) == ("pi5", "governor")
    assert "core 3 is ondemand" in found.text
    [found] = look(board)
    assert (found.target, found.about) == ("", "governor")


@pytest.mark.parametrize(
    ("change", "about", "says"),
    [
        ({"device_model": "Pi 4"}, "elsewhere", "is measured on Pi 4: run `latlas doctor` on"),
        ({"power_mode": "nvpmodel-2"}, "power mode", "needs nvpmodel-2, the board is in default"),
        ({"cores": ()}, "pinning", "names no cores"),
        ({"cores": (7,)}, "pinning", "wants core 7, which this machine does not let you use"),
        ({"cores": (0, 1, 2, 3), "threads": 4}, "pinning", "takes every core"),
        ({"threads": 2}, "pinning", "runs 2 threads on 1 cores"),
    ],
)
def test_settings_of_a_target_that_disturb_it_are_named(board, target, change, about, says):
    found = look(board, dataclasses.replace(target, **change))
    assert found[0].target == "pi5"
    assert found[0].about == about
    assert says in found[0].text


def test_advice_on_a_gpu_goes_to_the_targets_that_run_on_it(board, target):
    on_gpu = dataclasses.replace(target, name="orin", provider="CUDAExecutionProvider")
    gpu = Gpu(clock_mhz=210, max_clock_mhz=1410, clock_fixed=False, persistence=True)
    found = look_at_targets(board, range(4), [target, on_gpu], find_gpu=lambda _: lambda: gpu)
    assert [(finding.target, finding.about) for finding in found] == [("orin", "GPU clock")]


def test_a_gpu_that_cannot_be_asked_is_named_with_the_reason(board, target):
    def find_gpu(root):
        raise RuntimeUnavailableError("driver and library have different versions")

    on_gpu = dataclasses.replace(target, provider="TensorrtExecutionProvider")
    [found] = look_at_targets(board, range(4), [on_gpu], find_gpu=find_gpu)
    assert found.about == "GPU"
    assert found.text.endswith("during visits: driver and library have different versions")


def test_a_phone_is_asked_through_its_shell(board):
    answers = {
        "dumpsys battery": "  USB powered: true\n  status: 2\n  temperature: 420\n",
        "settings get global low_power": "1",
        "dumpsys cpuinfo": f"  300% {os.getpid()}/python: 1% user\n  90% 17/game: 1% user\n",
    }
    battery = board / "sys/class/power_supply/ac"
    battery.mkdir(parents=True)
    (battery / "type").write_text("Mains")
    (battery / "online").write_text("0")
    found = look_at_machine(board, [0], look_s=0.01, shell=lambda command: answers.get(command, ""))
    assert [finding.about for finding in found] == ["charging", "battery saver", "load"]
    assert "others kept 0.9 cores busy in the last minutes (game (pid 17)" in found[2].text


@pytest.mark.parametrize(
    "words",
    [
        ["/usr/bin/python3", "-X", "utf8", "-X", "dev", "-I", "-m", "latlas_agent.worker"],
        ["/usr/bin/python3", "/home/somebody/environments/phone/bin/latlas-agent", "run"],
    ],
)
def test_what_latlas_itself_does_on_a_phone_is_no_load_of_others(board, words):
    use = "  300% 18/python: 1% user\n  90% 17/game: 1% user\n"
    (board / "proc/18").mkdir(parents=True)
    (board / "proc/18/cmdline").write_text("\0".join([*words, ""]))
    shell = {"dumpsys cpuinfo": use}
    found = look_at_machine(board, [0], look_s=0.01, shell=lambda command: shell.get(command, ""))
    assert [finding.about for finding in found] == ["load"]
    assert "others kept 0.9 cores busy in the last minutes (game (pid 17)" in found[0].text


def test_a_machine_that_is_at_rest_gets_no_advice(board):
    assert look_at_machine(board, [0], look_s=0.01) == []


def test_advice_on_the_machine_concerns_no_target_in_particular(board):
    (board / "proc/meminfo").write_text("MemTotal: 8000000 kB\nMemAvailable: 100000 kB\n")
    [found] = look_at_machine(board, [0], look_s=0.01)
    assert isinstance(found, Finding)
    assert (found.target, found.about) == ("", "memory")


def test_noise_is_measured_once_for_each_set_of_cores(board, target, monkeypatch):
    measured = []

    def measure_noise(cores, root):
        measured.append(cores)
        if cores == (2,):
            raise MeasurementError("it was killed")
        return STEADY

    monkeypatch.setattr("latlas.checkup.measure_noise", measure_noise)
    targets = [
        target,
        dataclasses.replace(target, name="same"),
        dataclasses.replace(target, name="core-2", cores=(2,)),
        dataclasses.replace(target, name="elsewhere", device_model="Pi 4", cores=(0,)),
    ]
    assert expect_noise(board, targets) == [
        Noise((3,), ("pi5", "same"), STEADY),
        Noise((2,), ("core-2",), None, "it was killed"),
    ]
    assert measured == [(3,), (2,)]
    assert expect_noise(board, []) == [Noise((), (), STEADY)]


def test_noise_is_told_in_one_line():
    line = describe_noise(Noise((), (), STEADY))
    assert line == (
        "1.2 % label noise with 3 rounds, 0.8 % without what slowed all alike; "
        "no label off by more than 3.0 %"
    )


def test_too_much_noise_comes_with_advice():
    loud = dataclasses.replace(
        STEADY, common_mode_free_noise=0.05, n_flagged_visits=9, flags={"crowded": 9}
    )
    line = describe_noise(Noise((), (), loud))
    assert "9 of 72 visits flagged (crowded); above 2 %, too much for a table" in line
    assert describe_noise(Noise((), (), None, "it was killed")) == "it was killed"
