"""`bench/loop.py`: a table, a JSON file and an exit code from a finished quickstart."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from latlas.quickstart.results import Results

Loop = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_good_quickstart_exits_0_and_shows_each_figure_with_its_bar(
    results: Results, loop: Loop, tmp_path: Path
) -> None:
    (tmp_path / "quickstart").mkdir()
    results.save(tmp_path / "quickstart" / "results.json")
    finished = loop("--quick", cwd=tmp_path)
    lines = [" ".join(line.split()) for line in finished.stdout.splitlines()]
    assert "lookup table: MAPE 2.00 % at most 4.00 % yes" in lines
    assert "MLP predictor: MAPE 6.00 %" in lines
    assert "time of all steps 7.00 min at most 8.00 min yes" in lines
    assert "20 of 20 bars hold" in lines
    assert (finished.returncode, finished.stderr) == (0, "")


def test_the_json_holds_name_value_bar_and_verdict(
    results: Results, loop: Loop, tmp_path: Path
) -> None:
    results.save(tmp_path / "results.json")
    loop(tmp_path, "--json", tmp_path / "figures.json")
    record = json.loads((tmp_path / "figures.json").read_text())
    shown = {figure["name"]: figure for figure in record["figures"]}
    assert len(shown) == len(record["figures"])
    table = shown["lookup table: MAPE"]
    assert table.pop("value") == pytest.approx(2.0)
    assert table == {
        "name": "lookup table: MAPE",
        "unit": "%",
        "bar": 4.0,
        "direction": "at most",
        "holds": True,
    }
    baseline = shown["MACs baseline: MAPE"]
    assert baseline["value"] == pytest.approx(20.0)
    assert baseline["bar"] is None
    assert baseline["holds"] is None
    assert shown["accuracy predictor: Kendall tau on held-out subnets"]["value"] == 1.0


def test_a_bar_that_does_not_hold_is_shown_and_exits_1(
    results: Results, loop: Loop, tmp_path: Path
) -> None:
    slow = dataclasses.replace(results, step_seconds={"train": 600.0})
    slow.save(tmp_path / "results.json")
    finished = loop(tmp_path)
    assert finished.returncode == 1
    (line,) = (line for line in finished.stdout.splitlines() if "time of all steps" in line)
    assert " ".join(line.split()) == "time of all steps 10.00 min at most 8.00 min NO"
    assert "19 of 20 bars hold" in finished.stdout


def test_a_missing_folder_is_one_line_and_exit_2(loop: Loop, tmp_path: Path) -> None:
    finished = loop(tmp_path / "nowhere", "--json", tmp_path / "figures.json")
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.splitlines() == [
        f"error: {tmp_path / 'nowhere' / 'results.json'} does not exist; "
        "run `latlas quickstart` to the end first"
    ]
    assert not (tmp_path / "figures.json").exists()
