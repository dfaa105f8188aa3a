"""The seven packages: where each lives, and which may import which (one way only)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

SOURCE_ROOTS = {
    "latlas_protos": "protos",
    "latlas_ops": "op_library",
    "latlas_latency": "latency",
    "latlas_agent": "agent",
    "latlas_coordinator": "coordinator",
    "latlas_nas": "nas",
    "latlas": "client",
}

# Packages, or parts of packages, that each may import beside itself.
MAY_IMPORT = {
    "latlas_protos": (),
    "latlas_ops": (),
    "latlas_latency": ("latlas_ops",),
    "latlas_agent": (
        "latlas_protos",
        "latlas_ops",
        "latlas_latency.measurement",
        "latlas_latency.wire",
    ),
    "latlas_coordinator": ("latlas_protos", "latlas_ops", "latlas_latency"),
    "latlas_nas": ("latlas_ops", "latlas_latency"),
    "latlas": tuple(SOURCE_ROOTS),
}

# What single modules may import beyond their package's list.
EXCEPTIONS = {
    "latlas_latency/wire.py": ("latlas_protos",),
    "latlas_latency/details_wire.py": ("latlas_protos",),
    "latlas_latency/judgement_wire.py": ("latlas_protos",),
}

# Third-party import names that each package may use.
THIRD_PARTY = {
    "latlas_protos": {"google", "grpc"},
    "latlas_ops": {
        *("ai_edge_litert", "flatbuffers", "numpy", "onnx", "torch"),
        *("ai_edge_quantizer", "onnxruntime"),  # both to quantise
    },
    "latlas_latency": {"google", "numpy", "torch"},
    "latlas_agent": {"google", "grpc", "numpy", "onnxruntime", "ai_edge_litert", "tflite_runtime"},
    "latlas_coordinator": {
        *("google", "grpc", "grpc_health", "numpy", "onnx", "sqlalchemy"),
        *("fastapi", "nicegui", "starlette", "uvicorn"),
    },
    "latlas_nas": {"numpy", "onnx", "safetensors", "sklearn", "torch"},
    "latlas": {
        *("google", "grpc", "numpy", "onnx", "safetensors", "sklearn", "torch", "matplotlib"),
        *("onnxruntime", "uvicorn", "nicegui"),
    },
}

# Modules of ops, latency and agent whose purpose is a library that not every user of their package
# has. Nothing imports them before that library is asked for.
NEEDS_A_LIBRARY = {
    "latlas_latency.predictors.mlp_training",
    "latlas_ops._export",
    "latlas_ops.writers._tflite_file",
    "latlas_ops.writers._tflite_nodes",
    "latlas_ops.writers._torch_module",
}

HEAVY = (
    *("torch", "sklearn", "scipy", "pandas", "matplotlib", "onnx"),
    *("sqlalchemy", "nicegui", "fastapi", "starlette", "uvicorn"),
)


def sources(repository: Path, package: str) -> Iterator[Path]:
    return (repository / SOURCE_ROOTS[package] / package).rglob("*.py")


def imported_names(path: Path) -> Iterator[str]:
    """Every absolute name that a module imports, lazily or not: `a.b` and `a.b.c` alike."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def lies_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


@pytest.mark.parametrize("package", SOURCE_ROOTS)
def test_a_source_root_is_no_package_and_holds_one(repository: Path, package: str) -> None:
    source_root = repository / SOURCE_ROOTS[package]
    assert {path.parent.name for path in source_root.glob("*/__init__.py")} == {package}
    assert not (source_root / "__init__.py").exists()


@pytest.mark.parametrize("package", SOURCE_ROOTS)
def test_a_package_is_marked_as_typed(repository: Path, package: str) -> None:
    assert (repository / SOURCE_ROOTS[package] / package / "py.typed").is_file()


@pytest.mark.parametrize("package", SOURCE_ROOTS)
def test_every_folder_with_modules_is_a_package(repository: Path, package: str) -> None:
    folders = {path.parent for path in sources(repository, package)}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_test_folders_are_no_packages(repository: Path) -> None:
    assert list((repository / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("package", SOURCE_ROOTS)
def test_a_package_imports_only_the_packages_below_it(repository: Path, package: str) -> None:
    offences = []
    for path in sources(repository, package):
        module = path.relative_to(repository / SOURCE_ROOTS[package]).as_posix()
        allowed = (package, *MAY_IMPORT[package], *EXCEPTIONS.get(module, ()))
        offences += [
            f"{module} imports {name}"
            for name in imported_names(path)
            if name.split(".")[0] in SOURCE_ROOTS
            and not any(lies_in(name, permitted) for permitted in allowed)
        ]
    assert not offences


@pytest.mark.parametrize("package", SOURCE_ROOTS)
def test_a_package_uses_only_the_libraries_that_its_place_allows(
    repository: Path, package: str
) -> None:
    known = THIRD_PARTY[package] | set(SOURCE_ROOTS) | sys.stdlib_module_names
    offences = [
        f"{path.relative_to(repository).as_posix()} imports {name}"
        for path in sources(repository, package)
        for name in imported_names(path)
        if name.split(".")[0] not in known
    ]
    assert not offences


def loaded_by(modules: Iterable[str]) -> list[str]:
    """The heavy libraries that a fresh interpreter has loaded after importing the modules."""
    script = (
        "import importlib, sys\n"
        f"for name in {sorted(modules)!r}: importlib.import_module(name)\n"
        f"print(*(name for name in {HEAVY!r} if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "module", ["latlas", "latlas.cli.main", "latlas_agent", "latlas_agent.cli"]
)
def test_a_front_door_opens_without_heavy_libraries(module: str) -> None:
    assert loaded_by([module]) == []


@pytest.mark.parametrize("package", ["latlas_ops", "latlas_latency", "latlas_agent"])
def test_every_module_of_the_lower_packages_loads_without_heavy_libraries(
    repository: Path, package: str
) -> None:
    source_root = repository / SOURCE_ROOTS[package]
    modules = {
        ".".join(path.relative_to(source_root).with_suffix("").parts)
        for path in sources(repository, package)
        if path.stem not in {"__init__", "__main__"}
    }
    assert loaded_by(modules - NEEDS_A_LIBRARY) == []
