"""How often tasks are visited, in the SQL store: rounds that are added and rounds that end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, case, func, select, update
from sqlalchemy.sql import ColumnElement

from latlas_coordinator.domain import Campaign, CampaignState, Findings, Looked, Suspicion
from latlas_coordinator.storage.packing import findings_from_json, findings_to_json
from latlas_coordinator.storage.sql import schema as db
from latlas_coordinator.storage.sql.engine import SqlBase
from latlas_coordinator.storage.sql.work import (
    NOT_GIVEN_UP,
    RUNNING,
    VISITS_OF_TASK,
    campaign_from_row,
    campaign_is_there,
    cancel_leases,
    has_open,
    no_campaign,
)
from latlas_ops.errors import NotFoundError

_MOST = case((VISITS_OF_TASK > 1, VISITS_OF_TASK), else_=1)
"""The rounds that a task has visits of, and at least one."""


class RoundRows(SqlBase):
    """The part of the store that knows which campaigns are done, and what is visited again."""

    def list_complete_campaigns(self) -> list[Campaign]:
        """See `Store.list_complete_campaigns`."""
        query = select(db.campaigns).where(RUNNING, ~has_open()).order_by(db.campaigns.c.number)
        with self._reading() as connection:
            return [campaign_from_row(row) for row in connection.execute(query)]

    def list_first_leases(self) -> dict[str, int]:
        """See `Store.list_first_leases`."""
        query = (
            select(db.leases.c.campaign, func.min(db.leases.c.created_ns))
            .join(db.campaigns, db.campaigns.c.name == db.leases.c.campaign)
            .where(RUNNING)
            .group_by(db.leases.c.campaign)
        )
        with self._reading() as connection:
            return {name: int(created_ns) for name, created_ns in connection.execute(query)}

    def end_rounds(self, campaign: str) -> bool:
        """See `Store.end_rounds`."""
        with self._writing() as connection:
            if not campaign_is_there(connection, campaign):
                raise no_campaign(connection, campaign)
            changed = connection.execute(
                update(db.tasks)
                .where(db.tasks.c.campaign == campaign, NOT_GIVEN_UP, db.tasks.c.n_rounds > _MOST)
                .values(n_rounds=_MOST)
            )
            if changed.rowcount:
                cancel_leases(connection, campaign)
            return bool(changed.rowcount)

    def end_task_rounds(self, task_id: str) -> None:
        """See `Store.end_task_rounds`."""
        with self._writing() as connection:
            changed = connection.execute(
                update(db.tasks).where(db.tasks.c.task_id == task_id).values(n_rounds=_MOST)
            )
            if not changed.rowcount:
                raise NotFoundError(f"no task {task_id!r}")

    def settle_campaign(
        self, name: str, findings: Findings, n_rounds: Mapping[str, int], looked: Looked
    ) -> bool:
        """See `Store.settle_campaign`."""
        values = {"findings": findings_to_json(findings)}
        if not n_rounds:
            values["state"] = CampaignState.FINISHED.value
        with self._writing() as connection:
            if not campaign_is_there(connection, name):
                raise no_campaign(connection, name)
            changed = connection.execute(
                update(db.campaigns)
                .where(db.campaigns.c.name == name, RUNNING, ~has_open(), *_is_as_looked_at(looked))
                .values(values)
            )
            if changed.rowcount:
                _add_rounds(connection, n_rounds, db.tasks.c.campaign == name)
            return bool(changed.rowcount)

    def add_rounds(
        self, campaign: str, n_rounds: Mapping[str, int], found: Sequence[Suspicion] = ()
    ) -> None:
        """See `Store.add_rounds`."""
        is_it = db.campaigns.c.name == campaign
        with self._writing() as connection:
            if not campaign_is_there(connection, campaign):
                raise no_campaign(connection, campaign)
            _add_rounds(connection, n_rounds, db.tasks.c.campaign == campaign)
            if found:
                known = connection.execute(select(db.campaigns.c.findings).where(is_it)).scalar()
                joined = (findings_from_json(known) or Findings()).joined_by(found)
                connection.execute(
                    update(db.campaigns).where(is_it).values(findings=findings_to_json(joined))
                )
            if n_rounds:
                has_finished = db.campaigns.c.state == CampaignState.FINISHED.value
                connection.execute(
                    update(db.campaigns)
                    .where(is_it, has_finished)
                    .values(state=CampaignState.RUNNING.value)
                )


def _is_as_looked_at(looked: Looked) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Whether a campaign has as many visits, and rounds, as when it was looked at."""
    of_it = db.tasks.c.campaign == db.campaigns.c.name
    n_rounds = select(func.coalesce(func.sum(db.tasks.c.n_rounds), 0)).where(of_it)
    n_visits = (
        select(func.count())
        .select_from(db.visits)
        .join(db.tasks, db.tasks.c.task_id == db.visits.c.task_id)
        .where(of_it)
    )
    return (
        n_rounds.correlate(db.campaigns).scalar_subquery() == looked.n_rounds,
        n_visits.correlate(db.campaigns).scalar_subquery() == looked.n_visits,
    )


def _add_rounds(
    connection: Connection, n_rounds: Mapping[str, int], *conditions: ColumnElement[bool]
) -> None:
    for task_id, n_more in n_rounds.items():
        changed = connection.execute(
            update(db.tasks)
            .where(db.tasks.c.task_id == task_id, *conditions)
            .values(n_rounds=db.tasks.c.n_rounds + n_more)
        )
        if not changed.rowcount:
            raise NotFoundError(f"no task {task_id!r}")
