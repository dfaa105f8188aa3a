"""Environments that hold an agent and one runtime: what they weigh and how fast they start."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_N_STARTS = 9
_INSTALL_SECONDS = 900.0
_LAST_TFLITE_PYTHON = (3, 11)

# What nothing but a runtime's own worker may load, or nobody on a board at all.
HEAVY = (
    "ai_edge_litert",
    "fastapi",
    "matplotlib",
    "nicegui",
    "onnx",
    "onnxruntime",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "tflite_runtime",
    "torch",
    "latlas_coordinator",
    "latlas_nas",
)

_IMPORT = """
import importlib, json, pkgutil, sys
import latlas_agent
for module in pkgutil.walk_packages(latlas_agent.__path__, "latlas_agent."):
    importlib.import_module(module.name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:]))))
"""


class InstallError(Exception):
    """An environment could not be made."""


@dataclass(frozen=True)
class Environment:
    """What is installed.

    Attributes:
        title: for the table.
        extra: of Latlas; empty for the agent alone.
        constraints: file with the versions.
    """

    title: str
    extra: str
    constraints: str = "base.txt"

    @property
    def unavailable(self) -> str:
        """Why it cannot be made with this Python; empty where it can."""
        if self.extra == "tflite" and sys.version_info[:2] > _LAST_TFLITE_PYTHON:
            return "the wheels of tflite-runtime stop at Python 3.11"
        return ""


ENVIRONMENTS = (
    Environment("agent alone", ""),
    Environment("agent with onnxruntime", "onnx"),
    Environment("agent with LiteRT", "litert"),
    Environment("agent with tflite-runtime", "tflite", "tflite.txt"),
    Environment("agent with torch", "torch"),
)


@dataclass(frozen=True)
class Installed:
    """What became of an environment.

    Attributes:
        mebibytes: size of its files, pip aside, compiled Python of what was started included.
        start_ms: median wall time of `latlas-agent --version`, in ms.
        heavy: heavy modules that importing all of the agent loads.
    """

    mebibytes: float
    start_ms: float
    heavy: tuple[str, ...]


def install(environment: Environment) -> Installed:
    """Makes an environment in a temporary folder, looks at it and removes it.

    Raises:
        InstallError: pip fails.
    """
    with tempfile.TemporaryDirectory(prefix="latlas-environment-") as scratch:
        folder, wheels = Path(scratch) / "venv", Path(scratch) / "wheels"
        _run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, ROOT])
        (wheel,) = wheels.glob("*.whl")
        _run([sys.executable, "-m", "venv", "--without-pip", folder])
        pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
        extra = f"[{environment.extra}]" if environment.extra else ""
        constraints = ROOT / "constraints" / environment.constraints
        _run([*pip, "install", "--quiet", "-c", constraints, f"{wheel}{extra}"])
        return look_at(folder)


def look_at(folder: Path) -> Installed:
    """Size and start of an environment that is there."""
    loaded = json.loads(_run([folder / "bin" / "python", "-c", _IMPORT, *HEAVY]))
    took_ms = []
    for _ in range(_N_STARTS):
        began = time.perf_counter()
        _run([folder / "bin" / "latlas-agent", "--version"])
        took_ms.append(1e3 * (time.perf_counter() - began))
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    n_bytes = sum(path.stat().st_size for path in files)
    return Installed(n_bytes / 2**20, statistics.median(took_ms), tuple(loaded))


def _run(command: Sequence[str | Path]) -> str:
    """What a command prints."""
    try:
        done = subprocess.run(
            command,
            cwd=tempfile.gettempdir(),
            check=True,
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split())
        raise InstallError(f"{Path(command[0]).name} failed: {said[-500:]}") from error
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"{Path(command[0]).name} took too long") from error
    return done.stdout
