"""Leases in the SQL store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from latlas_coordinator.domain import (
    CampaignState,
    LeaseItem,
    LeaseRecord,
    LeaseReference,
    LeaseState,
    NewLease,
)
from latlas_coordinator.storage.packing import items_from_json, items_to_json
from latlas_coordinator.storage.sql import schema as db
from latlas_coordinator.storage.sql.engine import SqlBase
from latlas_ops.errors import ConflictError, NotFoundError

_ACTIVE = db.leases.c.state == LeaseState.ACTIVE.value
_UNDONE_CODE = "MeasurementError"


class LeaseRows(SqlBase):
    """The part of the store that knows who works on what."""

    def create_lease(self, lease: NewLease) -> LeaseRecord:
        """See `Store.create_lease`."""
        with self._writing() as connection:
            holder = connection.execute(
                select(db.leases.c.lease_id).where(
                    _ACTIVE, db.leases.c.device_id == lease.device_id
                )
            ).scalar_one_or_none()
            if holder is not None:
                raise ConflictError(f"device {lease.device_id} holds lease {holder}")
            state = connection.execute(
                select(db.campaigns.c.state).where(db.campaigns.c.name == lease.campaign)
            ).scalar_one_or_none()
            if state != CampaignState.RUNNING.value:
                raise ConflictError(f"campaign {lease.campaign!r} is not running")
            epoch = connection.execute(
                select(db.agents.c.epoch).where(db.agents.c.agent_id == lease.agent_id)
            ).scalar_one_or_none()
            if epoch != lease.epoch:
                raise ConflictError(f"agent {lease.agent_id} is not in epoch {lease.epoch}")
            key = connection.execute(
                insert(db.leases).values(
                    lease_id=lease.lease_id,
                    agent_id=lease.agent_id,
                    epoch=lease.epoch,
                    device_id=lease.device_id,
                    campaign=lease.campaign,
                    items=items_to_json(lease.items),
                    created_ns=lease.created_ns,
                    deadline_ns=lease.deadline_ns,
                    state=LeaseState.ACTIVE.value,
                )
            ).inserted_primary_key
            assert key is not None
            return LeaseRecord(fencing_token=int(key[0]), **vars(lease))

    def list_active_leases(self) -> list[LeaseRecord]:
        """See `Store.list_active_leases`."""
        with self._reading() as connection:
            rows = connection.execute(
                select(db.leases).where(_ACTIVE).order_by(db.leases.c.fencing_token)
            ).all()
            failed: dict[int, set[str]] = defaultdict(set)
            for token, task_id in connection.execute(
                select(db.failures.c.fencing_token, db.failures.c.task_id)
                .join(db.leases, db.leases.c.fencing_token == db.failures.c.fencing_token)
                .where(_ACTIVE)
            ):
                failed[token].add(task_id)
        return [
            _lease(
                row,
                tuple(
                    item
                    for item in items_from_json(row.items)
                    if item.task_id not in failed[row.fencing_token]
                ),
            )
            for row in rows
        ]

    def get_lease(self, lease_id: str) -> LeaseRecord:
        """See `Store.get_lease`."""
        with self._reading() as connection:
            row = connection.execute(
                select(db.leases).where(db.leases.c.lease_id == lease_id)
            ).one_or_none()
        if row is None:
            raise NotFoundError(f"no lease {lease_id!r}")
        return _lease(row, items_from_json(row.items))

    def extend_leases(
        self,
        agent_id: str,
        epoch: int,
        leases: Sequence[LeaseReference],
        deadline_ns: int,
        now_ns: int,
    ) -> list[LeaseReference]:
        """See `Store.extend_leases`."""
        with self._writing() as connection:
            rows = connection.execute(
                select(db.leases.c.lease_id, db.leases.c.fencing_token).where(
                    _ACTIVE, db.leases.c.agent_id == agent_id, db.leases.c.epoch == epoch
                )
            )
            active = {LeaseReference(row.lease_id, row.fencing_token) for row in rows}
            extended = [lease for lease in leases if lease in active]
            connection.execute(
                update(db.leases)
                .where(db.leases.c.lease_id.in_([lease.lease_id for lease in extended]))
                .values(deadline_ns=deadline_ns)
            )
            connection.execute(
                update(db.devices)
                .where(db.devices.c.agent_id == agent_id, db.devices.c.epoch == epoch)
                .values(last_seen_ns=now_ns)
            )
            connection.execute(
                update(db.agents)
                .where(db.agents.c.agent_id == agent_id, db.agents.c.epoch == epoch)
                .values(last_seen_ns=now_ns)
            )
            return extended

    def end_lease(self, lease_id: str, state: LeaseState) -> None:
        """See `Store.end_lease`."""
        with self._writing() as connection:
            is_lease = db.leases.c.lease_id == lease_id
            if connection.execute(select(db.leases.c.state).where(is_lease)).first() is None:
                raise NotFoundError(f"no lease {lease_id!r}")
            connection.execute(update(db.leases).where(is_lease, _ACTIVE).values(state=state.value))

    def finish_lease(self, agent_id: str, epoch: int, lease: LeaseReference) -> None:
        """See `Store.finish_lease`."""
        with self._writing() as connection:
            row = connection.execute(
                select(db.leases).where(
                    _ACTIVE,
                    db.leases.c.lease_id == lease.lease_id,
                    db.leases.c.fencing_token == lease.fencing_token,
                    db.leases.c.agent_id == agent_id,
                    db.leases.c.epoch == epoch,
                )
            ).one_or_none()
            if row is None:
                return
            undone = _undone_tasks(connection, row.fencing_token, items_from_json(row.items))
            if undone:
                connection.execute(
                    insert(db.failures),
                    [
                        {
                            "task_id": task_id,
                            "fencing_token": row.fencing_token,
                            "agent_id": agent_id,
                            "epoch": epoch,
                            "sequence": None,
                            "error_code": _UNDONE_CODE,
                            "reason": f"device {row.device_id} ended its lease without this task",
                        }
                        for task_id in undone
                    ],
                )
            connection.execute(
                update(db.leases)
                .where(db.leases.c.fencing_token == row.fencing_token)
                .values(state=LeaseState.FINISHED.value)
            )


def _undone_tasks(
    connection: Connection, fencing_token: int, items: Sequence[LeaseItem]
) -> list[str]:
    """Tasks that lack a visit they were leased for, and did not fail under the lease."""
    leased = {item.task_id: set(item.rounds) for item in items}
    campaign_visits = (
        select(db.visits.c.task_id, db.visits.c.round)
        .join(db.tasks, db.tasks.c.task_id == db.visits.c.task_id)
        .join(db.leases, db.leases.c.campaign == db.tasks.c.campaign)
        .where(db.leases.c.fencing_token == fencing_token)
    )
    for task_id, number in connection.execute(campaign_visits):
        if task_id in leased:
            leased[task_id].discard(number)
    failed = set(
        connection.execute(
            select(db.failures.c.task_id).where(db.failures.c.fencing_token == fencing_token)
        ).scalars()
    )
    return [task_id for task_id, rounds in leased.items() if rounds and task_id not in failed]


def _lease(row: Row[Any], items: tuple[LeaseItem, ...]) -> LeaseRecord:
    return LeaseRecord(
        lease_id=row.lease_id,
        fencing_token=row.fencing_token,
        agent_id=row.agent_id,
        epoch=row.epoch,
        device_id=row.device_id,
        campaign=row.campaign,
        items=items,
        created_ns=row.created_ns,
        deadline_ns=row.deadline_ns,
        state=LeaseState(row.state),
    )
