"""The report page: self-contained, honest, the same bytes for the same results."""

from __future__ import annotations

import dataclasses
import html
import json
import os
import re
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from latlas.quickstart.results import Results
from latlas.report.page import report_html, write_report

MOST_BYTES = 1_500_000
PHONE_WIDTH = 400
N_PLOTS = 4 + 2 + 2 + 3
"""Latency models; variants of the front, one of them visible; accuracy, training; breakdowns."""


@pytest.fixture(scope="module")
def page(results: Results) -> str:
    return report_html(results)


class _Words(HTMLParser):
    """Collects the visible text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("a", "code", "strong"):
            self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data


def _words(page: str) -> str:
    parser = _Words()
    parser.feed(page[page.index("<body>") :])
    return " ".join(parser.text.split())


def test_needs_nothing_from_anywhere(page: str) -> None:
    assert not re.findall(r"https?:|//[a-z]|@import|<link|<script|<img|url\((?!#)", page)
    assert len(page.encode()) < MOST_BYTES


def test_equal_results_give_equal_bytes(results: Results, page: str, tmp_path: Path) -> None:
    results.save(tmp_path / "results.json")
    write_report(Results.load(tmp_path / "results.json"), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == page.encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "results.json"]


def test_says_the_headline_in_words(results: Results, page: str) -> None:
    words = _words(page)
    table = results.models[0]
    assert f"Latency on {results.device.device_model}" in words
    assert "this-machine" in words
    assert (
        f"predicts 40 networks it has never seen within {100 * table.mape:.1f} % on average"
    ) in words
    assert "agree within 1.2 %: the label noise" in words
    assert "All 6 networks found by the search kept their latency budget on the device." in words
    assert "checks hold." in words


def test_shows_every_model_and_every_found_network(results: Results, page: str) -> None:
    words = _words(page)
    for name in ("Lookup table", "MLP predictor", "Linear baseline", "MACs baseline"):
        assert name in words
    for model in results.models:
        assert f"{100 * model.max_error:.1f} %" in words
        assert f"{model.r2:.3f}" in words
    for one in results.found:
        assert one.onnx_file in words
        assert f"{one.predicted_ms:.2f} ms {one.lower_ms:.2f} to {one.upper_ms:.2f}" in words
        assert f"{one.measured_ms:.2f} ms" in words
        assert f"{100 * one.random_accuracy:.1f} %" in words
    assert "latlas quickstart" in words
    assert "python bench/loop.py quickstart" in words


def test_a_network_over_its_budget_is_told_plainly(results: Results) -> None:
    first = results.found[0]
    over = dataclasses.replace(first, measured_ms=1.05 * first.budget_ms)
    words = _words(report_html(dataclasses.replace(results, found=[over, *results.found[1:]])))
    assert "5 of 6 networks found by the search kept their latency budget" in words
    assert "at 1.60 ms with the lookup table the device took 1.68 ms" in words
    assert "✗ no, 5.0 % above" in words
    assert "1 check of 20 does not hold: measured latency at 1.60 ms" in words


def test_text_is_escaped(results: Results) -> None:
    mean = "<b>\"&'$x$</b>"
    device = dataclasses.replace(
        results.device,
        device_model=mean,
        operating_system=mean,
        target={**results.device.target, "name": mean, "provider": mean},
    )
    hostile = dataclasses.replace(
        results,
        device=device,
        found=[dataclasses.replace(one, description=mean, onnx_file=mean) for one in results.found],
        breakdowns=[
            dataclasses.replace(
                row, ops=[dataclasses.replace(op, op=mean, kind=mean) for op in row.ops]
            )
            for row in results.breakdowns
        ],
        supernet=dataclasses.replace(
            results.supernet, curve=[(mean, step, loss) for _, step, loss in results.supernet.curve]
        ),
        step_seconds={mean: 1.0},
    )
    page = report_html(hostile)
    assert "<b>" not in page
    assert html.escape(mean) in page


def test_in_a_browser_the_plots_are_there_and_nothing_is_wider_than_a_phone(
    page: str, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    chromium = require_tool("chromium")
    probe = """
        const page = document.querySelector("iframe").contentDocument;
        const width = page.documentElement.clientWidth;
        const mayStickOut = (e) => e.closest(".scroll, svg, thead") !== null;
        document.body.textContent = JSON.stringify({
          width, scrollWidth: page.documentElement.scrollWidth,
          plots: page.querySelectorAll("svg.plot").length,
          visible: [...page.querySelectorAll("svg.plot")].filter(
              (e) => e.getBoundingClientRect().height > 100).length,
          wide: [...page.body.querySelectorAll("*")].filter(
              (e) => !mayStickOut(e) && e.getBoundingClientRect().right > width + 0.5
          ).map((e) => e.tagName + ":" + e.textContent.slice(0, 40)),
        });"""
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<body><iframe style="border: 0" width="{PHONE_WIDTH}" height="800" '
        f'onload="{html.escape(probe)}" srcdoc="{html.escape(page)}"></iframe></body>'
    )
    finished = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": str(tmp_path)},
        check=True,
    )
    match = re.search(r"\{.*\}", finished.stdout, re.DOTALL)
    assert match, finished.stdout[:500]
    seen = json.loads(html.unescape(match[0]))
    assert seen["wide"] == []
    assert seen["width"] == seen["scrollWidth"] == PHONE_WIDTH
    assert seen["plots"] == N_PLOTS
    assert seen["visible"] == N_PLOTS - 1
