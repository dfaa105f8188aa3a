"""The agent as a service: systemd accepts the unit, and the installer puts everything in place."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from latlas_agent.cli import parse_address

AGENT = "/opt/latlas/bin/latlas-agent"


@pytest.fixture
def systemd(repository: Path) -> Path:
    return repository / "agent" / "systemd"


@pytest.fixture
def unit(systemd: Path) -> str:
    return (systemd / "latlas-agent.service").read_text(encoding="utf-8")


def test_systemd_accepts_the_unit(unit: str, tmp_path: Path, require_tool) -> None:
    systemd_analyze = require_tool("systemd-analyze")
    copy = tmp_path / "latlas-agent.service"  # with a program that is there
    copy.write_text(unit.replace(AGENT, sys.executable))
    done = subprocess.run(
        [systemd_analyze, "verify", "--man=no", copy],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_leaves_a_measurement_what_it_needs(unit: str) -> None:
    """GPUs need devices, compilers memory that is run; a missed worker must not end the service."""
    settings = dict(re.findall(r"^(\w+)=(.*)$", unit, re.M))
    for forbidden in ("PrivateDevices", "ProtectClock", "MemoryDenyWriteExecute", "CPUAffinity"):
        assert forbidden not in settings
    assert settings["OOMPolicy"] == "continue"
    assert (settings["Restart"], settings["RestartPreventExitStatus"]) == ("on-failure", "2")


@pytest.fixture
def board(systemd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what is copied to a board, and commands that only write down their words."""
    folder = tmp_path / "board"
    folder.mkdir()
    for name in ("install.sh", "latlas-agent.service"):
        shutil.copy(systemd / name, folder)
    (folder / "latlas-0.1.0-py3-none-any.whl").touch()
    commands = tmp_path / "commands"
    commands.mkdir()
    for name in ("systemctl", "useradd", "python3"):
        stub = commands / name
        stub.write_text(f'#!/bin/sh\necho "{name} $*" >>{tmp_path}/calls\n')
        stub.chmod(0o755)
    pip = tmp_path / "root" / "opt" / "latlas" / "bin" / "python"  # what python3 -m venv makes
    pip.parent.mkdir(parents=True)
    shutil.copy(commands / "python3", pip)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("DESTDIR", str(tmp_path / "root"))
    return folder


def install(board: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", board / "install.sh", *words], capture_output=True, text=True, check=False
    )


def test_one_line_installs_the_service(board: Path, tmp_path: Path, unit: str) -> None:
    done = install(board, "lab.local:7443")
    assert (done.returncode, done.stderr) == (0, "")
    calls = (tmp_path / "calls").read_text()
    assert f"pip install --quiet {board}/latlas-0.1.0-py3-none-any.whl[onnx]" in calls
    assert "systemctl restart latlas-agent" in calls
    root = tmp_path / "root"
    assert (root / "etc/systemd/system/latlas-agent.service").read_text() == unit
    settings = (root / "etc/default/latlas-agent").read_text()
    assert settings == "COORDINATOR=lab.local:7443\nOPTIONS=\n"
    assert parse_address("lab.local:7443")


def test_installing_again_keeps_the_options(board: Path, tmp_path: Path) -> None:
    install(board, "lab.local:7443")
    settings = tmp_path / "root/etc/default/latlas-agent"
    settings.write_text("COORDINATOR=lab.local:7443\nOPTIONS=--cores 2,3\n")
    assert install(board, "other:7443", "onnx,litert").returncode == 0
    assert settings.read_text() == "COORDINATOR=other:7443\nOPTIONS=--cores 2,3\n"
    assert "whl[onnx,litert]" in (tmp_path / "calls").read_text()


def test_a_runtime_of_the_system_is_used(board: Path, tmp_path: Path) -> None:
    assert install(board, "lab.local:7443", "none").returncode == 0
    calls = (tmp_path / "calls").read_text()
    assert "-m venv --system-site-packages" in calls
    assert "whl[" not in calls


@pytest.mark.parametrize(
    ("words", "missing", "reason"),
    [
        ((), None, "usage: sudo sh install.sh"),
        (("lab.local:7443",), "latlas-0.1.0-py3-none-any.whl", "exactly one latlas-*.whl"),
        (("lab.local:7443",), "latlas-agent.service", "latlas-agent.service must lie in"),
    ],
)
def test_what_is_missing_is_named(
    board: Path, words: tuple[str, ...], missing: str | None, reason: str
) -> None:
    if missing:
        (board / missing).unlink()
    done = install(board, *words)
    assert done.returncode == 1
    assert reason in done.stderr
