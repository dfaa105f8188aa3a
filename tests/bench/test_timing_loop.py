"""`bench/timing_loop.py`: what its table and JSON hold. How long things take is not asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

MEMORY = ("memory: Python's growth per visit", "memory: kept per timed inference")


@pytest.mark.slow
def test_the_cost_of_the_loop_is_shown_beside_its_bar(repository: Path, tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    finished = subprocess.run(
        [sys.executable, repository / "bench" / "timing_loop.py", "--quick", "--json", written],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.stderr == ""
    shown = {figure["name"]: figure for figure in json.loads(written.read_text())["figures"]}
    for network in ("one op", "digits network"):
        added = shown[f"{network}: added per inference"]
        assert (added["unit"], added["bar"], added["direction"]) == ("µs", 1.0, "at most")
        assert shown[f"{network}: bare loop, per inference"]["value"] > 0
        assert shown[f"{network}: pairs"]["value"] >= 200
    for name in MEMORY:
        assert shown[name]["holds"], shown[name]
    assert {name.split(":")[0] for name in shown} == {"one op", "digits network", "memory"}
    all_hold = all(figure["holds"] is not False for figure in shown.values())
    assert finished.returncode == (0 if all_hold else 1)
    assert finished.stdout.count(" at most ") == 6


def test_help_names_the_options(repository: Path) -> None:
    shown = subprocess.run(
        [sys.executable, repository / "bench" / "timing_loop.py", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "--quick" in shown
    assert "--json" in shown
