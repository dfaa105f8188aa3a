"""Int8 end to end: a target of its own, programs in int8, a table, and what is refused."""

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
from latlas_ops.errors import TargetMismatchError
from latlas_ops.writers.calibration import drawn_inputs
from latlas_ops.writers.onnx_int8 import quantise_onnx
from latlas_ops.writers.onnx_writer import write_onnx

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the fleet needs Linux"),
]

SPACE = get_space("nas-bench-201")
START_S = 60.0
MOST_MAPE = 0.3
"""Far beyond what is measured in quiet; a busy machine is to pass as well."""


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a coordinator with this machine's agent and the targets `fp32` and `int8`."""
    folder = tmp_path_factory.mktemp("int8")
    core = str(max(os.sched_getaffinity(0)))
    with exclusive(folder, sys.stderr) as lock, fleet(folder / "fleet", lock) as members:
        with connect(members.grpc, wait_s=START_S) as lab:
            await_device(lab, members)
        for precision in ("fp32", "int8"):
            latlas(
                members.grpc,
                *("target", "add", precision, "--precision", precision, "--cores", core),
            )
        yield members.grpc


@pytest.fixture
def lab(coordinator: str) -> Iterator[Lab]:
    with connect(coordinator, wait_s=START_S) as opened:
        yield opened


def latlas(coordinator: str, *arguments: str, status: int = 0) -> None:
    """A command of `latlas` that ends with a status."""
    assert main([*arguments, "--coordinator", coordinator]) == status


def some_network():
    (arch,) = SPACE.archs(SPACE.sample(1, np.random.default_rng(5)))
    return SPACE.network(arch)


def test_a_table_in_int8_predicts_whole_networks(lab: Lab) -> None:
    lab.start_profile(
        "in-int8",
        SPACE.name,
        "int8",
        n_training_networks=0,
        n_calibration_networks=8,
        n_validation_networks=12,
        min_occurrences=1,
        sampling=Sampling(6, warmup_runs=2, min_runs=5, min_duration_ns=15_000_000),
    )
    *_, last = lab.watch("in-int8")
    assert last.state == "finished"
    assert not last.failed
    assert {row.mode for row in lab.measurements("in-int8")} == {"plain", "profiled"}
    info = lab.build_table("table-int8", "in-int8")
    assert info.calibrated
    assert info.validation is not None
    assert info.validation.n_networks == 12
    assert info.validation.mape < MOST_MAPE
    assert info.validation.spearman > 0.9
    table = lab.latency_model("table-int8")
    assert isinstance(table, LookupTable)
    assert table.target.precision == "int8"
    assert not table.missing(SPACE)
    with pytest.raises(TargetMismatchError, match="precision"):
        table.target.require_same(next(target for target in lab.targets() if target.name == "fp32"))


def test_a_model_says_what_was_computed_in_int8(
    coordinator: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = some_network()
    floating = write_onnx(network).model_bytes
    models = {"float": floating, "int8": quantise_onnx(floating, drawn_inputs(network.input_shape))}
    for name, data in models.items():
        (tmp_path / f"{name}.onnx").write_bytes(data)
    latlas(coordinator, "measure", str(tmp_path / "int8.onnx"), "--target", "int8")
    assert " % in int8" in capsys.readouterr().out
    latlas(coordinator, "measure", str(tmp_path / "float.onnx"), "--target", "fp32")
    assert "precision" not in capsys.readouterr().out
    latlas(coordinator, "measure", str(tmp_path / "float.onnx"), "--target", "int8", status=2)
    assert "no node of the program is quantised" in capsys.readouterr().err


def test_a_precision_that_is_not_computed_is_no_target(
    coordinator: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, reason in (
        (("--precision", "fp16"), "on the CPU it casts fp16 to fp32"),
        (("--precision", "int8", "--graph-level", "basic"), "take --graph-level extended or all"),
    ):
        latlas(coordinator, "target", "add", "wrong", *arguments, status=2)
        assert reason in capsys.readouterr().err
