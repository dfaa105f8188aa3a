"""The parts of the quickstart that need no device: its clock, its folder, its budgets and words."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from latlas.cli.main import main
from latlas.quickstart.clock import StepClock
from latlas.quickstart.measuring import round_matrix
from latlas.quickstart.processes import exclusive
from latlas.quickstart.results import Front
from latlas.quickstart.searching import Search, budgets_ms, fronts
from latlas.quickstart.settings import QUICK, QuickstartSettings, claim_folder
from latlas.quickstart.telling import tell_fronts
from latlas.records import Measurement, VisitSummary
from latlas_nas.search.result import Candidate, Constraint, SearchResult
from latlas_ops.errors import ConflictError, InvalidInputError
from latlas_ops.space import ArchConfig


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_an_interrupted_step_counts_on_and_a_finished_one_no_more(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "seconds.json"
    steps = StepClock(path, clock)
    with steps.step("profile"):
        clock.now_s += 60
    with contextlib.suppress(KeyboardInterrupt), steps.step("train"):
        clock.now_s += 30
        raise KeyboardInterrupt
    again = StepClock(path, clock)
    for _ in range(2):
        with again.step("profile"):
            clock.now_s += 2
        with again.step("train"):
            clock.now_s += 100
    assert again.seconds == {"profile": 60, "train": 130}
    assert StepClock(path, clock).seconds == again.seconds


def test_a_step_that_is_killed_loses_no_more_than_what_follows_its_last_tick(
    tmp_path: Path,
) -> None:
    clock, path = Clock(), tmp_path / "seconds.json"
    with StepClock(path, clock).step("train"):
        pass
    killed = StepClock(path, clock)
    step = killed.step("label")
    step.__enter__()
    for _ in range(10):
        clock.now_s += 7
        killed.tick()
    clock.now_s += 1
    assert StepClock(path, clock).seconds == {"train": 0, "label": 70}


def test_seconds_that_are_no_seconds_are_named(tmp_path: Path) -> None:
    path = tmp_path / "seconds.json"
    path.write_text('{"seconds": 3}')
    with pytest.raises(InvalidInputError, match=r"seconds\.json does not hold .*; remove it"):
        StepClock(path)


def test_a_folder_that_cannot_be_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        expected = f"cannot keep a quickstart in {folder}: .*; give another --folder"
        with pytest.raises(InvalidInputError, match=expected), exclusive(folder, io.StringIO()):
            pass


def test_the_quickstart_says_where_it_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert main(["quickstart"]) == 2
    assert "the quickstart runs on Linux, not on darwin" in capsys.readouterr().err


def test_a_folder_keeps_the_settings_it_was_begun_with(tmp_path: Path) -> None:
    assert claim_folder(tmp_path, QUICK, core=3) == 3
    before = (tmp_path / "settings.json").read_bytes()
    assert claim_folder(tmp_path, QUICK, core=1) == 3
    with pytest.raises(ConflictError, match=r"\(seed 0, not 1\); repeat the command"):
        claim_folder(tmp_path, dataclasses.replace(QUICK, seed=1), core=3)
    assert (tmp_path / "settings.json").read_bytes() == before


def test_a_folder_of_another_version_of_the_space_is_refused(tmp_path: Path) -> None:
    claim_folder(tmp_path, QUICK, core=0)
    path = tmp_path / "settings.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "space_version": 1}))
    with pytest.raises(ConflictError, match="space_version 1, not 2"):
        claim_folder(tmp_path, QUICK, core=0)


def test_a_folder_without_settings_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "fleet").mkdir()
    with pytest.raises(ConflictError, match="begun by another version of Latlas"):
        claim_folder(tmp_path, QuickstartSettings(), core=0)
    assert not (tmp_path / "settings.json").exists()


def test_budgets_are_quantiles_in_hundredths_of_a_millisecond() -> None:
    assert budgets_ms(np.array([1.0, 2.0, 3.0, 4.0, 5.004]), (0.25, 0.5, 1.0)) == [2.0, 3.0, 5.0]


def search(kind: str, *points: tuple[float, float]) -> Search:
    arch = ArchConfig("digits", 2, (0,))
    front = tuple(Candidate(arch, accuracy, ms, ms, ms) for ms, accuracy in points)
    result = SearchResult("evolution", "t", Constraint(9.0), front[:1], front, (), 1, 1)
    return Search(9.0, kind, result, result, 0.0)


def test_the_front_of_a_model_joins_those_of_its_searches() -> None:
    table, mlp = fronts(
        [
            search("table", (1.0, 0.8), (2.0, 0.85)),
            search("mlp", (1.5, 0.7)),
            search("table", (1.8, 0.9), (3.0, 0.95)),
        ]
    )
    assert table == Front("table", [1.0, 1.8, 3.0], [0.8, 0.9, 0.95])
    assert mlp == Front("mlp", [1.5], [0.7])


def test_a_long_front_is_told_by_its_ends_and_a_few_between() -> None:
    stream = io.StringIO()
    many = [1 + index / 100 for index in range(100)]
    tell_fronts([Front("table", many, many), Front("mlp", [1.25], [0.5])], stream)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "  Pareto front with the lookup table, 100 networks"
    assert lines[1].split() == ["ms", "1.00", "1.20", "1.40", "1.59", "1.79", "1.99"]
    assert lines[4].split() == ["ms", "1.25"]


def test_a_round_without_a_visit_or_with_one_that_is_left_out_is_unknown() -> None:
    def row(*visits: VisitSummary) -> Measurement:
        return Measurement("t", "network", "validation", "plain", "net:1", (), visits)

    first = row(VisitSummary(0, "b1", 0, 10, 3), VisitSummary(2, "b1", 0, 12, 3))
    second = row(VisitSummary(0, "b1", 0, 20, 3), VisitSummary(1, "b1", 0, 99, 3, left_out=True))
    np.testing.assert_array_equal(
        round_matrix([first, second, row()]),
        [[10, np.nan, 12], [20, np.nan, np.nan], [np.nan] * 3],
    )
