"""Connection, transactions and schema version of the SQL store.

Durability on SQLite: the database is in WAL mode with `synchronous=FULL`, so a transaction that
has returned is on the medium; neither the end of the process nor a power cut undoes it. The price,
one flush per commit, is shared by all reports that are committed together.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, NoSuchModuleError
from sqlalchemy.pool import StaticPool

from latlas_coordinator.storage.base import Store
from latlas_coordinator.storage.sql import schema as db
from latlas_coordinator.storage.sql.upgrade import upgrade
from latlas_ops.errors import InvalidInputError, MissingDependencyError, StorageError

_BUSY_TIMEOUT_MS = 30_000


class SqlBase(Store):
    """What every part of the SQL store needs: read and write transactions."""

    def __init__(self, url: URL) -> None:
        """Opens the database of `url` and creates its tables if it is empty.

        Raises:
            InvalidInputError: no driver has the name that the URL gives.
            MissingDependencyError: the driver is not installed.
            StorageError: it cannot be opened, is not Latlas's, or was made by a newer version.
        """
        self._shown = url.render_as_string(hide_password=True)
        if url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:"):
            self._shown = str(url.database)
        self._engine, in_memory = _make_engine(url)
        self._write_lock = threading.RLock()
        # One in-memory database is one connection, which only one thread may use at a time.
        self._read_lock = self._write_lock if in_memory else nullcontext()
        try:
            self._open_schema()
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """See `Store.close`."""
        with self._write_lock:
            self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database and changes nothing."""
        with self._read_lock, self._translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that is alone in writing, committed at the end of the block."""
        with (
            self._write_lock,
            self._translated(),
            self._engine.connect().execution_options(latlas_write=True) as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            reason = str(error.orig).splitlines()[0]
            raise StorageError(f"cannot use database {self._shown}: {reason}") from error

    def _open_schema(self) -> None:
        with self._writing() as connection:
            present = set(inspect(connection).get_table_names())
            if not present:
                db.metadata.create_all(connection)
                connection.execute(insert(db.schema).values(version=db.SCHEMA_VERSION))
                return
            if db.schema.name not in present:
                raise StorageError(
                    f"database {self._shown} is not one of Latlas: name another file, which is "
                    "created if it is not there"
                )
            version = connection.execute(select(db.schema.c.version)).scalar_one()
            upgrade(connection, version)
        if version > db.SCHEMA_VERSION:
            raise StorageError(
                f"database {self._shown} has schema {version} of a newer Latlas; this one reads up "
                f"to {db.SCHEMA_VERSION}: upgrade Latlas or name another file"
            )


def _make_engine(url: URL) -> tuple[Engine, bool]:
    if url.get_backend_name() != "sqlite":
        try:
            return create_engine(url, isolation_level="SERIALIZABLE"), False
        except NoSuchModuleError as error:
            raise InvalidInputError(
                f"not a database: no driver is named {url.drivername!r}; use sqlite or "
                "postgresql+psycopg"
            ) from error
        except ImportError as error:
            raise MissingDependencyError(
                f"database {url.drivername} needs the package {error.name}: install it"
            ) from error
    in_memory = url.database in (None, "", ":memory:")
    options: dict[str, Any] = {"poolclass": StaticPool} if in_memory else {}
    engine = create_engine(url, connect_args={"check_same_thread": False}, **options)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, record: object) -> None:
        # The driver's own transaction control begins too late to read and write consistently.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
        cursor.execute("PRAGMA foreign_keys=ON")
        if not in_memory:
            cursor.execute("PRAGMA journal_mode=WAL")
            cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("latlas_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine, in_memory
