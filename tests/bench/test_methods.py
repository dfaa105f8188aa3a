"""The comparison of methods: what it measures, and what its table and JSON hold."""

import dataclasses
import json
import os
from collections import Counter

import pytest

from latlas_coordinator.domain import Role
from latlas_latency.measurement import PLAIN, PROFILED
from latlas_ops import get_space


@pytest.fixture(scope="module")
def methods(bench_module):
    return bench_module("methods")


@pytest.fixture
def own_cores():
    """The benchmark confines its process to one core."""
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


def test_whole_networks_are_measured_once_for_all_methods(methods):
    space = get_space("digits")
    items = methods.planned(space, methods.QUICK)
    counts = Counter((item.role, item.mode) for item in items)
    assert counts[Role.COVER, PLAIN] == counts[Role.COVER, PROFILED] >= 27
    assert counts[Role.ALONE, PLAIN] == len(space.slot_entries.ops)
    assert counts[Role.CHAIN, PLAIN] > 2 * len(space.slot_entries.ops)
    assert counts[Role.CALIBRATION, PLAIN] == methods.QUICK.n_calibration
    assert len(counts) == 6


@pytest.mark.slow
def test_every_method_is_judged_on_the_same_networks(
    methods, tmp_path, capsys, monkeypatch, own_cores
):
    amounts = dataclasses.replace(methods.QUICK, n_unseen=5, min_duration_ns=500_000)
    monkeypatch.setattr(methods, "QUICK", amounts)
    record = tmp_path / "figures.json"
    arguments = ["--space", "nas-bench-201", "--quick", "--json", str(record)]
    assert methods.main(arguments) in (0, 1)
    shown = {one["name"]: one for one in json.loads(record.read_text())["figures"]}
    assert shown["unseen networks"]["value"] == 5
    for method in ("in-situ", "chained", "alone"):
        assert shown[f"{method}: entries"]["value"] == 40
        assert shown[f"{method}: device time"]["value"] > 0
        # A bar where the method is to be relied on.
        assert (shown[f"{method}: MAPE"]["bar"] is None) == (method == "alone")
    assert "chained: MAPE" in capsys.readouterr().out


def test_a_space_that_is_not_there_gives_nothing_to_judge(methods, capsys):
    assert methods.main(["--space", "moon"]) == 2
    assert "no search space 'moon'" in capsys.readouterr().err
