"""Agents that come, work that goes out, leases that end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from latlas_coordinator.domain import (
    AgentRecord,
    Campaign,
    LeaseRecord,
    LeaseReference,
    LeaseState,
    MeasurePlan,
    NewLease,
    ProgramRecord,
    Task,
    TaskProgress,
)
from latlas_coordinator.scheduling import LeasePolicy, Situation, schedule
from latlas_coordinator.storage import Store
from latlas_latency.measurement import Device, InputShapes, Target
from latlas_ops.errors import ConflictError, InvalidInputError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Greeting:
    """An agent that attaches: who it is, its devices, and the leases it has not done with."""

    agent: AgentRecord
    devices: tuple[Device, ...]
    held: tuple[LeaseReference, ...]

    def __post_init__(self) -> None:
        if not self.agent.agent_id:
            raise InvalidInputError("an agent must have an agent_id")
        if not self.devices:
            raise InvalidInputError(f"agent {self.agent.agent_id} brings no device")
        identities = [device.device_id for device in self.devices]
        if len(set(identities)) < len(identities):
            raise InvalidInputError(f"agent {self.agent.agent_id} brings a device twice")


@dataclass(frozen=True)
class Attachment:
    """What a newly attached agent has to know.

    Attributes:
        last_sequence: its last committed sequence in this epoch.
        kept: leases it still holds, with a new deadline.
        lost: leases that it thinks it holds and does not.
    """

    last_sequence: int
    kept: tuple[LeaseReference, ...]
    lost: tuple[LeaseReference, ...]


@dataclass(frozen=True)
class WorkItem:
    """A task of a lease with what its device needs to know, and the rounds that are wanted."""

    task: Task
    program: ProgramRecord
    rounds: tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """A new lease in full."""

    lease: LeaseRecord
    target: Target
    items: tuple[WorkItem, ...]
    shapes: InputShapes = ()


@dataclass(frozen=True)
class Dispatch:
    """What one look at the store has led to.

    Attributes:
        work: new leases to be sent.
        active: identities of all active leases.
        next_look_ns: when to look again at the latest, as the next lease will be lost or the next
            time budget ends; None where there is no need.
        complete: campaigns whose rounds are done, to be settled; see `handlers.settling`.
        changed: whether a campaign, a task or a device changed.
    """

    work: tuple[Work, ...]
    active: frozenset[str]
    next_look_ns: int | None
    complete: tuple[Campaign, ...]
    changed: bool


def attach(store: Store, greeting: Greeting, now_ns: int, policy: LeasePolicy) -> Attachment:
    """Notes that an agent is there.

    A lease of this agent and epoch that it does not hold never reached it, or is done with down to
    the last report: what it leaves undone is free at once.

    Raises:
        ConflictError: the agent has a newer epoch, or a device is connected through another agent.
    """
    agent = greeting.agent
    last_sequence = store.attach_agent(agent, greeting.devices, now_ns)
    kept = store.extend_leases(
        agent.agent_id, agent.epoch, greeting.held, now_ns + policy.duration_ns, now_ns
    )
    for lease in store.list_active_leases():
        is_mine = (lease.agent_id, lease.epoch) == (agent.agent_id, agent.epoch)
        if is_mine and lease.reference not in kept:
            store.end_lease(lease.lease_id, LeaseState.EXPIRED)
    lost = tuple(lease for lease in greeting.held if lease not in kept)
    return Attachment(last_sequence, tuple(kept), lost)


def dispatch(store: Store, now_ns: int, policy: LeasePolicy, new_id: Callable[[], str]) -> Dispatch:
    """Ends what is over and hands out what is free; see `schedule` for the rules.

    Every step stands for itself, so that one that is cut short is made up for by the next call.
    """
    tasks = store.list_open_tasks()
    ends_ns = _budget_ends_ns(store, tasks)
    cut = [name for name, end_ns in ends_ns.items() if end_ns <= now_ns and store.end_rounds(name)]
    for name in cut:
        _LOG.info("campaign %s: its time is up; what every task has must do", name)
    if cut:
        tasks = store.list_open_tasks()
    programs = store.get_programs({progress.task.program_sha256 for progress in tasks})
    targets = {name: store.get_target(name) for name in {p.task.target for p in tasks}}
    decision = schedule(
        Situation(
            tasks=tasks,
            targets=targets,
            program_bytes={sha256: record.n_bytes for sha256, record in programs.items()},
            devices=store.list_devices(),
            leases=store.list_active_leases(),
            now_ns=now_ns,
        ),
        policy,
        new_id,
    )
    for lease in decision.expired:
        _LOG.warning("lease %s of device %s is lost", lease.lease_id, lease.device_id)
        store.end_lease(lease.lease_id, LeaseState.EXPIRED)
    for failure in decision.given_up:
        _LOG.warning("task %s is given up: %s", failure.task_id, failure.reason)
        store.give_up_task(failure)
    for task_id in decision.measured_enough:
        _LOG.warning("task %s fails: it is left with the visits that it has", task_id)
        store.end_task_rounds(task_id)
    work = [
        found
        for lease in decision.leases
        if (found := _create(store, lease, tasks, targets, programs)) is not None
    ]
    active = store.list_active_leases()
    looks_ns = [lease.deadline_ns for lease in active]
    looks_ns += [end_ns for end_ns in _budget_ends_ns(store, tasks).values() if end_ns > now_ns]
    return Dispatch(
        work=tuple(work),
        active=frozenset(lease.lease_id for lease in active),
        next_look_ns=min(looks_ns, default=None),
        complete=tuple(store.list_complete_campaigns()),
        changed=bool(
            cut or decision.expired or decision.given_up or decision.measured_enough or work
        ),
    )


def _budget_ends_ns(store: Store, tasks: Sequence[TaskProgress]) -> dict[str, int]:
    """When the time budgets of campaigns with open tasks end, by name.

    Left out are campaigns without a budget, and those whose time has not begun for want of a lease.
    """
    budgets_ns = {
        progress.task.campaign: progress.task.sampling.time_budget_ns
        for progress in tasks
        if progress.task.sampling.time_budget_ns
    }
    if not budgets_ns:
        return {}
    begun_ns = store.list_first_leases()
    return {name: begun_ns[name] + ns for name, ns in budgets_ns.items() if name in begun_ns}


def _create(
    store: Store,
    lease: NewLease,
    tasks: Sequence[TaskProgress],
    targets: dict[str, Target],
    programs: dict[str, ProgramRecord],
) -> Work | None:
    """Keeps a lease; None if its campaign or agent has changed since the look at the store."""
    try:
        record = store.create_lease(lease)
    except ConflictError as error:
        _LOG.info("no lease for device %s: %s", lease.device_id, error)
        return None
    by_id = {progress.task.task_id: progress.task for progress in tasks}
    items = tuple(
        WorkItem(task, programs[task.program_sha256], item.rounds)
        for item in record.items
        for task in (by_id[item.task_id],)
    )
    _LOG.info("device %s works on %d tasks of %s", lease.device_id, len(items), lease.campaign)
    plan = store.get_campaign(lease.campaign).campaign.plan
    shapes = plan.shapes if isinstance(plan, MeasurePlan) else ()
    return Work(record, targets[items[0].task.target], items, shapes)
