"""`make test-arm64` says what it lacks before it begins; the rest takes minutes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(repository: Path, cache: Path, qemu: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "QEMU": qemu, "ARM64_CACHE": str(cache), "PYTHON": sys.executable}
    return subprocess.run(
        ["bash", repository / "tests" / "arm64" / "run.sh"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def qemu_of(folder: Path, version: str) -> str:
    path = folder / "qemu"
    path.write_text(f"#!/bin/sh\necho 'qemu-aarch64 version {version} (Debian 1:{version})'\n")
    path.chmod(0o755)
    return str(path)


def test_a_missing_emulator_is_named_with_its_package(repository: Path, tmp_path: Path) -> None:
    done = run(repository, tmp_path / "cache", "no-such-qemu")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: no-such-qemu is missing: "
        "apt-get install qemu-user-static (on Debian 12 that of bookworm-backports)"
    ]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("version", ["7.2.19", "5.2.0"])
def test_an_emulator_that_crashes_on_runtimes_is_refused(
    repository: Path, tmp_path: Path, version: str
) -> None:
    done = run(repository, tmp_path / "cache", qemu_of(tmp_path, version))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"is version {version}, too old for current runtimes" in line
