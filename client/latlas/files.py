"""Files that the user names: read with a clear error, written whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from latlas_ops.errors import InvalidInputError


def write_atomically(path: Path, data: bytes) -> None:
    """Writes `data` beside `path` and renames it into place.

    Raises:
        InvalidInputError: it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise InvalidInputError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        InvalidInputError: it cannot be read; the message names it.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}") from error
