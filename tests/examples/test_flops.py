"""The example beside the page on FLOPs and latency: equal MACs, measured, a page with plots."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest


@pytest.fixture(scope="module")
def flops(repository: Path) -> ModuleType:
    pytest.importorskip("matplotlib", reason="matplotlib, which the example draws with, is missing")
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert, which writes models, is missing")
    path = repository / "examples" / "flops_are_not_latency.py"
    spec = importlib.util.spec_from_file_location("flops_are_not_latency", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("quick", [True, False])
def test_the_networks_of_a_pair_have_equal_macs(flops: ModuleType, quick: bool) -> None:
    for pair in flops.pairs(quick):
        assert pair.second.macs == pytest.approx(pair.first.macs, rel=flops.TOLERANCE)
        assert len(pair.second.network.ops) < len(pair.first.network.ops)


def test_a_pair_that_differs_in_macs_is_refused(flops: ModuleType) -> None:
    with pytest.raises(ValueError, match="apart in MACs"):
        flops.Pair("depthwise", flops.stack(49, 3), flops.stack(10, 7))


@pytest.mark.slow
def test_it_measures_a_target_of_this_machine(
    flops: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "flops.html"
    arguments = ["--quick", "--target", "onnxruntime", "--output", str(page)]
    assert flops.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("onnxruntime ") and " to " in line]
    assert len(rows) == len(flops.pairs(quick=True))
    text = page.read_text()
    assert all(row.replace("<", "&lt;") in text for row in rows)
    svg = text[text.index("<svg") : text.index("</svg>") + len("</svg>")]
    assert ElementTree.fromstring(svg).tag == "svg"
    assert "var(--table)" in svg
    assert "--table:" in text


def test_a_runtime_that_is_not_here_is_named(
    flops: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flops.main(["--quick", "--target", "tensorrt", "--output", str(tmp_path / "x")]) == 2
    assert "not here: tensorrt; here: " in capsys.readouterr().err


def test_a_coordinator_that_does_not_answer_is_named(
    flops: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flops.main(["--quick", "--coordinator", "127.0.0.1:9", "--target", "x"]) == 2
    assert "127.0.0.1:9" in capsys.readouterr().err
