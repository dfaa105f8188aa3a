"""What the code imports is declared, and what is declared is pinned to a tested version."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

# Where the import name is not the name of the distribution.
DISTRIBUTIONS = {
    "google": "protobuf",
    "grpc": "grpcio",
    "grpc_health": "grpcio-health-checking",
    "sklearn": "scikit-learn",
}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def declared() -> set[str]:
    """The distributions that Latlas depends on, extras included."""
    names = {normalised(re.split(r"[^\w.-]", line)[0]) for line in requires("latlas") or []}
    return names - {"latlas"}


def pinned(constraints: Path) -> set[str]:
    lines = constraints.read_text(encoding="utf-8").splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pin) >= 2 for pin in pins), "a constraint without an exact version"
    return {normalised(pin[0]) for pin in pins}


def test_every_library_that_the_code_imports_is_declared(
    repository: Path, declared: set[str]
) -> None:
    imported = set()
    for path in repository.glob("*/latlas*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                imported.add(node.module.split(".")[0])
    ours = {path.name for path in repository.glob("*/latlas*")}
    libraries = imported - ours - sys.stdlib_module_names
    assert {normalised(DISTRIBUTIONS.get(name, name)) for name in libraries} <= declared


def test_every_declared_dependency_is_pinned(repository: Path, declared: set[str]) -> None:
    assert declared - {"tflite-runtime"} <= pinned(repository / "constraints" / "base.txt")


def test_the_tflite_environment_is_pinned_by_itself(repository: Path) -> None:
    pins = pinned(repository / "constraints" / "tflite.txt")
    assert {"tflite-runtime", "numpy", "grpcio", "protobuf"} <= pins
