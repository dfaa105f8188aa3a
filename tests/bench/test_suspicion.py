"""`bench/suspicion.py`: real shifts shown, injected ones found, no data said in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Bench = Callable[..., "subprocess.CompletedProcess[str]"]

N_ROWS = 1000


@pytest.fixture
def bench(repository: Path) -> Bench:
    """`bench(data_folder, *arguments)` runs the benchmark; None leaves the variable unset."""

    def run(folder: Path | None, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        environment = {
            name: value for name, value in os.environ.items() if name != "LATLAS_DATA_DIR"
        }
        if folder is not None:
            environment["LATLAS_DATA_DIR"] = str(folder)
        return subprocess.run(
            [sys.executable, repository / "bench" / "suspicion.py", *arguments],
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            env=environment,
        )

    return run


@pytest.fixture
def made_up_data(tmp_path: Path) -> Path:
    """A file of HAT's form: 1 % noise, and rows 200 to 259 took 1.3 times as long."""
    rng = np.random.default_rng(0)
    features = rng.choice([1.0, 2.0, 3.0, 4.0], (N_ROWS, 10))
    noise = np.exp(rng.normal(0, 0.01, (N_ROWS, 2)))
    latency_ms = np.prod(features**0.3, axis=1)[:, None] * noise
    latency_ms[200:260] *= 1.3
    (tmp_path / "hat").mkdir()
    np.savetxt(
        tmp_path / "hat" / "board.csv",
        np.hstack([features, latency_ms, 0.01 * latency_ms]),
        delimiter=",",
        header=",".join(f"column_{index}" for index in range(14)),
        comments="",
    )
    return tmp_path


def test_it_shows_the_real_stretches_and_the_figures_with_their_bars(
    made_up_data: Path, bench: Bench, tmp_path: Path
) -> None:
    finished = bench(made_up_data, "--quick", "--json", tmp_path / "figures.json")
    assert (finished.returncode, finished.stderr) == (0, "")
    for part in ("encoder", "decoder"):
        (line,) = (line for line in finished.stdout.splitlines() if f"board {part}" in line)
        assert line.split("): ")[1] == "200-259 x1.30"
    assert "2 of 2 bars hold" in finished.stdout
    record = json.loads((tmp_path / "figures.json").read_text())
    shown = {figure["name"]: figure for figure in record["figures"]}
    assert len(shown) == len(record["figures"])
    recall = shown["recall, shifts >= 15 %, noise <= 2 %"]
    assert (recall["unit"], recall["bar"], recall["direction"]) == ("%", 95.0, "at least")
    assert recall["holds"] is True
    assert shown["shuffled series with a find"]["value"] == 0
    assert shown["recall, shifts >= 15 %, noise > 2 %"]["value"] is None


@pytest.mark.slow
def test_on_the_third_party_data_both_bars_hold(third_party_data: Path, bench: Bench) -> None:
    finished = bench(third_party_data, "--quick")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "2 of 2 bars hold" in finished.stdout
    (line,) = (
        line
        for line in finished.stdout.splitlines()
        if "iwslt14deen" in line[:60] and "decoder" in line
    )
    assert line.endswith("25-356 x1.26, 429-485 x1.23")


def test_without_data_it_is_one_line_and_exit_2(bench: Bench, tmp_path: Path) -> None:
    for folder, reason in (
        (None, "LATLAS_DATA_DIR names no folder of third-party measurements"),
        (tmp_path / "nowhere", f"LATLAS_DATA_DIR is {tmp_path / 'nowhere'}, which is no folder"),
        (tmp_path, f"{tmp_path} holds no series: neither hat/*.csv nor help/*/latency/*.csv"),
    ):
        finished = bench(folder)
        assert (finished.returncode, finished.stdout) == (2, "")
        assert finished.stderr == f"error: {reason}\n"


def test_a_broken_file_is_named(bench: Bench, made_up_data: Path) -> None:
    path = made_up_data / "hat" / "board.csv"
    path.write_text(path.read_text().replace("1.0", "fast", 1).replace("1.", "fast", 3))
    finished = bench(made_up_data)
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"error: {path}: ")
