"""Campaigns and their tasks in the SQL store."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Connection,
    Row,
    Select,
    and_,
    case,
    distinct,
    exists,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.sql import ColumnElement

from latlas_coordinator.domain import (
    Campaign,
    CampaignState,
    CampaignStatus,
    FailedTask,
    LeaseState,
    Role,
    Sampling,
    Task,
    TaskFailure,
    TaskProgress,
)
from latlas_coordinator.storage.packing import (
    arch_from_json,
    arch_to_json,
    findings_from_json,
    plan_from_json,
    plan_to_json,
)
from latlas_coordinator.storage.sql import schema as db
from latlas_coordinator.storage.sql.engine import SqlBase
from latlas_ops.errors import ConflictError, NotFoundError

RUNNING = db.campaigns.c.state == CampaignState.RUNNING.value
NOT_GIVEN_UP = db.tasks.c.error_code.is_(None)
VISITS_OF_TASK = (
    select(func.count())
    .select_from(db.visits)
    .where(db.visits.c.task_id == db.tasks.c.task_id)
    .correlate(db.tasks)
    .scalar_subquery()
)
_OPEN = and_(NOT_GIVEN_UP, db.tasks.c.n_rounds > VISITS_OF_TASK)


class WorkRows(SqlBase):
    """The part of the store that knows what is to be measured and how far it is."""

    def create_campaign(self, campaign: Campaign, tasks: Sequence[Task]) -> None:
        """See `Store.create_campaign`."""
        with self._writing() as connection:
            _require(connection, db.targets.c.name, [campaign.target], "target")
            _require(
                connection, db.programs.c.sha256, [task.program_sha256 for task in tasks], "program"
            )
            if campaign_is_there(connection, campaign.name):
                raise ConflictError(
                    f"campaign {campaign.name!r} is already there: choose another name"
                )
            connection.execute(
                insert(db.campaigns).values(
                    name=campaign.name,
                    target=campaign.target,
                    state=campaign.state.value,
                    created_ns=campaign.created_ns,
                    plan=plan_to_json(campaign.plan),
                    sampling=dict(vars(campaign.sampling)),
                )
            )
            if tasks:
                connection.execute(
                    insert(db.tasks),
                    [
                        {
                            "task_id": task.task_id,
                            "campaign": campaign.name,
                            "program": task.program_sha256,
                            "mode": task.mode,
                            "role": task.role.value,
                            "label": task.label,
                            "n_rounds": task.sampling.n_rounds,
                            "arch": arch_to_json(task.arch),
                        }
                        for task in tasks
                    ],
                )

    def get_campaign(self, name: str) -> CampaignStatus:
        """See `Store.get_campaign`."""
        with self._reading() as connection:
            found = _statuses(connection, db.campaigns.c.name == name)
            if not found:
                raise no_campaign(connection, name)
            return found[0]

    def list_campaigns(self) -> list[CampaignStatus]:
        """See `Store.list_campaigns`."""
        with self._reading() as connection:
            return _statuses(connection)

    def cancel_campaign(self, name: str) -> None:
        """See `Store.cancel_campaign`."""
        with self._writing() as connection:
            if not campaign_is_there(connection, name):
                raise no_campaign(connection, name)
            connection.execute(
                update(db.campaigns)
                .where(db.campaigns.c.name == name, RUNNING)
                .values(state=CampaignState.CANCELLED.value)
            )
            cancel_leases(connection, name)

    def list_tasks(self, campaign: str) -> list[TaskProgress]:
        """See `Store.list_tasks`."""
        with self._reading() as connection:
            if not campaign_is_there(connection, campaign):
                raise no_campaign(connection, campaign)
            return _progress(connection, db.tasks.c.campaign == campaign)

    def list_open_tasks(self) -> list[TaskProgress]:
        """See `Store.list_open_tasks`."""
        with self._reading() as connection:
            return _progress(connection, and_(RUNNING, _OPEN))

    def give_up_task(self, failure: TaskFailure) -> None:
        """See `Store.give_up_task`."""
        with self._writing() as connection:
            changed = connection.execute(
                update(db.tasks)
                .where(db.tasks.c.task_id == failure.task_id)
                .values(error_code=failure.error_code, reason=failure.reason)
            )
            if not changed.rowcount:
                raise NotFoundError(f"no task {failure.task_id!r}")


def has_open() -> ColumnElement[bool]:
    """Whether a campaign has a task that lacks visits and was not given up."""
    return exists().where(db.tasks.c.campaign == db.campaigns.c.name, _OPEN)


def campaign_is_there(connection: Connection, name: str) -> bool:
    """Whether a campaign of that name is kept."""
    query = select(db.campaigns.c.number).where(db.campaigns.c.name == name)
    return connection.execute(query).first() is not None


def no_campaign(connection: Connection, name: str) -> NotFoundError:
    """The error for a campaign that is not there, listing those that are."""
    names = connection.execute(
        select(db.campaigns.c.name).order_by(db.campaigns.c.number)
    ).scalars()
    return NotFoundError(f"no campaign {name!r}; there are: {', '.join(names) or 'none yet'}")


def cancel_leases(connection: Connection, campaign: str) -> None:
    """Ends the active leases of a campaign as `CANCELLED`."""
    connection.execute(
        update(db.leases)
        .where(db.leases.c.campaign == campaign, db.leases.c.state == LeaseState.ACTIVE.value)
        .values(state=LeaseState.CANCELLED.value)
    )


def _require(
    connection: Connection, column: ColumnElement[str], names: Iterable[str], what: str
) -> None:
    wanted = set(names)
    missing = wanted - set(connection.execute(select(column)).scalars()) if wanted else set()
    if missing:
        raise NotFoundError(f"no {what} {sorted(missing)[0]!r}: add it before the campaign")


def campaign_from_row(row: Row[Any]) -> Campaign:
    """A campaign as it is kept."""
    return Campaign(
        name=row.name,
        target=row.target,
        plan=plan_from_json(row.plan),
        sampling=Sampling(**row.sampling),
        created_ns=row.created_ns,
        state=CampaignState(row.state),
    )


def _statuses(
    connection: Connection, condition: ColumnElement[bool] | None = None
) -> list[CampaignStatus]:
    def narrowed(query: Select[Any]) -> Select[Any]:
        return query if condition is None else query.where(condition)

    rows = connection.execute(narrowed(select(db.campaigns)).order_by(db.campaigns.c.number)).all()
    per_task = (
        select(
            db.tasks.c.campaign,
            db.tasks.c.n_rounds,
            db.tasks.c.error_code,
            func.count(db.visits.c.number).label("n_visits"),
        )
        .select_from(db.tasks)
        .join(db.campaigns, db.campaigns.c.name == db.tasks.c.campaign)
        .outerjoin(db.visits, db.visits.c.task_id == db.tasks.c.task_id)
        .group_by(db.tasks.c.number)
    )
    of_task = narrowed(per_task).subquery()
    wanted = case(
        (of_task.c.error_code.is_(None), of_task.c.n_rounds),
        else_=of_task.c.n_visits,
    )
    counts = {
        row.campaign: row
        for row in connection.execute(
            select(
                of_task.c.campaign,
                func.count().label("n_tasks"),
                func.sum(wanted).label("n_wanted"),
                func.sum(of_task.c.n_visits).label("n_done"),
            ).group_by(of_task.c.campaign)
        )
    }
    failed: dict[str, list[FailedTask]] = defaultdict(list)
    for row in connection.execute(
        narrowed(select(db.tasks).join(db.campaigns, db.campaigns.c.name == db.tasks.c.campaign))
        .where(~NOT_GIVEN_UP)
        .order_by(db.tasks.c.number)
    ):
        failed[row.campaign].append(
            FailedTask(row.label, TaskFailure(row.task_id, row.error_code, row.reason))
        )
    return [
        CampaignStatus(
            campaign=campaign_from_row(row),
            n_tasks=counts[row.name].n_tasks if row.name in counts else 0,
            n_visits_wanted=int(counts[row.name].n_wanted) if row.name in counts else 0,
            n_visits_done=int(counts[row.name].n_done) if row.name in counts else 0,
            failed=tuple(failed[row.name]),
            findings=findings_from_json(row.findings),
        )
        for row in rows
    ]


def _progress(connection: Connection, condition: ColumnElement[bool]) -> list[TaskProgress]:
    rows = connection.execute(
        select(db.tasks, db.campaigns.c.target, db.campaigns.c.sampling)
        .join(db.campaigns, db.campaigns.c.name == db.tasks.c.campaign)
        .where(condition)
        .order_by(db.campaigns.c.number, db.tasks.c.number)
    ).all()

    def joined(query: Select[Any], task_id: ColumnElement[str]) -> Select[Any]:
        return (
            query.join(db.tasks, db.tasks.c.task_id == task_id)
            .join(db.campaigns, db.campaigns.c.name == db.tasks.c.campaign)
            .where(condition)
        )

    visited: dict[str, set[int]] = defaultdict(set)
    for task_id, number in connection.execute(
        joined(select(db.visits.c.task_id, db.visits.c.round), db.visits.c.task_id)
    ):
        visited[task_id].add(number)
    attempts: Mapping[str, int] = {
        row.task_id: row.attempts
        for row in connection.execute(
            joined(
                select(
                    db.failures.c.task_id,
                    func.count(distinct(db.failures.c.fencing_token)).label("attempts"),
                ),
                db.failures.c.task_id,
            ).group_by(db.failures.c.task_id)
        )
    }
    last_failure = {
        row.task_id: TaskFailure(row.task_id, row.error_code, row.reason)
        for row in connection.execute(
            joined(select(db.failures), db.failures.c.task_id).order_by(db.failures.c.number)
        )
    }
    samplings: dict[str, Sampling] = {}
    found = []
    for row in rows:
        sampling = samplings.setdefault(row.campaign, Sampling(**row.sampling))
        found.append(
            TaskProgress(
                task=Task(
                    task_id=row.task_id,
                    campaign=row.campaign,
                    target=row.target,
                    program_sha256=row.program,
                    mode=row.mode,
                    role=Role(row.role),
                    label=row.label,
                    sampling=sampling,
                    arch=arch_from_json(row.arch),
                ),
                visited=frozenset(visited[row.task_id]),
                attempts=attempts.get(row.task_id, 0),
                failure=(
                    None
                    if row.error_code is None
                    else TaskFailure(row.task_id, row.error_code, row.reason)
                ),
                last_failure=last_failure.get(row.task_id),
                n_extra_rounds=row.n_rounds - sampling.n_rounds,
            )
        )
    return found
