"""Programs and latency models in the SQL store: records in one table, bytes in another."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from latlas_coordinator.domain import LatencyModelRecord, ProgramOrigin, ProgramRecord
from latlas_coordinator.storage.packing import (
    pack_program,
    unpack_program,
    validation_from_json,
    validation_to_json,
)
from latlas_coordinator.storage.sql import schema as db
from latlas_coordinator.storage.sql.engine import SqlBase
from latlas_latency.measurement import Target
from latlas_ops.errors import ConflictError, CorruptProgramError, NotFoundError

_NAMES_PER_QUERY = 500


class ArtefactRows(SqlBase):
    """The part of the store that keeps programs and latency models."""

    def put_program(self, record: ProgramRecord, data: bytes) -> None:
        """See `Store.put_program`."""
        found = hashlib.sha256(data).hexdigest()
        if (found, len(data)) != (record.sha256, record.n_bytes):
            raise CorruptProgramError(
                f"program {record.sha256} ({record.n_bytes} bytes) arrived with hash {found} "
                f"({len(data)} bytes): send it again"
            )
        meaning = {
            "origin": record.origin.value,
            "network": record.network_json,
            "tensor_positions": dict(record.tensor_positions),
        }
        is_program = db.programs.c.sha256 == record.sha256
        with self._reading() as connection:
            is_there = connection.execute(select(db.programs).where(is_program)).first()
        # Compressing takes a second for 30 MB of trained weights: not while others wait to write.
        packed = b"" if is_there else pack_program(data)
        with self._writing() as connection:
            row = connection.execute(select(db.programs).where(is_program)).one_or_none()
            if row is None:
                connection.execute(
                    insert(db.programs).values(
                        sha256=record.sha256,
                        format=record.format,
                        n_bytes=record.n_bytes,
                        **meaning,
                    )
                )
                connection.execute(
                    insert(db.program_data).values(sha256=record.sha256, data=packed)
                )
            elif row.format != record.format:
                raise ConflictError(
                    f"program {record.sha256} is there as {row.format}, not {record.format}"
                )
            elif row.network is None and record.network_json is not None:
                connection.execute(update(db.programs).where(is_program).values(**meaning))

    def get_program(self, sha256: str) -> ProgramRecord:
        """See `Store.get_program`."""
        return self.get_programs([sha256])[sha256]

    def get_programs(self, sha256s: Collection[str]) -> dict[str, ProgramRecord]:
        """See `Store.get_programs`."""
        wanted = list(dict.fromkeys(sha256s))
        with self._reading() as connection:
            found = {
                row.sha256: _program(row)
                for start in range(0, len(wanted), _NAMES_PER_QUERY)
                for row in connection.execute(
                    select(db.programs).where(
                        db.programs.c.sha256.in_(wanted[start : start + _NAMES_PER_QUERY])
                    )
                )
            }
        for sha256 in wanted:
            if sha256 not in found:
                raise _no_program(sha256)
        return found

    def read_program(self, sha256: str) -> bytes:
        """See `Store.read_program`."""
        with self._reading() as connection:
            data = connection.execute(
                select(db.program_data.c.data).where(db.program_data.c.sha256 == sha256)
            ).scalar_one_or_none()
        if data is None:
            raise _no_program(sha256)
        return unpack_program(data)

    def put_latency_model(self, record: LatencyModelRecord, data: bytes) -> None:
        """See `Store.put_latency_model`."""
        with self._writing() as connection:
            is_model = db.latency_models.c.name == record.name
            row = connection.execute(select(db.latency_models).where(is_model)).one_or_none()
            if row is not None:
                _require_same_origin(_model(row), record)
                connection.execute(
                    delete(db.latency_model_data).where(db.latency_model_data.c.name == record.name)
                )
                connection.execute(delete(db.latency_models).where(is_model))
            connection.execute(
                insert(db.latency_models).values(
                    name=record.name,
                    kind=record.kind,
                    space=record.space,
                    target=record.target.to_dict(),
                    campaign=record.campaign,
                    created_ns=record.created_ns,
                    n_entries=record.n_entries,
                    calibrated=record.calibrated,
                    validation=validation_to_json(record.validation),
                )
            )
            connection.execute(insert(db.latency_model_data).values(name=record.name, data=data))

    def get_latency_model(self, name: str) -> LatencyModelRecord:
        """See `Store.get_latency_model`."""
        with self._reading() as connection:
            row = connection.execute(
                select(db.latency_models).where(db.latency_models.c.name == name)
            ).one_or_none()
            if row is None:
                raise _no_model(connection, name)
            return _model(row)

    def read_latency_model(self, name: str) -> bytes:
        """See `Store.read_latency_model`."""
        with self._reading() as connection:
            data = connection.execute(
                select(db.latency_model_data.c.data).where(db.latency_model_data.c.name == name)
            ).scalar_one_or_none()
            if data is None:
                raise _no_model(connection, name)
            return bytes(data)

    def list_latency_models(self) -> list[LatencyModelRecord]:
        """See `Store.list_latency_models`."""
        with self._reading() as connection:
            rows = connection.execute(select(db.latency_models).order_by(db.latency_models.c.name))
            return [_model(row) for row in rows]


def _no_program(sha256: str) -> NotFoundError:
    return NotFoundError(f"no program {sha256!r}: upload it first")


def _no_model(connection: Connection, name: str) -> NotFoundError:
    names = connection.execute(
        select(db.latency_models.c.name).order_by(db.latency_models.c.name)
    ).scalars()
    return NotFoundError(
        f"no latency model {name!r}; there are: {', '.join(names) or 'none yet; build a table'}"
    )


def _require_same_origin(there: LatencyModelRecord, new: LatencyModelRecord) -> None:
    for field, old_value, new_value in (
        ("kind", there.kind, new.kind),
        ("space", there.space, new.space),
        ("campaign", there.campaign, new.campaign),
        ("target", there.target.name, new.target.name),
        ("target conditions", there.target.conditions(), new.target.conditions()),
    ):
        if old_value != new_value:
            raise ConflictError(
                f"latency model {new.name!r} is there with {field} {old_value!r}, not "
                f"{new_value!r}: choose another name"
            )


def _program(row: Row[Any]) -> ProgramRecord:
    return ProgramRecord(
        sha256=row.sha256,
        format=row.format,
        n_bytes=row.n_bytes,
        origin=ProgramOrigin(row.origin),
        network_json=row.network,
        tensor_positions=row.tensor_positions,
    )


def _model(row: Row[Any]) -> LatencyModelRecord:
    return LatencyModelRecord(
        name=row.name,
        kind=row.kind,
        space=row.space,
        target=Target.from_dict(row.target),
        campaign=row.campaign,
        created_ns=row.created_ns,
        n_entries=row.n_entries,
        calibrated=row.calibrated,
        validation=validation_from_json(row.validation),
    )
