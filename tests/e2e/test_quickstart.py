"""`latlas quickstart --quick` as real processes: interrupted, resumed, repeated, killed."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import onnxruntime
import pytest
import torch

from latlas.quickstart.results import Results
from latlas.quickstart.settings import QUICK
from latlas_latency.formats import load_latency_model
from latlas_latency.table import LookupTable
from latlas_nas.accuracy import classifier_accuracy
from latlas_nas.data.digits import digits_data
from latlas_ops.spaces import get_space

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the quickstart needs Linux"),
]

PATIENCE_S = 300.0


def command(folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "latlas.cli.main", "quickstart", "--quick"),
        *("--folder", str(folder)),
    ]


@contextmanager
def quickstart(folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        command(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], wanted: str) -> str:
    """What it said up to and with the line that holds `wanted`."""
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if wanted in line:
            return said
    raise AssertionError(f"it ended without saying {wanted!r}:\n{said}")


def finish(folder: Path) -> str:
    done = subprocess.run(
        command(folder), check=False, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def n_visits(folder: Path) -> int:
    with closing(sqlite3.connect(folder / "fleet" / "latlas.db")) as database:
        (count,) = database.execute("select count(*) from visits").fetchone()
    return int(count)


def without_search_seconds(results: Results) -> Results:
    found = [dataclasses.replace(one, search_seconds=0.0) for one in results.found]
    return dataclasses.replace(results, found=found)


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose quickstart was interrupted while training, and then ended."""
    folder = tmp_path_factory.mktemp("quickstart") / "results"
    with quickstart(folder) as process:
        read_until(process, "phase kernel")
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130, rest
    assert "the same command goes on where it stopped" in rest
    measured = n_visits(folder)
    losses = (folder / "supernet" / "loss.csv").read_text()
    finish(folder)
    assert n_visits(folder) > measured  # the networks found
    assert (folder / "supernet" / "loss.csv").read_text().startswith(losses)
    return folder


def test_it_leaves_models_networks_and_a_report(finished: Path) -> None:
    results = Results.load(finished / "results.json")
    assert {model.kind for model in results.models} == {"table", "mlp", "linear", "macs"}
    assert len(results.found) == 2 * len(QUICK.budget_quantiles)
    for one in results.found:
        assert one.upper_ms <= one.budget_ms
        assert one.measured_ms > 0
    table = load_latency_model((finished / "table.json").read_bytes())
    assert table.target.name == "this-machine"
    report = (finished / "report.html").read_text()
    assert all(one.onnx_file in report for one in results.found)
    assert set(results.step_seconds) >= {"profile", "train", "label", "search", "verify"}


def test_the_exported_network_is_as_accurate_as_results_say(finished: Path) -> None:
    found = Results.load(finished / "results.json").found[0]
    space = get_space(QUICK.space)
    session = onnxruntime.InferenceSession(finished / found.onnx_file)
    arch = space.arch_from_json((finished / found.onnx_file).with_suffix(".arch.json").read_text())
    assert list(arch.genes) == found.genes
    data = digits_data(
        QUICK.seed,
        train_copies=QUICK.train_copies,
        validation_copies=QUICK.validation_copies,
        test_copies=QUICK.test_copies,
    )

    def classify(images: torch.Tensor) -> torch.Tensor:
        rows = [session.run(None, {"input": image[None].numpy()})[0] for image in images]
        return torch.cat([torch.from_numpy(row) for row in rows])

    resolution = space.network(arch).input_shape[-1]
    accuracy = classifier_accuracy(classify, data.test, resolution)
    assert accuracy == pytest.approx(found.measured_accuracy, abs=1.5 / len(data.test))


def test_another_run_measures_trains_and_searches_nothing_again(finished: Path) -> None:
    kept = ["supernet/loss.csv", "supernet/labels.json", "seconds.json"]
    kept += [f"networks/{path.name}" for path in (finished / "networks").iterdir()]
    before = {name: (finished / name).read_bytes() for name in kept}
    visits, results = n_visits(finished), Results.load(finished / "results.json")
    finish(finished)
    assert n_visits(finished) == visits
    assert {name: (finished / name).read_bytes() for name in kept} == before
    assert without_search_seconds(Results.load(finished / "results.json")) == (
        without_search_seconds(results)
    )


def test_its_errors_are_those_that_the_coordinator_wrote_into_the_table(finished: Path) -> None:
    table = load_latency_model((finished / "table.json").read_bytes())
    assert isinstance(table, LookupTable)
    assert table.validation is not None
    # The file rounds its entries to nanoseconds, so the table in it differs in the sixth figure.
    told = {model.kind: model for model in Results.load(finished / "results.json").models}
    assert told["table"].mape == pytest.approx(table.validation.mape, rel=1e-4)
    assert told["table"].spearman == pytest.approx(table.validation.spearman, abs=1e-6)


def test_the_benchmark_reads_it(finished: Path, repository: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [
            *(sys.executable, str(repository / "bench" / "loop.py"), str(finished)),
            *("--json", str(figures)),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode in (0, 1), done.stderr
    assert len(json.loads(figures.read_text())["figures"]) > 20


def test_other_settings_are_refused_before_anything_starts(finished: Path) -> None:
    done = subprocess.run(
        [arg for arg in command(finished) if arg != "--quick"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "begun with other settings (n_training_networks 40, not 160)" in line
    assert done.stdout == ""


def test_a_killed_quickstart_takes_its_fleet_along(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "results"
    with quickstart(folder) as process:
        read_until(process, "visits/s")
        fleet = children(process.pid)
        assert len(fleet) == 2
        os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 30
        while any(map(is_alive, fleet)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(map(is_alive, fleet))
    visits = n_visits(folder)
    assert visits > 0
    with quickstart(folder) as process:
        said = read_until(process, "measuring")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert "measuring 0/" not in said
    assert n_visits(folder) >= visits
