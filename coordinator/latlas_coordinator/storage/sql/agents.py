"""Agents, devices and targets in the SQL store."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import insert, select, update

from latlas_coordinator.domain import AgentRecord, DeviceRecord, LeaseState
from latlas_coordinator.storage.packing import device_from_json, device_to_json
from latlas_coordinator.storage.sql import schema as db
from latlas_coordinator.storage.sql.engine import SqlBase
from latlas_latency.measurement import Device, Target
from latlas_ops.errors import ConflictError, NotFoundError

_ACTIVE = db.leases.c.state == LeaseState.ACTIVE.value


class AgentRows(SqlBase):
    """The part of the store that knows agents, their devices, and targets."""

    def recover(self, deadline_ns: int) -> None:
        """See `Store.recover`."""
        with self._writing() as connection:
            connection.execute(update(db.devices).values(connected=False))
            connection.execute(
                update(db.leases)
                .where(_ACTIVE, db.leases.c.deadline_ns < deadline_ns)
                .values(deadline_ns=deadline_ns)
            )

    def attach_agent(self, agent: AgentRecord, devices: Sequence[Device], now_ns: int) -> int:
        """See `Store.attach_agent`."""
        with self._writing() as connection:
            is_agent = db.agents.c.agent_id == agent.agent_id
            known = connection.execute(select(db.agents).where(is_agent)).one_or_none()
            values = {"epoch": agent.epoch, "version": agent.version, "last_seen_ns": now_ns}
            last_sequence = 0
            if known is None:
                connection.execute(
                    insert(db.agents).values(agent_id=agent.agent_id, last_sequence=0, **values)
                )
            elif known.epoch > agent.epoch:
                raise ConflictError(
                    f"agent {agent.agent_id} is known with epoch {known.epoch}, newer than "
                    f"{agent.epoch}: another process of it has started since; stop this one"
                )
            else:
                last_sequence = known.last_sequence if known.epoch == agent.epoch else 0
                connection.execute(
                    update(db.agents).where(is_agent).values(last_sequence=last_sequence, **values)
                )
            connection.execute(
                update(db.leases)
                .where(
                    _ACTIVE, db.leases.c.agent_id == agent.agent_id, db.leases.c.epoch < agent.epoch
                )
                .values(state=LeaseState.SUPERSEDED.value)
            )
            connection.execute(
                update(db.devices)
                .where(db.devices.c.agent_id == agent.agent_id)
                .values(connected=False)
            )
            for device in devices:
                is_device = db.devices.c.device_id == device.device_id
                row = connection.execute(select(db.devices).where(is_device)).one_or_none()
                if row is not None and row.connected:
                    raise ConflictError(
                        f"device {device.device_id} is connected through agent {row.agent_id} and "
                        f"cannot be through {agent.agent_id} too: if the boards were cloned from "
                        "one image, remove the identity file on one of them and restart its agent"
                    )
                found = {
                    "agent_id": agent.agent_id,
                    "epoch": agent.epoch,
                    "connected": True,
                    "last_seen_ns": now_ns,
                    "record": device_to_json(device),
                }
                if row is None:
                    connection.execute(
                        insert(db.devices).values(device_id=device.device_id, **found)
                    )
                else:
                    connection.execute(update(db.devices).where(is_device).values(**found))
            return int(last_sequence)

    def detach_agent(self, agent_id: str, epoch: int, now_ns: int) -> None:
        """See `Store.detach_agent`."""
        with self._writing() as connection:
            connection.execute(
                update(db.devices)
                .where(
                    db.devices.c.agent_id == agent_id,
                    db.devices.c.epoch == epoch,
                    db.devices.c.connected,
                )
                .values(connected=False, last_seen_ns=now_ns)
            )

    def list_devices(self) -> list[DeviceRecord]:
        """See `Store.list_devices`."""
        query = (
            select(db.devices, db.leases.c.campaign)
            .outerjoin(db.leases, (db.leases.c.device_id == db.devices.c.device_id) & _ACTIVE)
            .order_by(db.devices.c.device_id)
        )
        with self._reading() as connection:
            return [
                DeviceRecord(
                    device=device_from_json(row.record),
                    agent_id=row.agent_id,
                    epoch=row.epoch,
                    connected=row.connected,
                    last_seen_ns=row.last_seen_ns,
                    busy_with=row.campaign or "",
                )
                for row in connection.execute(query)
            ]

    def add_target(self, target: Target) -> None:
        """See `Store.add_target`."""
        with self._writing() as connection:
            record = connection.execute(
                select(db.targets.c.record).where(db.targets.c.name == target.name)
            ).scalar_one_or_none()
            if record is None:
                connection.execute(
                    insert(db.targets).values(name=target.name, record=target.to_dict())
                )
                return
        theirs = Target.from_dict(record).conditions()
        for field, value in target.conditions().items():
            if theirs[field] != value:
                raise ConflictError(
                    f"target {target.name!r} is there with {field} {theirs[field]!r}, not "
                    f"{value!r}: choose another name"
                )

    def get_target(self, name: str) -> Target:
        """See `Store.get_target`."""
        with self._reading() as connection:
            record = connection.execute(
                select(db.targets.c.record).where(db.targets.c.name == name)
            ).scalar_one_or_none()
            if record is None:
                names = connection.execute(select(db.targets.c.name).order_by(db.targets.c.name))
                there = ", ".join(names.scalars()) or "none yet; see `latlas target add`"
                raise NotFoundError(f"no target {name!r}; there are: {there}")
        return Target.from_dict(record)

    def list_targets(self) -> list[Target]:
        """See `Store.list_targets`."""
        with self._reading() as connection:
            records = connection.execute(select(db.targets.c.record).order_by(db.targets.c.name))
            return [Target.from_dict(record) for record in records.scalars()]
