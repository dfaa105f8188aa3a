"""Databases of earlier versions are brought to this one as they are opened."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Connection, inspect, select, update

from latlas_coordinator.storage.packing import pack_program
from latlas_coordinator.storage.sql import schema as db


def upgrade(connection: Connection, version: int) -> None:
    """Takes a database from schema `version` to `SCHEMA_VERSION`, in the caller's transaction."""
    if version == 1:
        _compress_programs(connection)
    if version <= 2:
        _add_column(connection, db.campaigns.c.findings)
    if version <= 3:
        _add_column(connection, db.visits.c.opening)
    if version < db.SCHEMA_VERSION:
        connection.execute(update(db.schema).values(version=db.SCHEMA_VERSION))


def _add_column(connection: Connection, column: Column[Any]) -> None:
    """Adds a column of JSON that may be null: version 3 findings, version 4 openings of visits."""
    table = column.table.name
    if column.name not in {there["name"] for there in inspect(connection).get_columns(table)}:
        connection.exec_driver_sql(f"ALTER TABLE {table} ADD COLUMN {column.name} JSON")


def _compress_programs(connection: Connection) -> None:
    """Version 2: programs are compressed."""
    data = db.program_data
    for sha256 in connection.execute(select(data.c.sha256)).scalars().all():
        is_program = data.c.sha256 == sha256
        plain = connection.execute(select(data.c.data).where(is_program)).scalar_one()
        connection.execute(update(data).where(is_program).values(data=pack_program(plain)))
