"""A space of one's own, from a file, through coordinator and agent to a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import nn

import latlas

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the agent measures on Linux")

START_S = 60.0


class Choice(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.candidates = nn.ModuleDict({"skip": nn.Identity()})
        for kernel in (3, 5, 7):
            conv = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, bias=False)
            layers = nn.Sequential(conv, nn.BatchNorm2d(channels), nn.SiLU())
            self.candidates[f"k{kernel}"] = layers


@contextmanager
def process(module: str, *arguments: object, spaces: Path) -> Iterator[subprocess.Popen[bytes]]:
    running = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "LATLAS_SPACES": str(spaces)},
    )
    try:
        yield running
    finally:
        running.terminate()
        running.wait(30)


def test_a_supernet_is_profiled_and_predicted_like_a_built_in_space(tmp_path: Path) -> None:
    net = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, 2, 1), Choice(32), Choice(32), nn.Conv2d(32, 64, 3, 2, 1)),
        *(Choice(64), Choice(64), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
    )
    space = latlas.Space.from_supernet(net, (1, 3, 64, 64), name="own")
    path, ready = tmp_path / "own.json", tmp_path / "ready.json"
    path.write_text(space.to_json())
    served = ("--database", tmp_path / "lab.db", "--port", 0, "--http-port", 0)
    with process("latlas.cli.main", "serve", *served, "--ready-file", ready, spaces=path) as server:
        deadline_s = time.monotonic() + START_S
        while not ready.exists():
            assert server.poll() is None
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        address = json.loads(ready.read_text())["grpc"]
        attached = ("run", "--coordinator", address, "--state-dir", tmp_path / "agent")
        with process("latlas_agent.cli", *attached, spaces=path), latlas.connect(address) as lab:
            while not any(state.connected for state in lab.devices()):
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            lab.add_target("here")
            sampling = latlas.Sampling(
                n_rounds=2, warmup_runs=1, min_runs=3, min_duration_ns=2_000_000
            )
            lab.start_profile(
                "own",
                "own",
                "here",
                n_training_networks=4,
                n_calibration_networks=6,
                n_validation_networks=4,
                min_occurrences=1,
                sampling=sampling,
            )
            *_, last = lab.watch("own")
            assert not last.is_running
            lab.build_table("own-table", "own")
            table = lab.latency_model("own-table")
            there = lab.predict("own-table", space.extremes()).mean_ms
    assert not table.missing(space)  # type: ignore[attr-defined]
    smallest, largest = table.predict(space.extremes()).mean_ms
    assert 0 < smallest < largest
    assert list(there) == pytest.approx([smallest, largest])
