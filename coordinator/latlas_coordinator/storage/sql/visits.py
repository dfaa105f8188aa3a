"""Visits and failures in the SQL store: the reports of agents, committed in groups."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import Connection, insert, select, update

from latlas_coordinator.domain import (
    LeaseState,
    RecordedBatch,
    Report,
    ReportBatch,
    Role,
    VisitSummary,
)
from latlas_coordinator.storage.packing import (
    conditions_from_json,
    conditions_to_json,
    items_from_json,
    opening_from_json,
    opening_to_json,
    pack_nodes,
    pack_samples,
    unpack_nodes,
    unpack_samples,
)
from latlas_coordinator.storage.sql import schema as db
from latlas_coordinator.storage.sql.engine import SqlBase
from latlas_coordinator.storage.sql.work import campaign_is_there, no_campaign
from latlas_latency.measurement import PLAIN, PROFILED, Visit


class VisitRows(SqlBase):
    """The part of the store that takes in what agents report."""

    def record_reports(self, batches: Sequence[ReportBatch], now_ns: int) -> list[RecordedBatch]:
        """See `Store.record_reports`."""
        with self._writing() as connection:
            group = _Group.of(connection, batches)
            results = [group.take(batch) for batch in batches]
            if group.visit_rows:
                connection.execute(insert(db.visits), group.visit_rows)
            if group.failure_rows:
                connection.execute(insert(db.failures), group.failure_rows)
            for (agent_id, epoch), sequence in group.sequences.items():
                for table in (db.agents, db.devices):
                    connection.execute(
                        update(table)
                        .where(table.c.agent_id == agent_id, table.c.epoch == epoch)
                        .values(last_seen_ns=now_ns)
                    )
                connection.execute(
                    update(db.agents)
                    .where(db.agents.c.agent_id == agent_id, db.agents.c.epoch == epoch)
                    .values(last_sequence=sequence)
                )
            return results

    def list_visit_summaries(self, campaign: str) -> list[VisitSummary]:
        """See `Store.list_visit_summaries`."""
        query = (
            select(
                db.visits.c.task_id,
                db.visits.c.round,
                db.visits.c.device_id,
                db.visits.c.started_ns,
                db.visits.c.conditions,
                db.visits.c.network_samples,
            )
            .join(db.tasks, db.tasks.c.task_id == db.visits.c.task_id)
            .where(db.tasks.c.campaign == campaign)
            .order_by(db.tasks.c.number, db.visits.c.round)
        )
        with self._reading() as connection:
            if not campaign_is_there(connection, campaign):
                raise no_campaign(connection, campaign)
            rows = connection.execute(query).all()
        summaries = []
        for row in rows:
            samples_ns = unpack_samples(row.network_samples).samples_ns
            summaries.append(
                VisitSummary(
                    task_id=row.task_id,
                    round=row.round,
                    device_id=row.device_id,
                    started_ns=row.started_ns,
                    median_ns=round(float(np.median(samples_ns))),
                    n_runs=len(samples_ns),
                    conditions=conditions_from_json(row.conditions),
                )
            )
        return summaries

    def read_visits(
        self, campaign: str, roles: Collection[Role] | None = None
    ) -> dict[str, list[Visit]]:
        """See `Store.read_visits`."""
        query = (
            select(db.visits, db.tasks.c.mode)
            .join(db.tasks, db.tasks.c.task_id == db.visits.c.task_id)
            .where(db.tasks.c.campaign == campaign)
            .order_by(db.tasks.c.number, db.visits.c.round)
        )
        if roles is not None:
            query = query.where(db.tasks.c.role.in_([role.value for role in roles]))
        with self._reading() as connection:
            if not campaign_is_there(connection, campaign):
                raise no_campaign(connection, campaign)
            rows = connection.execute(query).all()
        visits: dict[str, list[Visit]] = {}
        for row in rows:
            nodes = () if row.node_samples is None else unpack_nodes(row.node_samples)
            visits.setdefault(row.task_id, []).append(
                Visit(
                    task_id=row.task_id,
                    device_id=row.device_id,
                    round=row.round,
                    mode=PLAIN if row.mode == PLAIN else PROFILED,
                    started_ns=row.started_ns,
                    duration_ns=row.duration_ns,
                    warmup_runs=row.warmup_runs,
                    series=(unpack_samples(row.network_samples), *nodes),
                    conditions=conditions_from_json(row.conditions),
                    opening=None if row.opening is None else opening_from_json(row.opening),
                )
            )
        return visits


@dataclass(frozen=True)
class _KnownLease:
    """What a report is checked against."""

    fencing_token: int
    agent_id: str
    epoch: int
    device_id: str
    active: bool
    rounds: dict[str, frozenset[int]]


@dataclass
class _Group:
    """The reports of one transaction: what is known before it, and the rows that it adds."""

    leases: dict[str, _KnownLease]
    modes: dict[str, str]
    visited: set[tuple[str, int]]
    epochs: dict[str, int]
    sequences: dict[tuple[str, int], int]
    visit_rows: list[dict[str, Any]] = field(default_factory=list)
    failure_rows: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, connection: Connection, batches: Sequence[ReportBatch]) -> _Group:
        """Reads what the reports of `batches` are checked against."""
        reports = [report for batch in batches for report in batch.reports]
        leases = {
            row.lease_id: _KnownLease(
                fencing_token=row.fencing_token,
                agent_id=row.agent_id,
                epoch=row.epoch,
                device_id=row.device_id,
                active=row.state == LeaseState.ACTIVE.value,
                rounds={
                    item.task_id: frozenset(item.rounds) for item in items_from_json(row.items)
                },
            )
            for row in connection.execute(
                select(db.leases).where(
                    db.leases.c.lease_id.in_({report.lease.lease_id for report in reports})
                )
            )
        }
        task_ids = {report.outcome.task_id for report in reports}
        modes: dict[str, str] = {
            row.task_id: row.mode
            for row in connection.execute(
                select(db.tasks.c.task_id, db.tasks.c.mode).where(db.tasks.c.task_id.in_(task_ids))
            )
        }
        visited = {
            (row.task_id, row.round)
            for row in connection.execute(
                select(db.visits.c.task_id, db.visits.c.round).where(
                    db.visits.c.task_id.in_(task_ids)
                )
            )
        }
        agents = connection.execute(
            select(db.agents).where(db.agents.c.agent_id.in_({batch.agent_id for batch in batches}))
        ).all()
        return cls(
            leases=leases,
            modes=modes,
            visited=visited,
            epochs={row.agent_id: row.epoch for row in agents},
            sequences={(row.agent_id, row.epoch): row.last_sequence for row in agents},
        )

    def take(self, batch: ReportBatch) -> RecordedBatch:
        """Turns the reports of one batch into rows, or refuses them."""
        key = (batch.agent_id, batch.epoch)
        if self.epochs.get(batch.agent_id) != batch.epoch:
            last = max((report.sequence for report in batch.reports), default=0)
            reason = f"agent {batch.agent_id} is not in epoch {batch.epoch}"
            return RecordedBatch(last, refused=(reason,) * len(batch.reports))
        n_visits = n_failures = n_duplicates = 0
        refused = []
        for report in batch.reports:
            if report.sequence <= self.sequences[key]:
                n_duplicates += 1
                continue
            self.sequences[key] = report.sequence
            reason = self._objection(report, batch)
            if reason:
                refused.append(reason)
            elif isinstance(report.outcome, Visit):
                self._add_visit(report.outcome, report, batch)
                n_visits += 1
            else:
                self.failure_rows.append(
                    {
                        **self._origin(report, batch),
                        "error_code": report.outcome.error_code,
                        "reason": report.outcome.reason,
                    }
                )
                n_failures += 1
        return RecordedBatch(
            self.sequences[key], n_visits, n_failures, n_duplicates, tuple(refused)
        )

    def _objection(self, report: Report, batch: ReportBatch) -> str:
        """Why a report does not count; empty if it does."""
        lease, outcome = self.leases.get(report.lease.lease_id), report.outcome
        if (
            lease is None
            or not lease.active
            or lease.fencing_token != report.lease.fencing_token
            or (lease.agent_id, lease.epoch) != (batch.agent_id, batch.epoch)
        ):
            return f"lease {report.lease.lease_id} with token {report.lease.fencing_token} is lost"
        if outcome.task_id not in lease.rounds:
            return f"task {outcome.task_id} is not in lease {report.lease.lease_id}"
        if not isinstance(outcome, Visit):
            return ""
        if outcome.round not in lease.rounds[outcome.task_id]:
            return f"round {outcome.round} of task {outcome.task_id} was not leased"
        if outcome.device_id != lease.device_id:
            return f"device {outcome.device_id} does not hold lease {report.lease.lease_id}"
        if outcome.mode != self.modes[outcome.task_id]:
            return f"task {outcome.task_id} is to be {self.modes[outcome.task_id]}"
        if (outcome.task_id, outcome.round) in self.visited:
            return f"round {outcome.round} of task {outcome.task_id} has a visit"
        return ""

    def _origin(self, report: Report, batch: ReportBatch) -> dict[str, Any]:
        return {
            "task_id": report.outcome.task_id,
            "fencing_token": report.lease.fencing_token,
            "agent_id": batch.agent_id,
            "epoch": batch.epoch,
            "sequence": report.sequence,
        }

    def _add_visit(self, visit: Visit, report: Report, batch: ReportBatch) -> None:
        self.visited.add((visit.task_id, visit.round))
        self.visit_rows.append(
            {
                **self._origin(report, batch),
                "round": visit.round,
                "device_id": visit.device_id,
                "started_ns": visit.started_ns,
                "duration_ns": visit.duration_ns,
                "warmup_runs": visit.warmup_runs,
                "conditions": conditions_to_json(visit.conditions),
                "network_samples": pack_samples(visit.series[0]),
                "node_samples": pack_nodes(visit.nodes) if visit.nodes else None,
                "opening": None if visit.opening is None else opening_to_json(visit.opening),
            }
        )
