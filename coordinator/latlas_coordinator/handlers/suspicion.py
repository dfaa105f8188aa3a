"""What in a table, or in the visits behind it, cannot be right, and measuring it again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from latlas_coordinator.domain import TABLE, CampaignState, Role, Suspicion, TaskProgress
from latlas_coordinator.handlers.measurements import trusted_summaries
from latlas_coordinator.scheduling import LeasePolicy
from latlas_coordinator.settling import Case
from latlas_coordinator.storage import Store
from latlas_coordinator.suspecting import (
    Stretch,
    break_suspicion,
    disagreement_suspicion,
    find_disagreements,
    find_stretches,
    stretch_suspicion,
)
from latlas_latency.formats import load_latency_model
from latlas_latency.measurement import PROFILED
from latlas_latency.suspicion import Disagreement, MonotonicityBreak, monotonicity_breaks
from latlas_latency.table import LookupTable
from latlas_ops.errors import ConflictError, InvalidInputError

_N_ON_REQUEST = 1
"""Visits that a task may be given on request beyond what its sampling allows."""


@dataclass(frozen=True)
class Suspicions:
    """What was found; often nothing.

    Attributes:
        breaks: entries that are slower than that of a bigger op.
        stretches: stretches of time in which a board was slower or faster than usual.
        disagreements: tasks, by `task_id`, that two boards put at different latencies.
        labels: what the tasks of `disagreements` are called in listings.
    """

    breaks: tuple[MonotonicityBreak, ...]
    stretches: tuple[Stretch, ...]
    disagreements: tuple[Disagreement[str, str], ...]
    labels: dict[str, str]


@dataclass(frozen=True)
class Requeued:
    """Visits that were ordered: how many, and of which campaign."""

    campaign: str
    n_visits: int


def find_suspicions(store: Store, name: str) -> Suspicions:
    """Looks at a table's entries and, where it was made here, at the visits behind it.

    Visits of stretches that better ones stand in for are not found once more: the table passes over
    them.

    Raises:
        NotFoundError: no such table.
        InvalidInputError: it is a predictor.
    """
    record = store.get_latency_model(name)
    table = load_latency_model(store.read_latency_model(name))
    if record.kind != TABLE or not isinstance(table, LookupTable):
        raise InvalidInputError(f"{name!r} is not a table but a predictor ({record.kind})")
    breaks = monotonicity_breaks(table.entries)
    if not record.campaign:
        return Suspicions(breaks, (), (), {})
    visits = trusted_summaries(store, record.campaign)
    found = find_disagreements(visits)
    doubtful = {one.subject for one in found}
    labels = {
        progress.task.task_id: progress.task.label
        for progress in store.list_tasks(record.campaign)
        if progress.task.task_id in doubtful
    }
    return Suspicions(breaks, find_stretches(visits), found, labels)


def requeue(
    store: Store,
    name: str,
    suspicions: Suspicions,
    max_attempts: int = LeasePolicy.max_attempts,
) -> Requeued:
    """Has what is suspicious visited once more; the table is to be built anew afterwards.

    Entries are visited in every program that they come from, stretches as often as a program has
    doubtful visits in them. No task gets more than one visit beyond `Sampling.n_extra_rounds`, nor
    one more if it has failed too often. What is visited again is kept as a finding of the campaign.

    Args:
        store: where the table and its campaign are.
        name: the table.
        suspicions: what `find_suspicions` says of it.
        max_attempts: as in `LeasePolicy`.

    Raises:
        InvalidInputError: the table was imported: there is no campaign to measure anew.
        ConflictError: its campaign was cancelled, or has a time budget, which would end at once.
    """
    campaign = store.get_latency_model(name).campaign
    if not campaign:
        raise InvalidInputError(
            f"table {name!r} was imported, so that nothing of it can be visited again; profile the "
            "space here"
        )
    found = store.get_campaign(campaign).campaign
    if found.state is CampaignState.CANCELLED or found.sampling.time_budget_ns:
        why = "has a time budget" if found.sampling.time_budget_ns else "was cancelled"
        raise ConflictError(
            f"campaign {campaign!r} {why}, so that nothing of it can be visited again; profile the "
            "space anew"
        )
    tasks = store.list_tasks(campaign)
    wanted: list[tuple[Suspicion, Counter[str]]] = [
        (stretch_suspicion(one), Counter(task_id for task_id, _ in one.doubtful))
        for one in suspicions.stretches
    ]
    wanted += [
        (disagreement_suspicion(one, suspicions.labels[one.subject]), Counter([one.subject]))
        for one in suspicions.disagreements
    ]
    wanted += [
        (break_suspicion(one), Counter(holders))
        for one, holders in zip(
            suspicions.breaks, tasks_behind(store, tasks, suspicions.breaks), strict=True
        )
    ]
    case = Case(tasks, max_attempts=max_attempts, n_beyond=_N_ON_REQUEST)
    more: dict[str, int] = {}
    kept = []
    for suspicion, visits in wanted:
        granted = case.granted(visits)
        for task_id, n_visits in granted.items():
            more[task_id] = max(n_visits, more.get(task_id, 0))
        if granted:
            kept.append(replace(suspicion, revisited=True))
    store.add_rounds(campaign, more, kept)
    return Requeued(campaign, sum(more.values()))


def tasks_behind(
    store: Store, tasks: Sequence[TaskProgress], breaks: Sequence[MonotonicityBreak]
) -> tuple[tuple[str, ...], ...]:
    """For each break, the tasks that the entries of its two ops come from.

    Those are the profiled cover networks that hold one of the two or, where ops are not measured in
    situ, the chains or ops alone.
    """
    if not breaks:
        return ()
    apart = [one.task for one in tasks if one.task.role in (Role.CHAIN, Role.ALONE)]
    sources = apart or [
        one.task for one in tasks if one.task.role is Role.COVER and one.task.mode == PROFILED
    ]
    programs = store.get_programs({task.program_sha256 for task in sources})
    ops_of = {
        sha256: frozenset(program.network.ops)
        for sha256, program in programs.items()
        if program.network is not None
    }
    return tuple(
        tuple(
            task.task_id
            for task in sources
            if not ops_of.get(task.program_sha256, frozenset()).isdisjoint(
                (one.smaller, one.bigger)
            )
        )
        for one in breaks
    )
