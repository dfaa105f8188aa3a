"""`bench/runtimes.py`: that its table is complete, that the page says it, and that it is true."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from latlas_ops.errors import InvalidInputError
from latlas_ops.kinds import KINDS


@pytest.fixture(scope="module")
def agreement(bench_module: Callable[[str], ModuleType]) -> ModuleType:
    pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    return bench_module("_agreement")


@pytest.fixture(scope="module")
def runtimes(agreement: ModuleType, bench_module: Callable[[str], ModuleType]) -> ModuleType:
    return bench_module("runtimes")


@pytest.fixture(scope="module")
def page(runtimes: ModuleType) -> dict[str, list[list[str]]]:
    """The rows of the tables of docs/agreement.md, heading first, by precision."""
    text: str = runtimes.PAGE.read_text(encoding="utf-8")
    found = {}
    for section in text.split("\n## ")[1:]:
        name, *lines = section.splitlines()
        rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
        found[name] = [row for row in rows if row[0] != "---"]
    return found


def test_every_kind_has_an_example(agreement: ModuleType) -> None:
    assert [kind for kind in agreement.kinds() if not agreement.examples(kind)] == []
    assert set(agreement.kinds()) == set(KINDS)


def test_the_page_has_every_kind_and_runtime(
    agreement: ModuleType, page: dict[str, list[list[str]]]
) -> None:
    assert list(page) == [precision.name for precision in agreement.PRECISIONS]
    for precision in agreement.PRECISIONS:
        heading, *rows = page[precision.name]
        assert heading[1:] == [
            column.runtime.title for column in agreement.columns() if column.precision == precision
        ]
        assert [row[0].strip("`") for row in rows] == list(KINDS), (
            "docs/agreement.md is out of date; write it again: python bench/runtimes.py --docs"
        )


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_page_says_of_a_kind_is_true(
    agreement: ModuleType, page: dict[str, list[list[str]]], kind: str, precision: str
) -> None:
    if precision == "int8":
        pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed")
    for column in agreement.columns(slow=False):
        if column.precision.name != precision:
            continue
        heading, *rows = page[column.precision.name]
        stated = {row[0].strip("`"): row for row in rows}[kind][heading.index(column.runtime.title)]
        cell = agreement.measure(kind, column)
        if not stated.startswith("**"):  # what stands out may have got better since
            shown = agreement.in_words(cell, column, {})
            assert shown.partition(" (")[0] == stated.partition(" (")[0], f"{column.title}: {cell}"


def test_a_kind_without_example_and_a_program_that_cannot_be_written_are_told(
    agreement: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(network: object, batch: int) -> bytes:
        raise InvalidInputError("no such thing in this format")

    column = agreement.Column(
        agreement.Precision("fp16", {"onnx": 1.0}, {"onnx": refuse}), agreement.RUNTIMES[0]
    )
    cell = agreement.measure("conv", column)
    assert (cell.error, cell.reason) == (None, "no such thing in this format")
    assert agreement.in_words(cell, column, {}) == "no (1)"
    monkeypatch.setattr(agreement, "EXAMPLES", {})
    assert "no example" in agreement.measure("conv", column).reason


def test_an_error_beyond_the_bound_stands_out(agreement: ModuleType) -> None:
    (column, *_) = agreement.columns()
    assert agreement.in_words(agreement.Cell(2e-6), column, {}) == "≤ 2e-6"
    assert agreement.in_words(agreement.Cell(3e-6), column, {}) == "**3e-6**"


def test_errors_are_shares_of_the_largest_output(agreement: ModuleType) -> None:
    expected = np.array([[1.0, -4.0]])
    assert agreement.relative_error(np.array([[1.5, -4.0]]), expected) == pytest.approx(0.125)
    assert agreement.relative_error(np.zeros((1, 2)), np.zeros((1, 2))) == 0
    assert agreement.relative_error(np.zeros((2, 1)), expected) == math.inf
    assert agreement.relative_error(np.full_like(expected, math.nan), expected) == math.inf


def test_an_environment_is_weighed_and_loads_nothing_heavy(
    bench_module: Callable[[str], ModuleType], agent_environment: Path
) -> None:
    found = bench_module("_environments").look_at(agent_environment.parent)
    assert found.heavy == ()
    assert found.mebibytes > 10
    assert found.start_ms > 0


@pytest.mark.slow
def test_quick_says_what_it_leaves_out(
    runtimes: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtimes, "install", lambda _: runtimes.Installed(1.0, 1.0, ("torch",)))
    record = tmp_path / "figures.json"
    assert runtimes.main(["--quick", "--json", str(record)]) == 1
    out = capsys.readouterr().out
    assert "environment agent with torch: left out, --quick" in out
    assert "compiled torch: left out, --quick" in out
    shown = {one["name"]: one for one in json.loads(record.read_text())["figures"]}
    assert shown["kinds without an example"]["holds"]
    assert shown["environment agent alone: heavy modules loaded"]["holds"] is False
    errors = [one for name, one in shown.items() if name.endswith("fp32: largest error")]
    assert len(errors) == 5
    assert all(one["holds"] for one in errors)
