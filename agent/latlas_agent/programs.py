"""Programs kept on the board under their SHA-256, verified each time before they are used."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from latlas_ops.errors import CorruptProgramError, InvalidInputError, StorageError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PARTIAL_SUFFIX = ".part"


@dataclass(frozen=True)
class Chunk:
    """A piece of a program and the size of the whole."""

    data: bytes
    total_bytes: int


Download = Callable[[str, int], AsyncIterator[Chunk]]
"""Given a SHA-256 and an offset in bytes, the program's bytes from there on."""


class ProgramCache:
    """A folder of programs of bounded size; the least recently used are dropped first.

    Args:
        directory: the folder; created if missing.
        max_bytes: size that `evict` brings it down to, and the largest program accepted.
    """

    def __init__(self, directory: Path, max_bytes: int = 2 << 30) -> None:
        self._directory = directory
        self._max_bytes = max_bytes

    async def fetch(self, sha256: str, n_bytes: int, download: Download) -> Path:
        """The file of a program, downloaded if need be; an interrupted download is resumed.

        Args:
            sha256: digest in hexadecimal; the only name a program has.
            n_bytes: its size.
            download: where to get it from; its errors pass through and keep what has arrived.

        Raises:
            CorruptProgramError: the bytes that came do not match the digest; they are deleted.
            InvalidInputError: the digest is malformed, or the program too large.
            StorageError: the folder cannot be written.
        """
        if not _SHA256.fullmatch(sha256):
            raise InvalidInputError(f"{sha256!r} is not a SHA-256 in lower-case hexadecimal")
        if not 0 < n_bytes <= self._max_bytes:
            raise InvalidInputError(
                f"program {sha256[:12]} has {n_bytes} bytes; this agent takes up to "
                f"{self._max_bytes}"
            )
        path = self._directory / sha256
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if path.exists() and not await self._verified(path, sha256):
                path.unlink()
            if not path.exists():
                await self._download(path, sha256, n_bytes, download)
            os.utime(path)
        except OSError as error:
            raise StorageError(
                f"cannot keep program {sha256[:12]} in {self._directory}: {error}"
            ) from error
        return path

    async def _download(self, path: Path, sha256: str, n_bytes: int, download: Download) -> None:
        partial = path.with_name(path.name + _PARTIAL_SUFFIX)
        resumed = partial.exists() and partial.stat().st_size > 0
        received = await self._receive(partial, sha256, n_bytes, download)
        if resumed and not await self._verified(partial, sha256):
            partial.unlink()  # what an earlier attempt left may be at fault: once more from zero
            received = await self._receive(partial, sha256, n_bytes, download)
        if not await self._verified(partial, sha256):
            partial.unlink()
            raise CorruptProgramError(
                f"program {sha256[:12]} is corrupt: the {received} bytes that the coordinator "
                "sent have another SHA-256; submit the program again"
            )
        os.replace(partial, path)

    async def _receive(self, partial: Path, sha256: str, n_bytes: int, download: Download) -> int:
        """Appends to `partial` until it holds the whole program; returns its size."""
        with open(partial, "ab") as file:
            if file.tell() < n_bytes:
                async for chunk in download(sha256, file.tell()):
                    if chunk.total_bytes != n_bytes or file.tell() + len(chunk.data) > n_bytes:
                        partial.unlink()
                        raise CorruptProgramError(
                            f"program {sha256[:12]} is corrupt: the coordinator sends "
                            f"{chunk.total_bytes} bytes where the task says {n_bytes}"
                        )
                    file.write(chunk.data)
            return file.tell()

    async def _verified(self, path: Path, sha256: str) -> bool:
        return await asyncio.to_thread(_sha256_of, path) == sha256

    def evict(self, keep: Collection[str] = ()) -> None:
        """Drops the least recently used programs until the folder is within its bound.

        Args:
            keep: digests of programs that must stay.
        """
        try:
            entries = [(file, file.stat()) for file in self._directory.iterdir()]
        except FileNotFoundError:
            return
        held_bytes = sum(status.st_size for _, status in entries)
        for file, status in sorted(entries, key=lambda entry: entry[1].st_mtime_ns):
            if held_bytes <= self._max_bytes:
                return
            if file.name.removesuffix(_PARTIAL_SUFFIX) not in keep:
                file.unlink(missing_ok=True)
                held_bytes -= status.st_size


def _sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
