"""A finished quickstart's folder and the benchmark as a process."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from latlas.quickstart.results import (
    DeviceFacts,
    Found,
    ModelFacts,
    ProfileFacts,
    Results,
    SupernetFacts,
)

Loop = Callable[..., "subprocess.CompletedProcess[str]"]


def _model(kind: str, factor: float) -> ModelFacts:
    """A model that predicts `factor` times the truth, with nothing stated about it."""
    measured_ms = [1 + 0.1 * index for index in range(30)]
    return ModelFacts(
        kind=kind,
        measured_ms=measured_ms,
        predicted_ms=[factor * value for value in measured_ms],
        lower_ms=measured_ms,
        upper_ms=measured_ms,
        mape=0.0,
        max_error=0.0,
        spearman=0.0,
        r2=0.0,
        share_within_5_percent=0.0,
        share_within_10_percent=0.0,
        interval_coverage=0.0,
        interval_level=0.9,
    )


def _found(budget_ms: float, latency_model: str) -> Found:
    return Found(
        budget_ms=budget_ms,
        latency_model=latency_model,
        genes=[0],
        description="",
        predicted_ms=0.97 * budget_ms,
        lower_ms=0.95 * budget_ms,
        upper_ms=0.99 * budget_ms,
        predicted_accuracy=0.95,
        random_accuracy=0.94,
        n_evaluated=1000,
        search_seconds=1.0,
        measured_ms=0.98 * budget_ms,
        measured_accuracy=0.945,
        random_measured_accuracy=0.946,
        onnx_file="network.onnx",
    )


@pytest.fixture
def results() -> Results:
    """A quickstart that holds every bar: table 2 % off, search one point above random."""
    return Results(
        device=DeviceFacts("board", "Linux", {"name": "this-machine"}),
        profile=ProfileFacts(
            n_cover_networks=9,
            n_distinct_ops=100,
            n_training_networks=50,
            n_calibration_networks=10,
            n_validation_networks=30,
            n_rounds=4,
            device_seconds=100.0,
            label_noise=0.01,
            common_mode_free_noise=0.005,
            profiler_us_per_node=4.0,
            unattributed_share=0.0,
        ),
        models=[_model("table", 1.02), _model("mlp", 1.06), _model("macs", 1.2)],
        supernet=SupernetFacts(
            training_seconds=100.0,
            smallest_accuracy=0.85,
            largest_accuracy=0.95,
            n_validation_images=720,
            n_test_images=1000,
            held_out_measured=[0.85, 0.86, 0.9, 0.95],
            held_out_predicted=[0.85, 0.87, 0.89, 0.94],
            curve=[("largest", 0, 2.3)],
        ),
        found=[_found(budget, kind) for budget in (1.0, 2.0, 3.0) for kind in ("table", "mlp")],
        fronts=[],
        breakdowns=[],
        random_latency_ms=[],
        random_accuracy=[],
        session_drift=0.0,
        step_seconds={"profile": 200.0, "train": 220.0},
    )


@pytest.fixture(scope="session")
def bench_module(repository: Path) -> Callable[[str], ModuleType]:
    """`bench_module("additivity")` imports a benchmark, for tests that change what it does."""

    def load(name: str) -> ModuleType:
        folder = str(repository / "bench")
        if folder not in sys.path:
            sys.path.insert(0, folder)
        return importlib.import_module(name)

    return load


@pytest.fixture(scope="session")
def loop(repository: Path) -> Loop:
    """`loop(*arguments)` runs `bench/loop.py`."""

    def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, repository / "bench" / "loop.py", *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=cwd,
        )

    return run
