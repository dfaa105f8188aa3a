"""The store on an SQL database: SQLite by default."""

from latlas_coordinator.storage.sql.store import SqlStore, database_file, open_store

__all__ = ["SqlStore", "database_file", "open_store"]
