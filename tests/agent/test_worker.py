from __future__ import annotations

from pathlib import Path

import pytest

from latlas_agent.worker import SessionPool, resident_bytes
from latlas_latency.measurement import InputShapes


class Session:
    def __init__(self, name: str) -> None:
        self.name = name

    def run(self) -> object:
        return self.name


class Loader:
    """Opens sessions of files and pretends that each takes as much memory as its text says."""

    def __init__(self) -> None:
        self.resident = 1000
        self.opened: list[str] = []

    def load(self, program: Path, shapes: InputShapes = ()) -> Session:
        self.resident += int(program.read_text())
        self.opened.append(program.name)
        return Session(program.name)


@pytest.fixture
def loader() -> Loader:
    return Loader()


def programs(folder: Path, **sizes: int) -> list[Path]:
    paths = [folder / name for name in sizes]
    for path, size in zip(paths, sizes.values(), strict=True):
        path.write_text(str(size))
    return paths


def pool(loader: Loader, budget_bytes: int) -> SessionPool:
    return SessionPool(loader.load, budget_bytes, lambda: loader.resident)


def test_other_shapes_are_another_session(tmp_path: Path, loader: Loader) -> None:
    (a,) = programs(tmp_path, a=100)
    sessions = pool(loader, 1000)
    assert sessions.get(a) is not sessions.get(a, (("x", (1, 3)),))
    assert sessions.is_open(a)
    assert not sessions.is_open(a, (("x", (1, 4)),))


def test_a_session_stays_open_within_the_budget(tmp_path: Path, loader: Loader) -> None:
    a, b = programs(tmp_path, a=100, b=100)
    sessions = pool(loader, 200)
    assert sessions.get(a) is sessions.get(a)
    assert sessions.get(b) is sessions.get(b)
    assert loader.opened == ["a", "b"]


def test_the_least_recently_used_session_goes_first(tmp_path: Path, loader: Loader) -> None:
    a, b, c = programs(tmp_path, a=100, b=100, c=100)
    sessions = pool(loader, 200)
    for program in (a, b, a, c, a, b):
        sessions.get(program)
    assert loader.opened == ["a", "b", "c", "b"]


def test_a_session_beyond_the_budget_is_held_alone(tmp_path: Path, loader: Loader) -> None:
    a, big = programs(tmp_path, a=100, big=5000)
    sessions = pool(loader, 200)
    for program in (a, big, big, a):
        sessions.get(program)
    assert loader.opened == ["a", "big", "a"]


def test_a_session_counts_at_least_as_much_as_its_file(tmp_path: Path, loader: Loader) -> None:
    a, b = programs(tmp_path, a=0, b=0)
    a.write_text("0" * 150)
    sessions = pool(loader, 100)
    for program in (a, b, a):
        sessions.get(program)
    assert loader.opened == ["a", "b", "a"]


def test_this_process_has_resident_memory() -> None:
    assert resident_bytes() > 1 << 20
