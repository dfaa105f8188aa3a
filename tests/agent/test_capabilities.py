from __future__ import annotations

import logging
import sys

import onnxruntime
import pytest

from latlas_agent.capabilities import probe_runtimes
from latlas_agent.runtimes import load_runtime, registry
from latlas_ops.errors import RuntimeUnavailableError


def test_built_in_and_installed_runtimes_are_found(worker_environment: dict[str, str]) -> None:
    found = {c.runtime: c for c in probe_runtimes(worker_environment)}
    assert set(found) >= {"onnxruntime"}
    assert found["onnxruntime"].version == onnxruntime.__version__
    assert found["onnxruntime"].program_formats == ("onnx",)


def test_a_runtime_that_dies_when_it_is_used_is_not_offered(
    worker_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.syspath_prepend(worker_environment["PYTHONPATH"].split(":")[0])
    alive = {c.runtime for c in probe_runtimes(worker_environment)}
    assert alive == {"misbehaving", "onnxruntime", "litert", "torch"}
    with caplog.at_level(logging.INFO):
        dead = probe_runtimes({**worker_environment, "MISBEHAVING_PROBE": "die"})
    assert {c.runtime for c in dead} == {"onnxruntime", "litert", "torch"}
    assert "runtime misbehaving is not offered: it ends with status 7" in caplog.text


def test_the_registry_names_the_built_in_runtimes() -> None:
    found = registry()
    assert found["onnxruntime"].value == "latlas_agent.runtimes.onnxruntime:OnnxRuntime"
    assert found["litert"].value == "latlas_agent.runtimes.litert:LiteRt"
    assert found["tflite-runtime"].value == "latlas_agent.runtimes.litert:TfliteRuntime"


@pytest.mark.parametrize("package", ["ai_edge_litert", "tflite_runtime"])
def test_each_package_of_the_tflite_family_may_be_missing(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    name = {"ai_edge_litert": "litert", "tflite_runtime": "tflite-runtime"}[package]
    with pytest.raises(RuntimeUnavailableError, match=f"{name!r} cannot be imported"):
        load_runtime(name)


def test_a_runtime_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(RuntimeUnavailableError, match=r"no runtime 'abacus'.*onnxruntime"):
        load_runtime("abacus")


def test_a_runtime_whose_package_is_missing_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeUnavailableError, match="'onnxruntime' cannot be imported"):
        load_runtime("onnxruntime")
