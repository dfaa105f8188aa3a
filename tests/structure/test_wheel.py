"""The wheel: what it holds, and that a board needs no more of it than the agent's extra."""

from __future__ import annotations

import subprocess
import zipfile
from importlib.metadata import version
from pathlib import Path, PurePosixPath

import pytest

PACKAGES = (
    "latlas",
    "latlas_agent",
    "latlas_coordinator",
    "latlas_latency",
    "latlas_nas",
    "latlas_ops",
    "latlas_protos",
)
NOT_ON_A_BOARD = ("torch", "sqlalchemy", "nicegui", "sklearn", "onnx", "matplotlib")


@pytest.fixture(scope="module")
def members(wheel: Path) -> list[PurePosixPath]:
    with zipfile.ZipFile(wheel) as archive:
        return [PurePosixPath(name) for name in archive.namelist()]


def test_the_wheel_holds_the_seven_packages_and_nothing_else(
    members: list[PurePosixPath],
) -> None:
    metadata = f"latlas-{version('latlas')}.dist-info"
    assert {member.parts[0] for member in members} == {*PACKAGES, metadata}


def test_the_wheel_holds_every_module(repository: Path, members: list[PurePosixPath]) -> None:
    modules = {
        PurePosixPath(path.relative_to(source_root))
        for source_root in repository.iterdir()
        for package in PACKAGES
        for path in (source_root / package).rglob("*.py")
    }
    assert {member for member in members if member.suffix == ".py"} == modules


def test_the_wheel_holds_type_markers_protos_and_the_licence(
    members: list[PurePosixPath],
) -> None:
    names = {str(member) for member in members}
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert "latlas_protos/v1/fleet.proto" in names
    assert f"latlas-{version('latlas')}.dist-info/licenses/LICENSE" in names


def test_a_board_runs_the_agent_without_the_rest(agent_environment: Path) -> None:
    for command, expected in (
        (["latlas-agent", "--help"], "run"),
        (["latlas-agent", "run", "--help"], "--coordinator"),
        (["latlas", "--version"], f"latlas {version('latlas')}"),
    ):
        done = subprocess.run(
            [agent_environment / command[0], *command[1:]],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert expected in done.stdout


def test_a_board_is_spared_the_heavy_libraries(agent_environment: Path) -> None:
    find = "import importlib.util, sys; print(*filter(importlib.util.find_spec, sys.argv[1:]))"
    found = subprocess.run(
        [agent_environment / "python", "-c", find, *NOT_ON_A_BOARD],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.stdout.split() == []
