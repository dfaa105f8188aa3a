"""What in the visits of a campaign cannot be right. Pure: summaries of visits in, records out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from latlas_coordinator.domain import Suspicion, SuspicionKind, Task, VisitKey, VisitSummary
from latlas_latency.measurement import UsualClocks, visit_flags
from latlas_latency.observations import (
    LEAST_FOR_COMMON_MODE,
    removable_common_mode,
    telling_common_mode,
)
from latlas_latency.suspicion import Disagreement, MonotonicityBreak, disagreements, find_shifts

MOST_DISTURBED = 0.5
"""Share of disturbed visits from which on waiting for better ones is in vain."""

SHARED = 0.8
"""A stretch that takes so much of a round is divided out with the round's common mode, as drift."""

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
        visits: its visits, in the order of time.
        doubtful: those of its visits that are not to be trusted, by round. Where the stretch is as
            good as the whole round, none of them: tables divide out what a round has in common.
    """

    device_id: str
    first_visit_ns: int
    last_visit_ns: int
    ratio: float
    visits: tuple[VisitKey, ...]
    doubtful: tuple[VisitKey, ...]


def find_stretches(visits: Sequence[VisitSummary]) -> tuple[Stretch, ...]:
    """Shifts in the visits of each board in the order of time, relative to its own medians."""
    medians_ns: dict[tuple[str, str], list[int]] = defaultdict(list)
    by_device: dict[str, list[VisitSummary]] = defaultdict(list)
    for visit in sorted(visits, key=lambda visit: visit.started_ns):
        medians_ns[visit.task_id, visit.device_id].append(visit.median_ns)
        by_device[visit.device_id].append(visit)
    usual_ns = {key: float(np.median(found)) for key, found in medians_ns.items()}
    shifts = []
    for device_id, series in by_device.items():
        if len(series) < _LEAST_VISITS:
            continue
        ratios = [one.median_ns / usual_ns[one.task_id, device_id] for one in series]
        shifts += [(one, series[one.start : one.stop]) for one in find_shifts(ratios)]
    if not shifts:
        return ()
    sizes = _sizes_divided_out(visits)
    found = []
    for shift, inside in shifts:
        in_round = Counter(one.round for one in inside)
        doubtful = [
            one
            for one in inside
            if in_round[one.round] < SHARED * sizes.get((one.device_id, one.round), np.inf)
        ]
        found.append(
            Stretch(
                inside[0].device_id,
                inside[0].started_ns,
                inside[-1].started_ns,
                shift.ratio,
                tuple((one.task_id, one.round) for one in inside),
                tuple(sorted(((one.task_id, one.round) for one in doubtful), key=_by_round)),
            )
        )
    return tuple(found)


def _by_round(visit: VisitKey) -> tuple[int, str]:
    return visit[1], visit[0]


def _sizes_divided_out(visits: Sequence[VisitSummary]) -> dict[tuple[str, int], int]:
    """Sittings (board and round) whose common mode tables divide out, with their visits."""
    sittings = sorted({(visit.device_id, visit.round) for visit in visits})
    column = {sitting: index for index, sitting in enumerate(sittings)}
    row = {task_id: index for index, task_id in enumerate({one.task_id: None for one in visits})}
    matrix = np.full((len(row), len(sittings)), np.nan)
    for visit in visits:
        matrix[row[visit.task_id], column[visit.device_id, visit.round]] = visit.median_ns
    if removable_common_mode(matrix) is None:
        return {}
    telling = telling_common_mode(matrix).telling
    counts = (~np.isnan(matrix)).sum(axis=0)
    return {sitting: int(counts[index]) for index, sitting in enumerate(sittings) if telling[index]}


def disturbed_visits(visits: Sequence[VisitSummary]) -> frozenset[VisitKey]:
    """Visits of a campaign that were disturbed, by their conditions.

    None where most were: a device that is disturbed most of the time will be no better in another
    round, so that such visits count as any other.
    """
    usual = UsualClocks.of(visits)
    found = frozenset(
        (visit.task_id, visit.round)
        for visit in visits
        if visit_flags(visit.conditions, usual=usual[visit.device_id])
    )
    return found if len(found) < MOST_DISTURBED * len(visits) else frozenset()


def replaced_visits(
    doubtful: Collection[VisitKey], tasks: Iterable[Task], visits: Sequence[VisitSummary]
) -> frozenset[VisitKey]:
    """The doubtful visits that models pass over: those that better ones stand in for.

    A task keeps as many visits as its sampling has rounds, where it has so many: only what further
    visits, neither doubtful nor disturbed, make up for is left out. The doubtful visits of a task
    whose further rounds were ordered and never taken all stay.

    Args:
        doubtful: visits that cannot be trusted, see `Findings.doubtful`.
        tasks: those whose visits are asked for.
        visits: every visit of their campaign.
    """
    if not doubtful:
        return frozenset()
    disturbed = disturbed_visits(visits)
    n_good: Counter[str] = Counter()
    of_task: dict[str, list[VisitKey]] = defaultdict(list)
    for visit in visits:
        key = visit.task_id, visit.round
        if key in doubtful:
            of_task[visit.task_id].append(key)
        else:
            n_good[visit.task_id] += key not in disturbed
    replaced: list[VisitKey] = []
    for task in tasks:
        n_kept = max(0, task.sampling.n_rounds - n_good[task.task_id])
        in_order = sorted(of_task[task.task_id], key=lambda key: (key in disturbed, key[1]))
        replaced += in_order[n_kept:]
    return frozenset(replaced)


def find_disagreements(visits: Sequence[VisitSummary]) -> tuple[Disagreement[str, str], ...]:
    """Tasks, by `task_id`, that two boards put at different latencies."""
    by_task: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for visit in visits:
        by_task[visit.task_id][visit.device_id].append(visit.median_ns)
    several = {task_id: boards for task_id, boards in by_task.items() if len(boards) > 1}
    if not any(len(medians) > 1 for boards in several.values() for medians in boards.values()):
        return ()  # without two visits of a board to one task nothing is known of the noise
    enough = len(several) >= LEAST_FOR_COMMON_MODE
    return disagreements(several, remove_common_mode=enough)


def stretch_suspicion(stretch: Stretch) -> Suspicion:
    """A stretch as a finding, open and not visited again."""
    speed = "slower" if stretch.ratio > 1 else "faster"
    text = (
        f"{len(stretch.visits)} visits in a row on {stretch.device_id} were "
        f"{_percent(abs(stretch.ratio - 1))} {speed} than the others"
    )
    return Suspicion(
        SuspicionKind.STRETCH,
        stretch.device_id,
        text,
        stretch.first_visit_ns,
        stretch.last_visit_ns,
        doubtful=stretch.doubtful,
    )


def disagreement_suspicion(found: Disagreement[str, str], label: str) -> Suspicion:
    """A disagreement of boards about a task of that label, likewise."""
    more = _percent(found.ratio - 1)
    text = f"{label} is {more} slower on {found.slower} than on {found.faster}"
    boards = " ".join(sorted((found.faster, found.slower)))
    return Suspicion(SuspicionKind.DISAGREEMENT, f"{found.subject} {boards}", text)


def break_suspicion(found: MonotonicityBreak) -> Suspicion:
    """An entry that is slower than a bigger op's, likewise."""
    text = f"{found.smaller} is {_percent(found.ratio - 1)} slower than with {_larger(found)}"
    return Suspicion(SuspicionKind.BREAK, f"{found.smaller.key} {found.bigger.key}", text)


def _larger(found: MonotonicityBreak) -> str:
    """What the bigger op of a break has more of, without what the two share."""
    smaller, bigger = found.smaller, found.bigger
    shapes = " ".join("x".join(map(str, shape)) for shape in bigger.inputs)
    parts = [] if bigger.inputs == smaller.inputs else [f"inputs {shapes}"]
    own = set(bigger.attributes) - set(smaller.attributes)
    return ", ".join(parts + [f"{name}={value}" for name, value in sorted(own)]) or str(bigger)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
