"""What a campaign has measured: for listings, and as observations for latency models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from latlas_coordinator.domain import Role, Task, VisitSummary
from latlas_coordinator.storage import Store
from latlas_latency.measurement import kept_visits, usual_clocks_mhz
from latlas_latency.observations import Observation, undisturbed


@dataclass(frozen=True)
class Measurement:
    """One task with the visits it has.

    Attributes:
        task: the task.
        subject: what its figures are about: key of the network, or hash of an uploaded program.
        visits: its visits by round.
        left_out: those of them that models pass over, since the device was disturbed.
    """

    task: Task
    subject: str
    visits: tuple[VisitSummary, ...]
    left_out: tuple[VisitSummary, ...] = ()


def list_measurements(store: Store, campaign: str) -> list[Measurement]:
    """The tasks of a campaign with their visits; raises `NotFoundError`."""
    tasks = [progress.task for progress in store.list_tasks(campaign)]
    programs = store.get_programs({task.program_sha256 for task in tasks})
    visits: dict[str, list[VisitSummary]] = defaultdict(list)
    summaries = store.list_visit_summaries(campaign)
    for visit in summaries:
        visits[visit.task_id].append(visit)
    clocks_mhz = usual_clocks_mhz(summaries)
    return [
        Measurement(
            task,
            programs[task.program_sha256].subject,
            tuple(visits[task.task_id]),
            kept_visits(visits[task.task_id], clocks_mhz=clocks_mhz).left_out,
        )
        for task in tasks
    ]


def read_observations(
    store: Store, campaign: str, roles: Collection[Role]
) -> list[tuple[Task, Observation]]:
    """Tasks of these roles that have visits and a known network, with what models are made from.

    Visits that were disturbed are left out while better ones remain; see `undisturbed`.

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
    observations = []
    for task in measured:
        program = programs[task.program_sha256]
        assert program.network is not None
        observations.append(
            Observation(
                network=program.network,
                tensor_positions=program.tensor_positions,
                visits=tuple(visits[task.task_id]),
                arch=task.arch,
                target=targets[task.target],
            )
        )
    return list(zip(measured, undisturbed(observations), strict=True))
