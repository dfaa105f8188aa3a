"""Which tasks are to be visited again, because visits disagree or were disturbed. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latlas_coordinator.domain import TaskProgress, VisitSummary
from latlas_latency.agreement import agreeing
from latlas_latency.measurement import usual_clocks_mhz, visit_flags

MOST_DISTURBED = 0.5
"""Share of disturbed visits from which on waiting for better ones is in vain."""


def extra_rounds(tasks: Sequence[TaskProgress], visits: Sequence[VisitSummary]) -> dict[str, int]:
    """Rounds that tasks of a campaign need beyond those they have, by task; often none.

    A task needs as many visits as its sampling has rounds that agree with each other and were taken
    while the device was not disturbed; it gets at most `Sampling.n_extra_rounds` more than that. A
    device that is disturbed most of the time will be no better in another round, so then only
    agreement counts. A task that was given up needs nothing.

    Args:
        tasks: every task of the campaign, none of which lacks a visit.
        visits: every visit of the campaign.
    """
    sittings = sorted({(visit.device_id, visit.round) for visit in visits})
    column = {sitting: index for index, sitting in enumerate(sittings)}
    row = {progress.task.task_id: index for index, progress in enumerate(tasks)}
    matrix = np.full((len(tasks), len(sittings)), np.nan)
    for visit in visits:
        matrix[row[visit.task_id], column[visit.device_id, visit.round]] = visit.median_ns
    good = agreeing(matrix)
    clocks_mhz = usual_clocks_mhz(visits)
    disturbed = [
        visit
        for visit in visits
        if visit_flags(visit.conditions, usual_clock_mhz=clocks_mhz.get(visit.device_id))
    ]
    if len(disturbed) < MOST_DISTURBED * len(visits):
        for visit in disturbed:
            good[row[visit.task_id], column[visit.device_id, visit.round]] = False
    wanted: dict[str, int] = {}
    for progress, n_good in zip(tasks, good.sum(axis=1).tolist(), strict=True):
        sampling = progress.task.sampling
        n_more = min(sampling.n_rounds - n_good, sampling.n_extra_rounds - progress.n_extra_rounds)
        if n_more > 0 and progress.failure is None:
            wanted[progress.task.task_id] = n_more
    return wanted
