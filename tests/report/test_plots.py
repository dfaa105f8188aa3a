"""Plots are inline SVG in the page's own colours."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from xml.etree import ElementTree

import matplotlib
import pytest

from latlas.quickstart.results import Results
from latlas.report import plots
from latlas_ops.opspec import OpSpec


@pytest.fixture(scope="module")
def drawn(results: Results) -> dict[str, str]:
    return {
        "latency": plots.latency_scatter(results, results.models[0]),
        "front": plots.pareto_front(results, narrow=False),
        "front-narrow": plots.pareto_front(results, narrow=True),
        "accuracy": plots.accuracy_scatter(results),
        "training": plots.training_curve(results),
        "ops": plots.op_breakdown(results.breakdowns[0], "ops"),
    }


def _words(svg: str) -> str:
    return " ".join(ElementTree.fromstring(svg).itertext())


def test_every_plot_is_well_formed_and_described(drawn: dict[str, str]) -> None:
    for svg in drawn.values():
        root = ElementTree.fromstring(svg)
        assert root.tag == "svg"
        assert root.attrib["aria-label"]


def test_no_colour_is_fixed_against_dark_mode(drawn: dict[str, str]) -> None:
    for svg in drawn.values():
        assert not re.findall(r"#[0-9a-f]{6}", svg)
        assert "var(--ink)" in svg


def test_axes_carry_units(drawn: dict[str, str]) -> None:
    assert "Measured (ms)" in _words(drawn["latency"])
    assert "Latency (ms)" in _words(drawn["front"])
    assert "Accuracy (%)" in _words(drawn["front"])
    assert "Latency by the table (µs)" in _words(drawn["ops"])


def test_tick_labels_keep_all_their_digits(results: Results) -> None:
    values = [1 + 1e-3 * index for index in range(5)]
    model = dataclasses.replace(
        results.models[0],
        measured_ms=values,
        predicted_ms=values,
        lower_ms=values,
        upper_ms=values,
    )
    svg = plots.latency_scatter(dataclasses.replace(results, models=[model]), model)
    assert "1.001" in _words(svg)


def test_ids_are_unique_across_the_page(drawn: dict[str, str]) -> None:
    ids = [found for svg in drawn.values() for found in re.findall(r'\bid="([^"]+)"', svg)]
    assert len(set(ids)) == len(ids)


def test_budgets_and_phases_are_named(drawn: dict[str, str], results: Results) -> None:
    for one in results.found:
        assert f"{one.budget_ms:.2f} ms" in _words(drawn["front"])
    for phase, _, _ in results.supernet.curve:
        assert phase in _words(drawn["training"])


def test_drawing_leaves_the_settings_of_matplotlib_alone(results: Results) -> None:
    before = dict(matplotlib.rcParams)
    plots.accuracy_scatter(results)
    assert dict(matplotlib.rcParams) == before


def test_an_op_is_labelled_by_what_distinguishes_it() -> None:
    op = OpSpec.of(
        "mbconv",
        (24, 12, 12),
        out_channels=40,
        expanded_channels=96,
        kernel=5,
        stride=2,
        se_channels=24,
    )
    assert plots.op_label(op.key) == "mbconv 24→40 k5 (96) /2 SE @12"
    assert plots.op_label("layer <1>") == "layer <1>"
    assert len(plots.op_label("x" * 90)) < 40


def test_importing_the_page_loads_no_matplotlib() -> None:
    code = "import sys, latlas.report.page; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
