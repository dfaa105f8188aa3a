"""The comparison of equal and slower programs: what it measures, and what it shows."""

import dataclasses
import json
import os

import pytest


@pytest.fixture(scope="module")
def compare(bench_module):
    return bench_module("compare")


@pytest.fixture
def own_cores():
    """The benchmark confines its process to one core."""
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


def test_every_comparison_is_judged_as_it_is_and_slower(
    compare, tmp_path, capsys, monkeypatch, own_cores
):
    few = dataclasses.replace(compare.QUICK, n_comparisons=2, n_rounds=8, min_duration_ns=500_000)
    monkeypatch.setattr(compare, "QUICK", few)
    record = tmp_path / "figures.json"
    assert compare.main(["--quick", "--json", str(record)]) in (0, 1)
    shown = {one["name"]: one for one in json.loads(record.read_text())["figures"]}
    assert shown["comparisons"]["value"] == 2
    assert (
        shown["equal programs that fail"]["bar"],
        shown["equal programs that fail"]["unit"],
    ) == (
        1.0,
        "%",
    )
    assert shown["programs 5 % slower that fail"]["direction"] == "at least"
    assert "width of the interval, median" in capsys.readouterr().out


def test_equal_ratios_pass_and_slower_ones_fail(compare):
    visits = [compare.VisitTail(number, "board", 9, 100.0, 110.0, 120.0) for number in range(20)]
    slower = [compare._slowed(visit) for visit in visits]
    assert compare.judge(compare.REQUIREMENT, visits, visits).verdict is compare.Verdict.PASS
    assert compare.judge(compare.REQUIREMENT, slower, visits).verdict is compare.Verdict.FAIL
