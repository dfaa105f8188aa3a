"""`SqlStore`: the parts of the SQL store put together, and how one is opened."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from latlas_coordinator.storage.base import Store
from latlas_coordinator.storage.sql.agents import AgentRows
from latlas_coordinator.storage.sql.artefacts import ArtefactRows
from latlas_coordinator.storage.sql.leases import LeaseRows
from latlas_coordinator.storage.sql.rounds import RoundRows
from latlas_coordinator.storage.sql.visits import VisitRows
from latlas_coordinator.storage.sql.work import WorkRows
from latlas_ops.errors import InvalidInputError, StorageError


class SqlStore(AgentRows, ArtefactRows, WorkRows, RoundRows, LeaseRows, VisitRows):
    """The store on an SQL database; see `Store` for what each method does."""


def open_store(database: Path | str) -> Store:
    """The store in a SQLite file, in memory (`":memory:"`), or behind an SQLAlchemy URL.

    Raises:
        InvalidInputError: `database` looks like a URL and is not one of a known driver.
        MissingDependencyError: the driver is not installed.
        StorageError: it cannot be opened, is not Latlas's, or was made by a newer version.
    """
    url = _url(database)
    path = database_file(database)
    if path is not None and not path.parent.is_dir():
        raise StorageError(f"cannot keep a database in {path.parent}: no such folder; create it")
    return SqlStore(url)


def database_file(database: Path | str) -> Path | None:
    """The file that `open_store` would use; None where there is none.

    Raises:
        InvalidInputError: `database` looks like a URL and is not one.
    """
    url = _url(database)
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    return Path(str(url.database))


def _url(database: Path | str) -> URL:
    text = str(database)
    if text == ":memory:":
        return URL.create("sqlite", database=text)
    if "://" not in text:
        return URL.create("sqlite", database=str(Path(text).absolute()))
    try:
        return make_url(text)
    except (ArgumentError, ValueError) as error:
        raise InvalidInputError(
            f"not a database: {text!r}; name a file, or a URL such as sqlite:///latlas.db"
        ) from error
