"""The pages are run from top to bottom, as a reader would: commands and Python alike.

A coordinator and an agent run as processes of their own. Commands of `latlas` are executed against
them, all other programs (`make`, `ssh`, ...) are not. Campaigns are cut short: the figures of an
example do not matter here, that it works does.
"""

from __future__ import annotations

import ast
import importlib
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import latlas
from latlas.cli.main import main
from latlas.lab import Lab, connect
from latlas_ops.writers.onnx_writer import write_onnx

NOT_RUN = ("quickstart", "serve")
FAST_PROFILE = (
    *("--training-networks", "12", "--calibration-networks", "8", "--validation-networks", "4"),
    *("--min-occurrences", "1", "--rounds", "2", "--warmup-runs", "1", "--min-runs", "3"),
    *("--min-duration", "2ms"),
)
FAST_VISITS = ("--rounds", "2", "--warmup-runs", "1", "--min-runs", "2", "--min-duration", "2ms")
FAST_VALIDATION = ("--random-networks", "4", "--selected-networks", "3", *FAST_VISITS)
START_S = 60.0

# The story that the pages share, so that each can be read, and run, for itself.
GIVEN = (
    "latlas target add pi5-ort-4t --threads 4",
    "latlas campaign start pi5-digits --space digits --target pi5-ort-4t",
    "latlas table build pi5-table --campaign pi5-digits",
    "latlas predictor fit pi5-mlp --campaign pi5-digits",
)
# Files that a page reads and another page writes.
GIVEN_TO = {
    "docs/start.md": ("latlas table export pi5-table --output quickstart/table.json",),
    "docs/file-formats.md": (
        "latlas table export pi5-table",
        "latlas predictor export pi5-mlp",
    ),
}


@contextmanager
def process(folder: Path, module: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A Latlas program in a process of its own that ends with the context."""
    with (folder / f"{module}.log").open("wb") as log:
        running = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        yield running
    finally:
        running.terminate()
        running.wait(30)


def eventually(condition: Callable[[], bool], running: subprocess.Popen[bytes]) -> None:
    deadline_s = time.monotonic() + START_S
    while not condition():
        assert running.poll() is None
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a coordinator with one connected device and what the pages take as given."""
    folder = tmp_path_factory.mktemp("lab")
    ready = folder / "ready.json"
    database = folder / "latlas.db"
    served = ("serve", "--database", database, "--port", 0, "--http-port", 0, "--ready-file", ready)
    with process(folder, "latlas.cli.main", *served) as server:
        eventually(ready.exists, server)
        address = json.loads(ready.read_text())["grpc"]
        attached = ("run", "--coordinator", address, "--state-dir", folder / "agent")
        with process(folder, "latlas_agent.cli", *attached) as agent, connect(address) as lab:
            eventually(lambda: any(state.connected for state in lab.devices()), agent)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LATLAS_COORDINATOR", address)
                for line in GIVEN:
                    run_command(line)
            yield address


@pytest.fixture
def at_the_lab(
    page_with_python: str, coordinator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Lab]]:
    """An empty folder, and the coordinator wherever an example looks for one."""
    labs: list[Lab] = []

    def connect_there(address: str, *, wait_s: float = 0.0) -> Lab:
        labs.append(connect(coordinator, wait_s=wait_s))
        return labs[-1]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LATLAS_COORDINATOR", coordinator)
    monkeypatch.setattr(latlas, "connect", connect_there)
    (tmp_path / "quickstart").mkdir()
    space = latlas.get_space("digits")
    smallest, _ = space.archs(space.extremes())
    (tmp_path / "net.onnx").write_bytes(write_onnx(space.network(smallest)).model_bytes)
    for line in GIVEN_TO.get(page_with_python, ()):
        run_command(line)
    yield labs
    for lab in labs:
        lab.close()


def run_command(line: str) -> None:
    """Runs one `latlas` command in this process; a campaign is made short and waited for."""
    words = shlex.split(line)
    if words[0] != "latlas" or words[1] in NOT_RUN:
        return
    arguments = words[1:]
    if arguments[:2] == ["campaign", "start"] and "--space" in arguments:
        arguments += [*FAST_PROFILE, "--watch"]
        if "--target-error" in arguments:  # noise cannot be told from two rounds
            arguments += ["--rounds", "3"]
    if "chained" in arguments:  # 40 ops in place of 168, each with chains of its own
        arguments[arguments.index("digits")] = "nas-bench-201"
    if arguments[:2] == ["table", "validate"]:
        arguments += FAST_VALIDATION
    if arguments[:2] == ["table", "revalidate"]:
        arguments += FAST_VISITS
    if "--threads" in arguments:
        # Four threads on the two cores of a busy test machine would measure one another.
        arguments[arguments.index("--threads") + 1] = "1"
    assert main(arguments) == 0, line


def run_python(text: str, place: str, names: dict[str, object]) -> None:
    """Runs a block in the names that the blocks above it on its page have made."""
    exec(compile(text, place, "exec"), names)


def test_a_page_with_python_runs_from_top_to_bottom(
    page_with_python: str, page_steps: list[tuple[str, int, str]], at_the_lab: list[Lab]
) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    for language, line, text in page_steps:
        if language == "sh":
            run_command(text)
        else:
            run_python("\n" * (line - 1) + text, page_with_python, names)


def test_imports_of_an_example_exist(page_with_python: str, python_blocks) -> None:
    for block in python_blocks:
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    importlib.import_module(alias.name)
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None
                module = importlib.import_module(node.module)
                assert [a.name for a in node.names if not hasattr(module, a.name)] == []
