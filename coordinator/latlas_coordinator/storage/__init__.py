"""Where the coordinator keeps everything: one interface and its implementations."""

from latlas_coordinator.storage.base import Store
from latlas_coordinator.storage.sql import SqlStore, database_file, open_store

__all__ = ["SqlStore", "Store", "database_file", "open_store"]
