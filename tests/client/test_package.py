"""`import latlas` is light, and every name it promises is there."""

import subprocess
import sys

import pytest

import latlas


def test_importing_latlas_loads_nothing_heavy():
    code = "import sys, latlas; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "latlas" in modules
    heavy = {"numpy", "grpc", "google.protobuf", "torch", "sqlalchemy", "onnx", "sklearn"}
    assert not heavy & set(modules)


def test_the_door_to_a_lab_needs_no_optional_package():
    code = "import sys, latlas; latlas.connect; latlas.load_latency_model; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"latlas.lab", "numpy", "grpc"} <= set(modules)
    optional = {"torch", "sqlalchemy", "onnx", "onnxruntime", "sklearn", "safetensors", "nicegui"}
    assert not optional & set(modules)


def test_every_promised_name_is_there():
    assert set(latlas.__all__) == {"__version__", *latlas._HOME_OF}
    for name in latlas.__all__:
        assert getattr(latlas, name) is not None
    assert set(latlas.__all__) <= set(dir(latlas))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'latlas' has no attribute 'nonsense'"):
        latlas.nonsense  # noqa: B018
