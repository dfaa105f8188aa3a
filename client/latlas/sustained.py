"""Latency under sustained load: its first minute beside its last."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from latlas.records import VisitSummary
from latlas_ops.errors import MeasurementError

MOST_WINDOW_S = 60.0
THROTTLED = "throttled"

_NS_PER_S = 1e9


@dataclass(frozen=True)
class Sustained:
    """How a device bears a program that runs without a pause.

    Attributes:
        duration_s: from the first visit to the last one.
        window_s: length of the stretches that are compared: a minute, or a third of a shorter
            measurement.
        first_ms: median latency of the first stretch.
        last_ms: median latency of the last one.
        n_visits: visits in all, throttled ones included.
        n_throttled: visits in which the device reduced its clock.
        first_throttled_s: when the first of these began; None where there is none.
    """

    duration_s: float
    window_s: float
    first_ms: float
    last_ms: float
    n_visits: int
    n_throttled: int
    first_throttled_s: float | None

    @property
    def ratio(self) -> float:
        """Latency at the end over that at the beginning."""
        return self.last_ms / self.first_ms


def sustained(visits: Sequence[VisitSummary]) -> Sustained:
    """Compares the beginning and the end of a measurement without pauses.

    Args:
        visits: every visit of one program, disturbed ones too: throttling is what is looked for.

    Raises:
        MeasurementError: fewer than three visits.
    """
    if len(visits) < 3:
        raise MeasurementError(
            f"{len(visits)} visits are too few to compare a beginning with an end; measure longer"
        )
    start_ns = min(visit.started_ns for visit in visits)
    since_s = [(visit.started_ns - start_ns) / _NS_PER_S for visit in visits]
    last_visit = visits[since_s.index(max(since_s))]
    duration_s = max(since_s) + last_visit.median_ns * last_visit.n_runs / _NS_PER_S
    window_s = min(MOST_WINDOW_S, duration_s / 3)
    timed = list(zip(since_s, visits, strict=True))
    throttled_s = [began_s for began_s, visit in timed if THROTTLED in visit.flags]
    return Sustained(
        duration_s=duration_s,
        window_s=window_s,
        first_ms=_median_ms([visit for began_s, visit in timed if began_s < window_s]),
        last_ms=_median_ms(
            [visit for began_s, visit in timed if began_s >= duration_s - window_s] or [last_visit]
        ),
        n_visits=len(visits),
        n_throttled=len(throttled_s),
        first_throttled_s=min(throttled_s, default=None),
    )


def _median_ms(visits: Sequence[VisitSummary]) -> float:
    return statistics.median(visit.median_ns for visit in visits) / 1e6
