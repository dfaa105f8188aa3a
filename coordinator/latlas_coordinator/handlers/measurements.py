"""What a campaign has measured: for listings, and as observations for latency models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from latlas_coordinator.domain import MeasurePlan, Role, Task, VisitKey, VisitSummary
from latlas_coordinator.handlers.coverage import TimedKernels
from latlas_coordinator.storage import Store
from latlas_coordinator.suspecting import replaced_visits
from latlas_latency.measurement import (
    PLAIN,
    PROFILED,
    UsualClocks,
    Visit,
    kept_visits,
    visit_flags,
)
from latlas_latency.observations import Observation, undisturbed
from latlas_latency.program_details import ProgramDetails, program_details
from latlas_ops.errors import InvalidInputError

_AnyVisit = TypeVar("_AnyVisit", Visit, VisitSummary)


@dataclass(frozen=True)
class Measurement:
    """One task with the visits it has.

    Attributes:
        task: the task.
        subject: what its figures are about: key of the network, or hash of an uploaded program.
        visits: its visits by round.
        flags: per visit, how the device was disturbed; in words.
        left_out: those of them that models pass over, since the device was disturbed, or slow or
            fast for a stretch of time, and better ones are there.
    """

    task: Task
    subject: str
    visits: tuple[VisitSummary, ...]
    flags: tuple[tuple[str, ...], ...]
    left_out: tuple[VisitSummary, ...] = ()


def list_measurements(store: Store, campaign: str) -> list[Measurement]:
    """The tasks of a campaign with their visits; raises `NotFoundError`."""
    tasks = [progress.task for progress in store.list_tasks(campaign)]
    programs = store.get_programs({task.program_sha256 for task in tasks})
    visits: dict[str, list[VisitSummary]] = defaultdict(list)
    summaries = store.list_visit_summaries(campaign)
    for visit in summaries:
        visits[visit.task_id].append(visit)
    usual = UsualClocks.of(summaries)
    replaced = _replaced(store, campaign, tasks, summaries)
    measurements = []
    for task in tasks:
        found = tuple(visits[task.task_id])
        kept = kept_visits(_without(found, replaced), usual=usual).kept
        left_out = tuple(visit for visit in found if visit not in kept)
        subject = programs[task.program_sha256].subject
        flags = tuple(_flags(visit, usual) for visit in found)
        measurements.append(Measurement(task, subject, found, flags, left_out))
    return measurements


def _flags(visit: VisitSummary, usual: Mapping[str, UsualClocks]) -> tuple[str, ...]:
    flags = visit_flags(visit.conditions, usual=usual[visit.device_id])
    return tuple(sorted(flag.value for flag in flags))


def describe_programs(store: Store, timed: TimedKernels, campaign: str) -> list[ProgramDetails]:
    """What was measured of every program of a campaign that measures programs.

    Figures leave out visits that were disturbed, or are of a slow or fast stretch, where better
    ones stand in for them; as tables do.

    Raises:
        NotFoundError: no campaign has that name.
        InvalidInputError: it measures no programs that were uploaded.
    """
    wanted = store.get_campaign(campaign).campaign
    if not isinstance(wanted.plan, MeasurePlan):
        raise InvalidInputError(f"campaign {campaign!r} measures no programs of somebody's own")
    tasks = [progress.task for progress in store.list_tasks(campaign)]
    visits = store.read_visits(campaign)
    summaries = store.list_visit_summaries(campaign)
    usual = UsualClocks.of(summaries)
    replaced = _replaced(store, campaign, tasks, summaries)
    kept: dict[tuple[str, str], tuple[Visit, ...]] = {}
    left_out: dict[str, list[Visit]] = {}
    for task in tasks:
        made = visits.get(task.task_id, [])
        selected = kept_visits(_without(made, replaced), usual=usual).kept
        kept[task.program_sha256, task.mode] = selected
        if task.mode == PLAIN:
            left_out[task.program_sha256] = [visit for visit in made if visit not in selected]
    found = [
        program_details(
            label, kept[sha256, PLAIN], kept.get((sha256, PROFILED), ()), left_out[sha256]
        )
        for sha256, label in {task.program_sha256: task.label for task in tasks}.items()
    ]
    if not any(details.nodes for details in found):
        return found
    kernels = timed.of_tables(store, wanted.target)
    return [details.with_coverage(kernels) for details in found]


def read_observations(
    store: Store, campaign: str, roles: Collection[Role]
) -> list[tuple[Task, Observation]]:
    """Tasks of these roles that have visits and a known network, with what models are made from.

    Visits that were disturbed, or are of a stretch of slow or fast ones, are left out where better
    ones stand in for them; see `undisturbed` and `replaced_visits`. What is usual is told from the
    whole campaign, as in `list_measurements`, whatever the roles.

    Raises:
        NotFoundError: no campaign has that name.
    """
    tasks = [
        progress.task for progress in store.list_tasks(campaign) if progress.task.role in roles
    ]
    visits = store.read_visits(campaign, roles)
    programs = store.get_programs({task.program_sha256 for task in tasks})
    targets = {name: store.get_target(name) for name in {task.target for task in tasks}}
    measured = [
        task
        for task in tasks
        if task.task_id in visits and programs[task.program_sha256].network is not None
    ]
    summaries = store.list_visit_summaries(campaign)
    replaced = _replaced(store, campaign, tasks, summaries)
    observations = []
    for task in measured:
        program = programs[task.program_sha256]
        assert program.network is not None
        kept = _without(visits[task.task_id], replaced)
        observations.append(
            Observation(
                network=program.network,
                tensor_positions=program.tensor_positions,
                visits=tuple(kept),
                n_left_out=len(visits[task.task_id]) - len(kept),
                arch=task.arch,
                target=targets[task.target],
            )
        )
    return list(zip(measured, undisturbed(observations, UsualClocks.of(summaries)), strict=True))


def trusted_summaries(store: Store, campaign: str) -> list[VisitSummary]:
    """Visits of a campaign but for those that better ones stand in for; raises `NotFoundError`."""
    tasks = [progress.task for progress in store.list_tasks(campaign)]
    summaries = store.list_visit_summaries(campaign)
    return _without(summaries, _replaced(store, campaign, tasks, summaries))


def _replaced(
    store: Store, campaign: str, tasks: Sequence[Task], visits: Sequence[VisitSummary]
) -> frozenset[VisitKey]:
    """See `replaced_visits`."""
    findings = store.get_campaign(campaign).findings
    if findings is None or not findings.doubtful:
        return frozenset()
    return replaced_visits(findings.doubtful, tasks, visits)


def _without(visits: Sequence[_AnyVisit], left_out: Collection[VisitKey]) -> list[_AnyVisit]:
    return [visit for visit in visits if (visit.task_id, visit.round) not in left_out]
