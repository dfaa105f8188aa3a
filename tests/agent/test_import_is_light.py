from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "ai_edge_litert",
    "fastapi",
    "matplotlib",
    "nicegui",
    "onnx",
    "onnxruntime",
    "pandas",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "tflite_runtime",
    "torch",
    "latlas",
    "latlas_coordinator",
    "latlas_nas",
}
ALLOWED_OUTSIDE_THE_STANDARD_LIBRARY = {
    "google",  # protobuf
    "grpc",
    *("cython_runtime", "grpc_health", "typing_extensions"),  # loaded by grpc where they are there
    "latlas_agent",
    "latlas_latency",
    "latlas_ops",
    "latlas_protos",
    "numpy",
}
SCRIPT = """
import importlib, json, pkgutil, sys
before = set(sys.modules)
import latlas_agent
for module in pkgutil.walk_packages(latlas_agent.__path__, "latlas_agent."):
    importlib.import_module(module.name)
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(loaded)))
"""


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Top-level packages that importing all of the agent loads."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True, timeout=60
    )
    return set(json.loads(done.stdout))


def test_no_runtime_and_nothing_heavy_is_loaded(loaded: set[str]) -> None:
    assert loaded & HEAVY == set()


def test_nothing_but_the_base_dependencies_is_loaded(loaded: set[str]) -> None:
    third_party = {name for name in loaded - sys.stdlib_module_names if not name.startswith("_")}
    assert third_party <= ALLOWED_OUTSIDE_THE_STANDARD_LIBRARY
