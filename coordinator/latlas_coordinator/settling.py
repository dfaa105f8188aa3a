"""Whether a campaign whose rounds are done is finished, or what is to be visited again. Pure.

Two looks, the second where the first finds nothing to be done, since entries that cannot be right
are often but a symptom of visits that cannot be:

1. *Visits*: those that disagree with the others of their task, were disturbed, or fell into a
   stretch of time in which everything was slower, or faster; and boards that put a task at
   different latencies (`settle_visits`).
2. *Figures*: entries that are slower than a bigger op's, and figures that are not yet as precise as
   was wanted (`settle_figures`).

It comes to an end: no task gets more than `Sampling.n_extra_rounds` further visits, and no entry
and no disagreement of boards is visited again twice. What is left then is shown.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from latlas_coordinator.domain import (
    Findings,
    Role,
    Suspicion,
    SuspicionKind,
    TaskProgress,
    VisitKey,
    VisitSummary,
)
from latlas_coordinator.scheduling import LeasePolicy
from latlas_coordinator.suspecting import (
    break_suspicion,
    disagreement_suspicion,
    disturbed_visits,
    find_disagreements,
    find_stretches,
    replaced_visits,
    stretch_suspicion,
)
from latlas_latency.agreement import agreeing
from latlas_latency.precision import CoverNoise, label_errors
from latlas_latency.suspicion import Disagreement, MonotonicityBreak

LABEL_ROLES = (Role.CALIBRATION, Role.VALIDATION, Role.SELECTED, Role.MEASURED)
"""Tasks whose own latency is asked for. Training networks are many, so that their noise averages
out; ops alone only serve baselines."""

_BOARDS_OF_DISAGREEMENT = 2
_LEAST_AGREEING = 2


@dataclass(frozen=True)
class EntryEvidence:
    """What a table of the visits so far says about its entries.

    Attributes:
        breaks: entries that are slower than that of a bigger op; None where no table can be made.
        holders: for each of them, the tasks that its two ops were measured in.
        noise: what the noise of visits costs a network; None where it cannot be told.
        covers: the tasks that `noise` speaks of, in its order.
        remarks: what could not be told, and why.
    """

    breaks: tuple[MonotonicityBreak, ...] | None = ()
    holders: tuple[tuple[str, ...], ...] = ()
    noise: CoverNoise | None = None
    covers: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settlement:
    """A decision.

    Attributes:
        rounds: further visits by task; nothing where there is no more to be done.
        findings: what was found, and why.
    """

    rounds: Mapping[str, int]
    findings: Findings


@dataclass(frozen=True, eq=False)
class Case:
    """What a decision rests on.

    Attributes:
        tasks: every task of the campaign, none of which lacks a visit.
        visits: every visit of the campaign; none where only further visits are to be granted.
        before: what was found and done in earlier looks.
        may_revisit: whether there is time for further visits.
        max_attempts: leases under which a task may fail before it is visited no more.
        n_beyond: further visits that a task may get beyond `Sampling.n_extra_rounds`.
    """

    tasks: Sequence[TaskProgress]
    visits: Sequence[VisitSummary] = ()
    before: Findings = field(default_factory=Findings)
    may_revisit: bool = True
    max_attempts: int = LeasePolicy.max_attempts
    n_beyond: int = 0

    def most(self, task_id: str) -> int:
        """Visits that a task may still be given."""
        progress = self._by_id[task_id]
        if not self.may_revisit or progress.failure is not None:
            return 0
        if progress.attempts >= self.max_attempts:
            return 0
        n_allowed = progress.task.sampling.n_extra_rounds + self.n_beyond
        return max(0, n_allowed - progress.n_extra_rounds)

    def granted(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """What of further visits is allowed."""
        allowed = {task_id: min(n, self.most(task_id)) for task_id, n in wanted.items()}
        return {task_id: n for task_id, n in allowed.items() if n > 0}

    @cached_property
    def _by_id(self) -> dict[str, TaskProgress]:
        return {progress.task.task_id: progress for progress in self.tasks}

    @cached_property
    def disputed(self) -> tuple[Disagreement[str, str], ...]:
        """Tasks that two boards put at different latencies."""
        return find_disagreements(self.visits)


def settle_visits(case: Case) -> Settlement:
    """The first look: further visits of tasks that lack visits which can be trusted.

    A task needs as many visits as its sampling has rounds that agree with each other, are not of a
    stretch, and were taken while the device was not disturbed. A device that is disturbed most of
    the time will be no better in another round, so that such visits count then.

    Two boards that disagree about a task are given two more visits of it, once.
    """
    stretches = [stretch_suspicion(one) for one in find_stretches(case.visits)]
    doubtful = _updated(case.before, [SuspicionKind.STRETCH], stretches).doubtful
    good = _RoundMatrix.of(case, doubtful).good
    lacking: dict[str, int] = {}
    for progress, n_good in zip(case.tasks, good.sum(axis=1).tolist(), strict=True):
        if progress.failure is None:
            lacking[progress.task.task_id] = max(0, progress.task.sampling.n_rounds - n_good)
    rounds = case.granted(lacking)
    found = []
    for suspicion in stretches:
        earlier = case.before.earlier(suspicion)
        task_ids = {task_id for task_id, _ in suspicion.doubtful}
        found.append(
            replace(
                suspicion,
                revisited=any(one.revisited for one in earlier) or not task_ids.isdisjoint(rounds),
                open=any(lacking.get(task_id, 0) > 0 for task_id in task_ids),
            )
        )
    labels = {progress.task.task_id: progress.task.label for progress in case.tasks}
    for one in case.disputed:
        suspicion = disagreement_suspicion(one, labels[one.subject])
        more = dict.fromkeys([one.subject], _BOARDS_OF_DISAGREEMENT)
        found.append(_once(case, suspicion, more, rounds))
    kinds = (SuspicionKind.STRETCH, SuspicionKind.DISAGREEMENT)
    return Settlement(rounds, _updated(case.before, kinds, found))


def settle_figures(case: Case, so_far: Findings, evidence: EntryEvidence | None) -> Settlement:
    """The second look: further visits of tasks whose figures cannot be right, or are too noisy.

    Every cover network that holds one of the two ops of a break is visited once more, once. Where
    there is no (more) such break, and a target error was asked for, the cover networks that bring
    most of the noise are visited once more while it exceeds the target, and so are networks whose
    own latency is not known that well.

    Args:
        case: as for `settle_visits`.
        so_far: what that has found.
        evidence: what a table of these visits says; None if none can be made.
    """
    tasks = [progress.task for progress in case.tasks]
    replaced = replaced_visits(so_far.doubtful, tasks, case.visits)
    errors = label_errors(_RoundMatrix.of(case, replaced).settled)
    asked = [one.task.role in LABEL_ROLES and one.failure is None for one in case.tasks]
    of_labels = errors[np.asarray(asked, dtype=bool)]
    known = of_labels[np.isfinite(of_labels)]
    findings = replace(
        so_far,
        entry_error=None,
        label_error=float(known.max()) if len(known) else None,
        n_labels_unknown=len(of_labels) - len(known),
        remarks=() if evidence is None else evidence.remarks,
    )
    rounds: dict[str, int] = {}
    if evidence is not None and evidence.breaks is not None:
        found = []
        for one, holders in zip(evidence.breaks, evidence.holders, strict=True):
            found.append(_once(case, break_suspicion(one), dict.fromkeys(holders, 1), rounds))
        findings = _updated(findings, [SuspicionKind.BREAK], found)
    if evidence is not None and evidence.noise is not None:
        error = evidence.noise.error
        findings = replace(findings, entry_error=error if math.isfinite(error) else None)
    if not rounds:
        rounds = _more_precise(case, evidence, errors)
    return Settlement(rounds, findings)


def _more_precise(
    case: Case, evidence: EntryEvidence | None, errors: NDArray[np.float64]
) -> dict[str, int]:
    """One more visit for every task that keeps the campaign from its target error."""
    wanted: dict[str, int] = {}
    for progress, error in zip(case.tasks, errors.tolist(), strict=True):
        target = progress.task.sampling.target_error
        if target and progress.task.role in LABEL_ROLES and error > target:
            wanted[progress.task.task_id] = 1
    target = case.tasks[0].task.sampling.target_error if case.tasks else 0.0
    if target and evidence is not None and evidence.noise is not None:
        may_grow = np.array([case.most(task_id) > 0 for task_id in evidence.covers], dtype=bool)
        for index in evidence.noise.worst(target, may_grow):
            wanted[evidence.covers[index]] = 1
    return case.granted(wanted)


def _once(
    case: Case, suspicion: Suspicion, wanted: Mapping[str, int], rounds: dict[str, int]
) -> Suspicion:
    """Adds to `rounds` what a suspicion wants, unless it was given that before."""
    if any(one.revisited for one in case.before.earlier(suspicion)):
        return replace(suspicion, revisited=True)
    granted = case.granted(wanted)
    for task_id, n_more in granted.items():
        rounds[task_id] = max(n_more, rounds.get(task_id, 0))
    return replace(suspicion, revisited=bool(granted))


def _updated(
    before: Findings, kinds: Sequence[SuspicionKind], found: Sequence[Suspicion]
) -> Findings:
    """Findings in which suspicions of these kinds are as they are found now.

    What was found before and is there no more is closed.
    """
    others = [one for one in before.suspicions if one.kind not in kinds]
    closed = [replace(one, open=False) for one in before.unseen(kinds, found)]
    return replace(before, suspicions=(*others, *closed, *found))


@dataclass(frozen=True, eq=False)
class _RoundMatrix:
    """Visits as rows of tasks and columns of sittings (board and round).

    Attributes:
        trusted: visit medians, NaN for no visit and for one left out or disturbed,
            `(n_tasks, n_sittings)`.
        good: which of them agree with the others of their task, same shape.
    """

    trusted: NDArray[np.float64]
    good: NDArray[np.bool_]

    @property
    def settled(self) -> NDArray[np.float64]:
        """`trusted` without visits that do not agree, where two or more of a task do.

        A burst says nothing about the label: the median passes over it.
        """
        enough = self.good.sum(axis=1, keepdims=True) >= _LEAST_AGREEING
        return np.where(self.good | ~enough, self.trusted, np.nan)

    @classmethod
    def of(cls, case: Case, left_out: Collection[VisitKey]) -> _RoundMatrix:
        sittings = sorted({(visit.device_id, visit.round) for visit in case.visits})
        column = {sitting: index for index, sitting in enumerate(sittings)}
        row = {progress.task.task_id: index for index, progress in enumerate(case.tasks)}
        trusted = np.full((len(row), len(sittings)), np.nan)
        disturbed, disturbed_places = disturbed_visits(case.visits), []
        for visit in case.visits:
            key = visit.task_id, visit.round
            place = row[visit.task_id], column[visit.device_id, visit.round]
            if key not in left_out:
                trusted[place] = visit.median_ns
            if key in disturbed:
                disturbed_places.append(place)
        disputed = sorted({row[one.subject] for one in case.disputed})
        good = _agreeing(trusted, sittings, disputed)
        for place in disturbed_places:
            good[place], trusted[place] = False, np.nan
        return cls(trusted, good)


def _agreeing(
    matrix: NDArray[np.float64], sittings: Sequence[tuple[str, int]], disputed: Sequence[int]
) -> NDArray[np.bool_]:
    """Which visits agree with the others of their row, in disputed rows with those of their board.

    Visits of boards that disagree would never agree, however often they were taken again.
    """
    boards = np.array([device_id for device_id, _ in sittings])
    rows, origin = [*matrix], [*range(len(matrix))]
    for index in disputed:
        rows[index] = np.full(len(sittings), np.nan)
        for board in np.unique(boards):
            rows.append(np.where(boards == board, matrix[index], np.nan))
            origin.append(index)
    good = np.zeros(matrix.shape, dtype=bool)
    if rows:
        np.logical_or.at(good, origin, agreeing(np.stack(rows)))
    return good
