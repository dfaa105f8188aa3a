"""The parts of the quickstart that need no device: its clock, its folder, its budgets and words."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from pathlib import Path

import pytest

from latlas.quickstart.clock import StepClock
from latlas.quickstart.results import Front
from latlas.quickstart.searching import Search, budgets_ms, fronts
from latlas.quickstart.settings import QUICK, QuickstartSettings, claim_folder
from latlas.quickstart.telling import tell_fronts
from latlas_nas.search.result import Candidate, Constraint, SearchResult
from latlas_ops.errors import ConflictError
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


def test_a_folder_keeps_the_settings_it_was_begun_with(tmp_path: Path) -> None:
    claim_folder(tmp_path, QUICK)
    before = (tmp_path / "settings.json").read_bytes()
    claim_folder(tmp_path, QUICK)
    with pytest.raises(ConflictError, match=r"\(seed 0, not 1\); repeat the command"):
        claim_folder(tmp_path, dataclasses.replace(QUICK, seed=1))
    assert (tmp_path / "settings.json").read_bytes() == before


def test_a_folder_of_another_version_of_the_space_is_refused(tmp_path: Path) -> None:
    claim_folder(tmp_path, QUICK)
    path = tmp_path / "settings.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "space_version": 1}))
    with pytest.raises(ConflictError, match="space_version 1, not 2"):
        claim_folder(tmp_path, QUICK)


def test_a_folder_without_settings_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "fleet").mkdir()
    with pytest.raises(ConflictError, match="begun by another version of Latlas"):
        claim_folder(tmp_path, QuickstartSettings())
    assert not (tmp_path / "settings.json").exists()


def test_budgets_are_quantiles_in_hundredths_of_a_millisecond() -> None:
    assert budgets_ms([1.0, 2.0, 3.0, 4.0, 5.004], (0.25, 0.5, 1.0)) == [2.0, 3.0, 5.0]


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
    assert lines[0] == "  Pareto front with the calibrated table, 100 networks"
    assert lines[1].split() == ["ms", "1.00", "1.20", "1.40", "1.59", "1.79", "1.99"]
    assert lines[4].split() == ["ms", "1.25"]
