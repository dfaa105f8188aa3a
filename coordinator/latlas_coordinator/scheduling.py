"""Who measures what next. Pure: values in, a decision out; the store carries it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from latlas_coordinator.domain import (
    DeviceRecord,
    LeaseItem,
    LeaseRecord,
    NewLease,
    TaskFailure,
    TaskProgress,
)
from latlas_latency.measurement import Device, Target
from latlas_ops.errors import RuntimeUnavailableError

_Visit = tuple[int, TaskProgress]
"""A round and the task that lacks it."""


@dataclass(frozen=True)
class LeasePolicy:
    """How work is handed out.

    Attributes:
        duration_ns: a lease is lost unless it is renewed within this time.
        max_attempts: leases under which a task may fail before it is given up.
        max_tasks: tasks in one lease. Large on purpose: what is interleaved in one lease shares
            its drift, so a campaign is best measured as one.
        max_program_bytes: sum of the sizes of a lease's programs, which the board must hold.
    """

    duration_ns: int = 20_000_000_000
    max_attempts: int = 2
    max_tasks: int = 512
    max_program_bytes: int = 1 << 30

    @property
    def renewal_interval_ns(self) -> int:
        """How often leases are to be renewed: two renewals may go missing."""
        return self.duration_ns // 3


@dataclass(frozen=True)
class Situation:
    """What a decision rests on.

    Attributes:
        tasks: tasks of running campaigns that lack visits, most urgent first.
        targets: the targets of these tasks by name.
        program_bytes: sizes of their programs by SHA-256.
        devices: every device, connected or not.
        leases: every active lease.
        now_ns: Unix time.
    """

    tasks: Sequence[TaskProgress]
    targets: Mapping[str, Target]
    program_bytes: Mapping[str, int]
    devices: Sequence[DeviceRecord]
    leases: Sequence[LeaseRecord]
    now_ns: int


@dataclass(frozen=True)
class Decision:
    """What is to be done.

    Attributes:
        expired: leases that are lost.
        given_up: tasks that have failed too often, with their last failure.
        measured_enough: tasks that have failed too often as well, but have as many visits as their
            sampling asks for: they only lose the rounds that are open.
        leases: leases to be given.
    """

    expired: tuple[LeaseRecord, ...]
    given_up: tuple[TaskFailure, ...]
    leases: tuple[NewLease, ...]
    measured_enough: tuple[str, ...] = ()


def schedule(situation: Situation, policy: LeasePolicy, new_id: Callable[[], str]) -> Decision:
    """Decides which leases end and which begin.

    - A lease past its deadline is lost; the rounds of it that have no visit are free again.
    - A connected device without a lease works on the most urgent campaign that it can serve and
      that has free rounds. A lease is of one campaign, hence of one target.
    - Idle devices that can serve the same campaign share its free rounds: in order of rounds, so
      that as far as possible each of them measures every task.
    - A task that failed under `max_attempts` leases is given up, or is done if only further visits
      of it are open.
    """
    expired = tuple(lease for lease in situation.leases if lease.deadline_ns <= situation.now_ns)
    held = [lease for lease in situation.leases if lease.deadline_ns > situation.now_ns]
    taken = {
        (item.task_id, number) for lease in held for item in lease.items for number in item.rounds
    }
    hopeless = {
        progress.task.task_id: progress
        for progress in situation.tasks
        if progress.last_failure is not None and progress.attempts >= policy.max_attempts
    }
    given_up = tuple(
        progress.last_failure
        for progress in hopeless.values()
        if progress.last_failure is not None and not progress.is_measured
    )
    measured_enough = tuple(
        task_id for task_id, progress in hopeless.items() if progress.is_measured
    )
    free_by_campaign: dict[str, list[TaskProgress]] = {}
    for progress in situation.tasks:
        if progress.task.task_id not in hopeless and _free_rounds(progress, taken):
            free_by_campaign.setdefault(progress.task.campaign, []).append(progress)
    busy = {lease.device_id for lease in held}
    idle = sorted(
        (
            record
            for record in situation.devices
            if record.connected and record.device.device_id not in busy
        ),
        key=lambda record: record.device.device_id,
    )
    leases: list[NewLease] = []
    for campaign, tasks in free_by_campaign.items():
        target = situation.targets[tasks[0].task.target]
        able = [record for record in idle if _can_serve(record.device, target)]
        shares = _shares(tasks, taken, len(able), policy, situation.program_bytes)
        for record, items in zip(able, shares, strict=False):
            idle.remove(record)
            leases.append(
                NewLease(
                    lease_id=new_id(),
                    agent_id=record.agent_id,
                    epoch=record.epoch,
                    device_id=record.device.device_id,
                    campaign=campaign,
                    items=items,
                    created_ns=situation.now_ns,
                    deadline_ns=situation.now_ns + policy.duration_ns,
                )
            )
    return Decision(expired, given_up, tuple(leases), measured_enough)


def _free_rounds(progress: TaskProgress, taken: set[tuple[str, int]]) -> list[int]:
    return [
        number for number in progress.missing_rounds if (progress.task.task_id, number) not in taken
    ]


def _can_serve(device: Device, target: Target) -> bool:
    try:
        device.require_capable(target)
    except RuntimeUnavailableError:
        return False
    return True


def _shares(
    tasks: Sequence[TaskProgress],
    taken: set[tuple[str, int]],
    n_shares: int,
    policy: LeasePolicy,
    program_bytes: Mapping[str, int],
) -> list[tuple[LeaseItem, ...]]:
    """The free rounds of the first tasks in at most `n_shares` even parts, none of them empty."""
    batch = _first_tasks(tasks, policy, program_bytes)
    visits = sorted(
        ((number, progress) for progress in batch for number in _free_rounds(progress, taken)),
        key=lambda visit: visit[0],
    )
    n_shares = min(n_shares, len(visits))
    bounds = [len(visits) * share // n_shares for share in range(n_shares + 1)] if n_shares else []
    return [_items(visits[start:end]) for start, end in pairwise(bounds)]


def _first_tasks(
    tasks: Sequence[TaskProgress], policy: LeasePolicy, program_bytes: Mapping[str, int]
) -> Sequence[TaskProgress]:
    """As many tasks as one lease may hold, at least one."""
    programs: set[str] = set()
    n_bytes = 0
    for position, progress in enumerate(tasks[: policy.max_tasks]):
        sha256 = progress.task.program_sha256
        if sha256 not in programs:
            programs.add(sha256)
            n_bytes += program_bytes[sha256]
        if n_bytes > policy.max_program_bytes and position:
            return tasks[:position]
    return tasks[: policy.max_tasks]


def _items(visits: Sequence[_Visit]) -> tuple[LeaseItem, ...]:
    rounds: dict[str, list[int]] = {}
    for number, progress in visits:
        rounds.setdefault(progress.task.task_id, []).append(number)
    return tuple(LeaseItem(task_id, tuple(numbers)) for task_id, numbers in rounds.items())
