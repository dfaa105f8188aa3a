"""What in a table, or in the visits behind it, cannot be right, and measuring it again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from latlas_coordinator.domain import CampaignState, Role, TaskProgress, VisitSummary
from latlas_coordinator.handlers.latency_models import TABLE
from latlas_coordinator.storage import Store
from latlas_latency.formats import load_latency_model
from latlas_latency.observations import LEAST_FOR_COMMON_MODE
from latlas_latency.suspicion import (
    Disagreement,
    MonotonicityBreak,
    disagreements,
    find_shifts,
    monotonicity_breaks,
)
from latlas_latency.table import LookupTable
from latlas_ops.errors import ConflictError, InvalidInputError

_LEAST_VISITS = 40
"""In fewer visits of a board a stretch cannot be told from chance."""


@dataclass(frozen=True)
class Stretch:
    """Visits in a row on one board that were all slower, or faster, than the others.

    Attributes:
        device_id: the board.
        first_visit_ns: Unix time of its first visit.
        last_visit_ns: Unix time of its last visit.
        ratio: latency in it over latency outside.
        task_ids: task of each of its visits.
    """

    device_id: str
    first_visit_ns: int
    last_visit_ns: int
    ratio: float
    task_ids: tuple[str, ...]


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
    visits = store.list_visit_summaries(record.campaign)
    by_task: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for visit in visits:
        by_task[visit.task_id][visit.device_id].append(visit.median_ns)
    several = {task_id: boards for task_id, boards in by_task.items() if len(boards) > 1}
    repeated = any(len(visits) > 1 for boards in several.values() for visits in boards.values())
    found: tuple[Disagreement[str, str], ...] = ()
    if repeated:  # without two visits of a board to one task nothing is known of the noise
        enough = len(several) >= LEAST_FOR_COMMON_MODE
        found = disagreements(several, remove_common_mode=enough)
    doubtful = {one.subject for one in found}
    labels = {
        progress.task.task_id: progress.task.label
        for progress in store.list_tasks(record.campaign)
        if progress.task.task_id in doubtful
    }
    return Suspicions(breaks, tuple(_stretches(visits)), found, labels)


def requeue(store: Store, name: str, suspicions: Suspicions) -> Requeued:
    """Has what is suspicious visited once more; the table is to be built anew afterwards.

    Entries are visited in every cover network that holds their op. No task gets more than one visit
    beyond `Sampling.n_extra_rounds`.

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
    chosen = {task_id for stretch in suspicions.stretches for task_id in stretch.task_ids}
    chosen |= {one.subject for one in suspicions.disagreements}
    chosen |= _tasks_with(store, tasks, suspicions.breaks)
    more = {
        progress.task.task_id: 1
        for progress in tasks
        if progress.task.task_id in chosen
        and progress.failure is None
        and progress.n_extra_rounds <= progress.task.sampling.n_extra_rounds
    }
    store.add_rounds(more)
    return Requeued(campaign, len(more))


def _stretches(visits: Sequence[VisitSummary]) -> Iterable[Stretch]:
    """Shifts in the visits of each board in the order of time, relative to its own medians."""
    medians_ns: dict[tuple[str, str], list[int]] = defaultdict(list)
    by_device: dict[str, list[VisitSummary]] = defaultdict(list)
    for visit in sorted(visits, key=lambda visit: visit.started_ns):
        medians_ns[visit.task_id, visit.device_id].append(visit.median_ns)
        by_device[visit.device_id].append(visit)
    usual_ns = {key: float(np.median(found)) for key, found in medians_ns.items()}
    for device_id, series in by_device.items():
        if len(series) < _LEAST_VISITS:
            continue
        ratios = [one.median_ns / usual_ns[one.task_id, device_id] for one in series]
        for shift in find_shifts(ratios):
            inside = series[shift.start : shift.stop]
            yield Stretch(
                device_id,
                inside[0].started_ns,
                inside[-1].started_ns,
                shift.ratio,
                tuple(one.task_id for one in inside),
            )


def _tasks_with(
    store: Store, tasks: Sequence[TaskProgress], breaks: Sequence[MonotonicityBreak]
) -> set[str]:
    """The tasks of cover networks that hold an op of a break."""
    ops = {op for one in breaks for op in (one.smaller, one.bigger)}
    if not ops:
        return set()
    covers = [progress.task for progress in tasks if progress.task.role is Role.COVER]
    programs = store.get_programs({task.program_sha256 for task in covers})
    found = set()
    for task in covers:
        network = programs[task.program_sha256].network
        if network is not None and ops.intersection(network.ops):
            found.add(task.task_id)
    return found
