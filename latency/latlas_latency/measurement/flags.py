"""Which visits were disturbed, by their conditions alone, and which of them a table is built from.

A flag says that the *device* was in a bad state, never that a duration looks odd: outliers among
the durations are another matter. A flagged visit stays stored and stays part of what is shown of a
sustained measurement; only tables pass it over, and only while there are better ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

import numpy as np

from latlas_latency.measurement.visit import Conditions
from latlas_ops.errors import InvalidInputError

LEAST_UNFLAGGED = 1
"""So many unflagged visits of a subject suffice for leaving its flagged ones out.

One is enough: under a neighbour that thrashed the cache for a third of the time, 24 % of labels
from three visits were off by more than 15 % when two had to remain, 7 % when one had to, and 28 %
when none were left out. With five visits: 4.8, 1.1 and 22 %.
"""

_THROTTLED_EXCESS = 2.5
"""A device says that it throttled, not by how much: ranked with a neighbour on a whole core."""

_CLEARLY_WORSE = 1.5
"""Where all visits are disturbed, those that are so many times as bad as the best are dropped."""

_CORES_OF_OLD_VISITS = 2
"""Visits stored before `online_cores` was reported: the fewest that leave a neighbour a core."""


class Flag(Enum):
    """Why a visit is not to be trusted like others; the values are for people."""

    THROTTLED = "throttled"
    CROWDED = "crowded"
    MEMORY_PRESSURE = "memory pressure"
    SLOW_CLOCK = "slow clock"


@dataclass(frozen=True)
class FlagThresholds:
    """From where on a condition is a flag.

    The defaults for crowding were measured on two cores of a virtual machine: onnxruntime pinned to
    one, networks of 3 to 7 ms in visits of 30 ms, a neighbour process in random bursts of 50 to
    800 ms on the other (walking through a large array) or on the same core.

    Attributes:
        other_cores: cores' worth of time that others used: 0.4. The kernel counts in ticks of
            10 ms, so that undisturbed visits read up to 0.22 (their 99th percentile; 0.35 with
            agent and coordinator on the same two cores). Below 0.4, visits were hardly slower than
            undisturbed ones, for the median over a visit's inferences bears a burst that covers
            less than half of it; from there on they were 10 % slower in the median and a quarter to
            a half of them by more than 15 %.
        waiting_share: share of the visit spent waiting for a core: 0.1. Undisturbed visits read
            0.0015 (99th percentile; at most 0.03), those with a neighbour on their own core 0.1 to
            0.5; from 0.3 on, two thirds were slower by more than 15 %.
        memory_stall_share: share of the visit in which something stood still for want of memory:
            0.05. Chosen, not measured: any paging reaches a measurement in milliseconds at a time.
        clock_share: clock relative to the device's usual one: 0.9. Chosen, not measured: latency
            goes with the clock, and 10 % is beyond the jitter of a boosting processor.
        other_gpu_share: share of the GPU's time that others used: 0.1. Chosen, not measured: a GPU
            gives its time to one process after the other, so that a visit waits for all of it.
    """

    other_cores: float = 0.4
    waiting_share: float = 0.1
    memory_stall_share: float = 0.05
    clock_share: float = 0.9
    other_gpu_share: float = 0.1

    def __post_init__(self) -> None:
        for name in ("other_cores", "waiting_share", "memory_stall_share", "other_gpu_share"):
            if not getattr(self, name) > 0:
                raise InvalidInputError(
                    f"flag threshold {name} is {getattr(self, name)}: give one above 0"
                )
        if not 0 < self.clock_share < 1:
            raise InvalidInputError(
                f"flag threshold clock_share is {self.clock_share}: give one between 0 and 1"
            )


class Conditioned(Protocol):
    """A visit, or a summary of one."""

    @property
    def device_id(self) -> str:
        """The board."""
        ...

    @property
    def conditions(self) -> Conditions:
        """State of the board."""
        ...


OneVisit = TypeVar("OneVisit", bound=Conditioned)


@dataclass(frozen=True)
class UsualClocks:
    """The clocks of one device when nothing slows it: what slow ones are told from.

    A device that runs slowly throughout has slow usual clocks: what tells that is its power mode.

    Attributes:
        cpu_mhz: of the cores that it measures on; None if no visit tells.
        gpu_mhz: of its GPU; None if no visit ran on it.
    """

    cpu_mhz: float | None = None
    gpu_mhz: float | None = None

    @staticmethod
    def of(visits: Iterable[Conditioned]) -> dict[str, UsualClocks]:
        """Median clocks of each device, by `device_id`.

        Args:
            visits: every visit of a campaign, whatever is asked about: among those of some tasks
                alone, three at half the clock look usual.
        """
        seen: dict[str, list[Conditions]] = {}
        for visit in visits:
            seen.setdefault(visit.device_id, []).append(visit.conditions)
        return {
            device_id: UsualClocks(
                _median(one.clock_mhz for one in found),
                _median(one.gpu_clock_mhz for one in found),
            )
            for device_id, found in seen.items()
        }


def _median(clocks_mhz: Iterable[float | None]) -> float | None:
    known = [mhz for mhz in clocks_mhz if mhz is not None]
    return float(np.median(known)) if known else None


@dataclass(frozen=True)
class VisitSelection(Generic[OneVisit]):
    """What the policy made of the visits of one subject; both parts in the order given.

    Attributes:
        kept: visits to derive figures from; never empty if there were any.
        left_out: flagged visits that better ones stand in for.
        flagged_kept: visits in `kept` that are flagged as well, because too few others were there:
            to be stated beside whatever is derived from them.
    """

    kept: tuple[OneVisit, ...]
    left_out: tuple[OneVisit, ...]
    flagged_kept: tuple[OneVisit, ...]


def visit_flags(
    conditions: Conditions,
    thresholds: FlagThresholds = FlagThresholds(),
    usual: UsualClocks = UsualClocks(),
) -> frozenset[Flag]:
    """The flags of a visit under these conditions; what its device does not tell is no flag.

    Args:
        conditions: those of the visit.
        thresholds: from where on a condition is a flag.
        usual: clocks of its device when nothing slows it; without them a slow one goes unnoticed.
    """
    excesses = _excesses(conditions, thresholds, usual)
    return frozenset(flag for flag, excess in excesses.items() if excess > 1)


def kept_visits(
    visits: Sequence[OneVisit],
    thresholds: FlagThresholds = FlagThresholds(),
    least: int = LEAST_UNFLAGGED,
    usual: Mapping[str, UsualClocks] | None = None,
) -> VisitSelection[OneVisit]:
    """The policy of tables: flagged visits are left out while enough unflagged ones remain.

    Where fewer than `least` are unflagged, the least disturbed of the flagged ones join them, and
    with these all that are hardly worse: in a session that is crowded throughout, every visit is as
    good as the other and none is dropped.

    Args:
        visits: visits of one subject (one program on one target), of any rounds and boards.
        thresholds: from where on a condition is a flag.
        least: unflagged visits that suffice.
        usual: usual clocks of each device, see `UsualClocks.of`; those of `visits` alone if None.

    Raises:
        InvalidInputError: `least` is not positive.
    """
    if least < 1:
        raise InvalidInputError(f"least is {least}: a figure needs at least one visit")
    clocks = UsualClocks.of(visits) if usual is None else usual
    unknown = UsualClocks()
    excesses = [
        max(_excesses(visit.conditions, thresholds, clocks.get(visit.device_id, unknown)).values())
        for visit in visits
    ]
    limit = 1.0
    if sum(excess <= limit for excess in excesses) < least:
        limit = max([limit, *sorted(excesses)[:least]]) * _CLEARLY_WORSE
    pairs = list(zip(visits, excesses, strict=True))
    return VisitSelection(
        kept=tuple(visit for visit, excess in pairs if excess <= limit),
        left_out=tuple(visit for visit, excess in pairs if excess > limit),
        flagged_kept=tuple(visit for visit, excess in pairs if 1 < excess <= limit),
    )


def _excesses(
    conditions: Conditions, thresholds: FlagThresholds, usual: UsualClocks
) -> dict[Flag, float]:
    """Per flag the condition as a multiple of its threshold: above 1 it is flagged."""
    crowding = 0.0
    if conditions.other_cpu_share is not None:
        cores = conditions.online_cores or _CORES_OF_OLD_VISITS
        crowding = conditions.other_cpu_share * cores / thresholds.other_cores
    if conditions.waiting_share is not None:
        crowding = max(crowding, conditions.waiting_share / thresholds.waiting_share)
    if conditions.other_gpu_share is not None:
        crowding = max(crowding, conditions.other_gpu_share / thresholds.other_gpu_share)
    excesses = {Flag.CROWDED: crowding}
    if conditions.throttled:
        excesses[Flag.THROTTLED] = _THROTTLED_EXCESS
    if conditions.memory_stall_share is not None:
        excesses[Flag.MEMORY_PRESSURE] = (
            conditions.memory_stall_share / thresholds.memory_stall_share
        )
    lost_shares = [
        1 - clock_mhz / usual_mhz
        for clock_mhz, usual_mhz in (
            (conditions.clock_mhz, usual.cpu_mhz),
            (conditions.gpu_clock_mhz, usual.gpu_mhz),
        )
        if clock_mhz is not None and usual_mhz
    ]
    if lost_shares:
        excesses[Flag.SLOW_CLOCK] = max(lost_shares) / (1 - thresholds.clock_share)
    return excesses
