"""What tests of every folder share: tools of the machine, third-party data, the built wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"1", "true"}


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], str]:
    """`require_tool(command) -> path`; skips the test where the machine lacks the command.

    It fails instead where `LATLAS_REQUIRE` (command names, separated by spaces) names the command:
    on machines that are meant to have it, its absence must not pass unseen.
    """
    required = os.environ.get("LATLAS_REQUIRE", "").split()

    def find(command: str) -> str:
        path = shutil.which(command)
        if path is None:
            reason = f"{command} is not installed here"
            if command in required:
                pytest.fail(f"{reason}, and LATLAS_REQUIRE names it")
            pytest.skip(reason)
        return path

    return find


@pytest.fixture(scope="session")
def third_party_data() -> Path:
    """The folder of third-party measurements that `LATLAS_DATA_DIR` names; skips without it."""
    folder = os.environ.get("LATLAS_DATA_DIR")
    if not folder:
        pytest.skip("LATLAS_DATA_DIR names no folder of third-party measurements")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"LATLAS_DATA_DIR is {folder}, which is no folder")
    return path


@pytest.fixture(scope="session")
def run_with_index() -> Callable[..., None]:
    """`run_with_index(command, **kwargs)` runs a command that downloads packages with pip.

    A failure for want of a package index skips the test, except under `CI=true`; every other
    failure, such as versions that contradict each other, is the test's own.
    """

    def run(command: list[str | Path], **kwargs: object) -> None:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=600, check=False, **kwargs
        )
        if done.returncode:
            output = done.stdout + done.stderr
            if "Retry(total=0" in output and not in_ci():
                pytest.skip("no package index can be reached from here")
            pytest.fail(f"{' '.join(map(str, command))} failed:\n{output[-4000:]}", pytrace=False)

    return run


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this working tree, built without network."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def agent_environment(
    wheel: Path,
    tmp_path_factory: pytest.TempPathFactory,
    run_with_index: Callable[..., None],
) -> Iterator[Path]:
    """The `bin` folder of an environment that holds the wheel with the agent's extra alone."""
    folder = tmp_path_factory.mktemp("board") / "venv"
    _install(f"{wheel}[onnx]", "base.txt", folder, run_with_index)
    yield folder / "bin"
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def tflite_environment(
    wheel: Path,
    tmp_path_factory: pytest.TempPathFactory,
    run_with_index: Callable[..., None],
) -> Iterator[Path]:
    """The `bin` folder of an environment that holds the wheel, tflite-runtime and numpy 1."""
    if sys.version_info >= (3, 12):
        pytest.skip("the wheels of tflite-runtime stop at Python 3.11")
    folder = tmp_path_factory.mktemp("tflite") / "venv"
    _install(f"{wheel}[tflite]", "tflite.txt", folder, run_with_index)
    yield folder / "bin"
    shutil.rmtree(folder)


def _install(
    requirement: str, constraints: str, folder: Path, run_with_index: Callable[..., None]
) -> None:
    """Makes an environment that holds one requirement."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    command: list[str | Path] = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
    run_with_index([*command, "-c", ROOT / "constraints" / constraints, requirement])
