"""Which tasks are to be visited again because their visits disagree. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from latlas_coordinator.domain import TaskProgress, VisitSummary
from latlas_latency.agreement import agreeing


def extra_rounds(tasks: Sequence[TaskProgress], visits: Sequence[VisitSummary]) -> dict[str, int]:
    """Rounds that tasks of a campaign need beyond those they have, by task; often none.

    A task needs as many visits that agree with each other as its sampling has rounds, and gets at
    most `Sampling.n_extra_rounds` more than that. A task that was given up needs nothing.

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
    n_agreeing = agreeing(matrix).sum(axis=1)
    wanted: dict[str, int] = {}
    for progress, n_good in zip(tasks, n_agreeing.tolist(), strict=True):
        sampling = progress.task.sampling
        n_more = min(sampling.n_rounds - n_good, sampling.n_extra_rounds - progress.n_extra_rounds)
        if n_more > 0 and progress.failure is None:
            wanted[progress.task.task_id] = n_more
    return wanted
