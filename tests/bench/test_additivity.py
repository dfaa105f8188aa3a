"""The additivity benchmark on a small space: real processes, and figures from what they left."""

import dataclasses
import json

import pytest


@pytest.fixture(scope="module")
def additivity(bench_module):
    return bench_module("additivity")


@pytest.fixture(scope="module")
def small(additivity):
    """Just enough to go through every step."""
    return dataclasses.replace(
        additivity.QUICK,
        space="digits",
        n_random=4,
        n_selected=3,
        n_calibration=6,
        min_duration_ns=1_000_000,
        n_revalidations=1,
    )


@pytest.mark.slow
def test_a_session_is_measured_once_and_judged_as_often_as_one_likes(
    additivity, small, bench_module, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(additivity, "QUICK", small)
    record = tmp_path / "figures.json"
    code = additivity.main([str(tmp_path / "runs"), "--quick", "--json", str(record)])
    assert code in (0, 1)
    out = capsys.readouterr().out
    assert "ALL, session-1: table" in out
    assert "networks found by search" in out
    figures = {one["name"]: one for one in json.loads(record.read_text())["figures"]}
    assert figures["ALL, session-1: networks"]["value"] == 7
    assert figures["ALL, session-1: MAPE"]["bar"] >= 1.5
    assert "valid, nothing changed, of 1" in figures

    again = tmp_path / "again.json"
    assert additivity.main([str(tmp_path / "runs"), "--figures-only", "--json", str(again)]) == code
    assert "visits/s" not in capsys.readouterr().out
    assert json.loads(again.read_text()) == json.loads(record.read_text())

    part = tmp_path / "interpolation.json"
    interpolation = bench_module("interpolation")
    assert interpolation.main([str(tmp_path / "runs"), "--json", str(part)]) in (0, 1)
    figures = {one["name"]: one for one in json.loads(part.read_text())["figures"]}
    assert figures["ALL, session-1, measured at 32 and 48: MAPE"]["value"] > 0


def test_without_a_session_there_is_nothing_to_judge(additivity, tmp_path, capsys):
    assert additivity.main([str(tmp_path), "--figures-only"]) == additivity.EXIT_UNUSABLE
    assert "holds no finished session" in capsys.readouterr().err
