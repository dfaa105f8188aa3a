from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from latlas_agent.programs import Chunk, ProgramCache
from latlas_ops.errors import CorruptProgramError, InvalidInputError, StorageError, UnreachableError

DATA = bytes(range(256)) * 40
SHA256 = hashlib.sha256(DATA).hexdigest()


class Source:
    """A coordinator's programs, and the requests for them."""

    def __init__(self, data: bytes = DATA, break_after: int | None = None) -> None:
        self.data = data
        self.break_after = break_after
        self.offsets: list[int] = []

    async def __call__(self, sha256: str, offset_bytes: int) -> AsyncIterator[Chunk]:
        self.offsets.append(offset_bytes)
        for start in range(offset_bytes, len(self.data), 1000):
            if self.break_after is not None and start >= self.break_after:
                raise UnreachableError("the line is cut")
            yield Chunk(self.data[start : start + 1000], len(self.data))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "programs"


def fetch(cache: ProgramCache, source: Source, sha256: str = SHA256, size: int = len(DATA)) -> Path:
    return asyncio.run(cache.fetch(sha256, size, source))


def test_a_program_is_downloaded_once(folder: Path) -> None:
    cache, source = ProgramCache(folder), Source()
    assert fetch(cache, source).read_bytes() == DATA
    assert fetch(cache, source) == folder / SHA256
    assert fetch(ProgramCache(folder), source).read_bytes() == DATA
    assert source.offsets == [0]


def test_an_interrupted_download_goes_on_where_it_stopped(folder: Path) -> None:
    cache = ProgramCache(folder)
    with pytest.raises(UnreachableError):
        fetch(cache, Source(break_after=3000))
    source = Source()
    assert fetch(cache, source).read_bytes() == DATA
    assert source.offsets == [3000]


def test_bytes_that_do_not_match_their_digest_are_deleted(folder: Path) -> None:
    source = Source(data=DATA[:-1] + b"?")
    with pytest.raises(CorruptProgramError, match="have another SHA-256"):
        fetch(ProgramCache(folder), source)
    assert list(folder.iterdir()) == []


def test_a_damaged_beginning_is_thrown_away_and_everything_fetched_again(folder: Path) -> None:
    folder.mkdir()
    (folder / f"{SHA256}.part").write_bytes(b"garbage" * 10)
    source = Source()
    assert fetch(ProgramCache(folder), source).read_bytes() == DATA
    assert source.offsets == [70, 0]


def test_a_cached_program_that_was_damaged_is_fetched_again(folder: Path) -> None:
    cache, source = ProgramCache(folder), Source()
    path = fetch(cache, source)
    path.write_bytes(b"something else")
    assert fetch(cache, source).read_bytes() == DATA
    assert source.offsets == [0, 0]


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1])
def test_a_program_of_another_size_than_announced_is_corrupt(folder: Path, size: int) -> None:
    with pytest.raises(CorruptProgramError, match=f"where the task says {size}"):
        fetch(ProgramCache(folder), Source(), size=size)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("sha256", ["", "../../etc/passwd", SHA256.upper(), SHA256[:-1]])
def test_only_a_digest_names_a_program(folder: Path, sha256: str) -> None:
    with pytest.raises(InvalidInputError, match="not a SHA-256"):
        fetch(ProgramCache(folder), Source(), sha256=sha256)
    assert not folder.exists()


@pytest.mark.parametrize("size", [0, -1, 2000])
def test_a_program_of_impossible_size_is_refused_before_it_is_fetched(
    folder: Path, size: int
) -> None:
    source = Source()
    with pytest.raises(InvalidInputError, match="takes up to 1000"):
        fetch(ProgramCache(folder, max_bytes=1000), source, size=size)
    assert source.offsets == []


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot keep program"):
        fetch(ProgramCache(tmp_path / "file"), Source())


def test_the_least_recently_used_programs_are_dropped_first(folder: Path) -> None:
    cache = ProgramCache(folder, max_bytes=2500)
    names = []
    for index in range(4):
        data = bytes([index]) * 1000
        names.append(hashlib.sha256(data).hexdigest())
        path = fetch(cache, Source(data), names[-1], 1000)
        os.utime(path, (index, index))
    os.utime(folder / names[0], (9, 9))
    cache.evict()
    assert {path.name for path in folder.iterdir()} == {names[0], names[3]}


def test_programs_in_use_are_never_dropped(folder: Path) -> None:
    cache = ProgramCache(folder, max_bytes=len(DATA))
    fetch(cache, Source())
    other = bytes(len(DATA))
    name = hashlib.sha256(other).hexdigest()
    fetch(cache, Source(other), name)
    cache.evict(keep={SHA256, name})
    assert len(list(folder.iterdir())) == 2
    cache.evict(keep={SHA256})
    assert [path.name for path in folder.iterdir()] == [SHA256]


def test_nothing_is_dropped_from_a_folder_that_is_not_there(folder: Path) -> None:
    ProgramCache(folder).evict()
