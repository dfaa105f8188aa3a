"""A table from chains of ops, measured by a real agent under onnxruntime."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from latlas.lab import Lab, connect
from latlas.quickstart.measuring import await_device
from latlas.quickstart.processes import exclusive, fleet
from latlas.records import Sampling
from latlas_latency.table import LookupTable
from latlas_ops import get_space

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the fleet needs Linux"),
]

START_S = 60.0
MOST_MAPE = 0.1
"""Far beyond what is measured in quiet; a busy machine is to pass as well."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("chained")
    with (
        exclusive(folder, sys.stderr) as lock,
        fleet(folder / "fleet", lock) as members,
        connect(members.grpc, wait_s=START_S) as opened,
    ):
        await_device(opened, members)
        yield opened


def test_chains_predict_whole_networks(lab: Lab) -> None:
    lab.add_target("here", threads=1, cores=(max(os.sched_getaffinity(0)),))
    lab.start_profile(
        "chains",
        "digits",
        "here",
        n_training_networks=0,
        n_calibration_networks=8,
        n_validation_networks=12,
        min_occurrences=1,
        method="chained",
        sampling=Sampling(3, warmup_runs=1, min_runs=2, min_duration_ns=4_000_000),
    )
    *_, last = lab.watch("chains")
    assert last.state == "finished"
    assert not last.failed
    assert {row.mode for row in lab.measurements("chains")} == {"plain"}
    info = lab.build_table("chained", "chains")
    assert info.calibrated
    assert info.n_entries == len(get_space("digits").slot_entries.ops)
    assert info.validation is not None
    assert info.validation.mape < MOST_MAPE
    assert info.validation.spearman > 0.9
    table = lab.latency_model("chained")
    assert isinstance(table, LookupTable)
    assert table.method == "chained"
    assert b"# measured in chains" in lab.export("chained", "csv")[0]
