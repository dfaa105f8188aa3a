"""One coordinator per database file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from latlas_ops.errors import StorageError

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]  # no such locks on this platform


@contextmanager
def exclusive(database: Path) -> Iterator[None]:
    """Holds `DATABASE.lock` for this process; it is free again when the process ends, however.

    Raises:
        StorageError: another coordinator holds it, or it cannot be written.
    """
    if fcntl is None:
        yield
        return
    path = database.with_name(database.name + ".lock")
    try:
        file = path.open("a")
    except OSError as error:
        raise StorageError(
            f"cannot keep a database at {database}: {error.strerror}; name another file"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageError(
                f"database {database} is in use by another coordinator: stop that one or name "
                "another file"
            ) from error
        yield
