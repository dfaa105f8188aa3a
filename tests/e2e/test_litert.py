"""LiteRT end to end: a table from chains, a program of somebody else's, and what is refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from latlas.cli.main import main
from latlas.lab import Lab, connect
from latlas.quickstart.measuring import await_device
from latlas.quickstart.processes import exclusive, fleet
from latlas.records import Sampling
from latlas_latency.table import LookupTable
from latlas_ops import get_space
from latlas_ops.errors import RuntimeUnavailableError
from latlas_ops.writers.onnx_writer import write_onnx
from latlas_ops.writers.tflite_writer import write_tflite

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the fleet needs Linux"),
]

SPACE = get_space("nas-bench-201")
START_S = 60.0
MOST_MAPE = 0.15
"""Far beyond what is measured in quiet; a busy machine is to pass as well."""


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a coordinator with this machine's agent and the targets `xnn` and `plain`."""
    folder = tmp_path_factory.mktemp("litert")
    core = str(max(os.sched_getaffinity(0)))
    with exclusive(folder, sys.stderr) as lock, fleet(folder / "fleet", lock) as members:
        with connect(members.grpc, wait_s=START_S) as lab:
            await_device(lab, members)
        for name, provider in (("xnn", "xnnpack"), ("plain", "builtin")):
            latlas(
                members.grpc,
                *("target", "add", name, "--runtime", "litert"),
                *("--provider", provider, "--cores", core),
            )
        yield members.grpc


@pytest.fixture
def lab(coordinator: str) -> Iterator[Lab]:
    with connect(coordinator, wait_s=START_S) as opened:
        yield opened


def latlas(coordinator: str, *arguments: str) -> None:
    """A command of `latlas` that succeeds."""
    assert main([*arguments, "--coordinator", coordinator]) == 0


def some_network():
    (arch,) = SPACE.archs(SPACE.sample(1, np.random.default_rng(5)))
    return SPACE.network(arch)


def test_chains_predict_whole_networks(lab: Lab) -> None:
    lab.start_profile(
        "chains",
        SPACE.name,
        "xnn",
        n_training_networks=0,
        n_calibration_networks=8,
        n_validation_networks=12,
        min_occurrences=1,
        sampling=Sampling(3, warmup_runs=1, min_runs=2, min_duration_ns=4_000_000),
    )
    *_, last = lab.watch("chains")
    assert last.state == "finished"
    assert not last.failed
    assert {row.mode for row in lab.measurements("chains")} == {"plain"}
    info = lab.build_table("chained", "chains")
    assert info.calibrated
    assert info.n_entries == len(SPACE.slot_entries.ops)
    assert info.validation is not None
    assert info.validation.mape < MOST_MAPE
    assert info.validation.spearman > 0.9
    table = lab.latency_model("chained")
    assert isinstance(table, LookupTable)
    assert table.method == "chained"
    assert (table.target.runtime, table.target.provider) == ("litert", "xnnpack")


def test_a_model_file_is_measured(coordinator: str, lab: Lab, tmp_path: Path) -> None:
    model = tmp_path / "model.tflite"
    model.write_bytes(write_tflite(some_network()).model_bytes)
    for target in ("xnn", "plain"):
        latlas(
            coordinator,
            *("campaign", "start", f"own-{target}", "--target", target, "--program", str(model)),
        )
        *_, last = lab.watch(f"own-{target}")
        assert last.state == "finished"
        assert not last.failed
        (row,) = lab.measurements(f"own-{target}")
        assert all(visit.median_ns > 0 for visit in row.visits)


def test_a_profile_in_situ_and_a_program_of_another_format_are_refused(lab: Lab) -> None:
    with pytest.raises(RuntimeUnavailableError, match="measure ops in chains instead"):
        lab.start_profile("in-situ", SPACE.name, "xnn", method="in-situ")
    sha256 = lab.upload(write_onnx(some_network()).model_bytes, "onnx")
    with pytest.raises(RuntimeUnavailableError, match="it is onnx, litert loads tflite"):
        lab.start_measure("onnx", "xnn", [(sha256, "model")])
