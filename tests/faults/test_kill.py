"""Worker, agent and coordinator are killed in one campaign: it ends whole, each visit once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import latlas

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="finds the worker by the process tree below /proc"
)

CAMPAIGN = "killed"
SAMPLING = latlas.Sampling(
    n_rounds=3, n_extra_rounds=0, warmup_runs=1, min_runs=3, min_duration_ns=4_000_000
)
LIMIT_S = 120.0

Visits = Counter[tuple[str, int, int]]
"""Task, round and start of each visit, and how often it is there."""


def eventually(what: str, condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not within {LIMIT_S:g} s: {what}"
        time.sleep(0.05)


class Fleet:
    """A coordinator and an agent, each of which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = ""
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start_coordinator(self) -> None:
        ready = self.folder / "ready"
        ready.unlink(missing_ok=True)
        port = self.address.rpartition(":")[2] or "0"
        self._start(
            "coordinator",
            [
                "latlas.cli.main",
                "serve",
                "--database",
                str(self.folder / "latlas.db"),
                "--port",
                port,
                "--http-port",
                "0",
                "--ready-file",
                str(ready),
            ],
        )
        eventually("the coordinator is ready", lambda: ready.exists() and bool(ready.read_text()))
        self.address = json.loads(ready.read_text())["grpc"]

    def start_agent(self) -> None:
        self._start(
            "agent",
            [
                "latlas_agent.cli",
                "run",
                "--coordinator",
                self.address,
                "--state-dir",
                str(self.folder / "board"),
            ],
        )

    def kill(self, name: str) -> None:
        self.running[name].kill()
        self.running[name].wait()

    def kill_worker(self) -> None:
        eventually("a worker runs", lambda: bool(self._workers()))
        os.kill(self._workers()[0], signal.SIGKILL)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait(20)

    def _start(self, name: str, arguments: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as stream:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def _workers(self) -> list[int]:
        agent = self.running["agent"].pid
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                command = (folder / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended meanwhile
            if parent == agent and b"latlas_agent.worker" in command:
                found.append(int(folder.name))
        return found


def visits(lab: latlas.Lab) -> Visits:
    return Counter(
        (row.task_id, visit.round, visit.started_ns)
        for row in lab.measurements(CAMPAIGN)
        for visit in row.visits
    )


def test_a_campaign_survives_the_death_of_each_process(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    try:
        fleet.start_coordinator()
        fleet.start_agent()
        with latlas.connect(fleet.address, wait_s=30) as lab:
            eventually("the board joins", lambda: any(d.connected for d in lab.devices()))
            lab.add_target("board")
            wanted = lab.start_profile(
                CAMPAIGN,
                "digits",
                "board",
                n_training_networks=60,
                n_calibration_networks=5,
                n_validation_networks=5,
                min_occurrences=1,
                sampling=SAMPLING,
            ).n_visits_wanted

            def share_done(share: float) -> Callable[[], bool]:
                return lambda: lab.campaign(CAMPAIGN).n_visits_done >= share * wanted

            eventually("15 % is done", share_done(0.15))
            fleet.kill_worker()
            kept = [visits(lab)]

            eventually("40 % is done", share_done(0.40))
            fleet.kill("agent")
            kept.append(visits(lab))
            fleet.start_agent()

            eventually("65 % is done", share_done(0.65))
            fleet.kill("coordinator")
            assert fleet.running["agent"].poll() is None
            fleet.start_coordinator()
            kept.append(visits(lab))

            assert sum(kept[0].values()) < sum(kept[1].values()) < sum(kept[2].values()) < wanted
            for status in lab.watch(CAMPAIGN):
                assert status.n_visits_done <= wanted
            campaign = lab.campaign(CAMPAIGN)
            assert (campaign.state, campaign.failed) == ("finished", ())
            final = visits(lab)
            assert set(final.values()) == {1}
            assert len({(task, number) for task, number, _ in final}) == len(final) == wanted
            for before in kept:
                assert not before - final
            # An agent that finds less committed than was acknowledged to it says so.
            assert "lost what it had acknowledged" not in fleet.log("agent")
    finally:
        fleet.stop()
        sys.stdout.write(fleet.log("coordinator") + fleet.log("agent"))
