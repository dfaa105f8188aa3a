"""Requirements on a network, and whether measurements meet them: pass, fail, or inconclusive.

A requirement is judged by the interval in which the true figure lies. Where the whole interval is
on one side of the limit, that decides; where the limit is inside, more rounds are needed. So noise
alone hardly ever fails a program: the interval would have to miss the truth first. It is an
interval for independent rounds: ratios of programs that were measured side by side nearly are,
while rounds of one program share the drift of their device.
"""

from __future__ import annotations

import enum
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from latlas_latency.measurement.statistics import median_interval, pseudomedian_interval
from latlas_latency.program_details import VisitTail
from latlas_ops.errors import InvalidInputError

QUANTITIES = ("p50", "p95", "p99")

ERROR = "error"
"""What is required of the outputs: how far they are from those of a reference, as a share."""

LEVEL = 0.99
"""Coverage of the interval: noise fails a program that just meets its limit once in 200 times."""

LEAST_ROUNDS = 8
"""Fewer rounds give no interval at that level."""

LEAST_RUNS = {"p50": 1, "p95": 20, "p99": 100}
"""Inferences that a visit needs to tell a percentile: of fewer, the largest is below it."""


class Verdict(enum.Enum):
    """What measurements say of a requirement; the values are for people."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Requirement:
    """A percentile, or the error of the outputs, that is to stay below a limit.

    Attributes:
        quantity: one of `QUANTITIES`, or `ERROR`.
        limit: nanoseconds, or, where it is relative, a ratio to the other program: 1.05 is 5 %
            slower. Of an error, a share.
        is_relative: which of the two.
    """

    quantity: str
    limit: float
    is_relative: bool

    def __post_init__(self) -> None:
        if self.quantity not in (*QUANTITIES, ERROR):
            raise InvalidInputError(
                f"no latency is called {self.quantity!r}; there are {', '.join(QUANTITIES)}, and "
                f"{ERROR} for outputs"
            )
        if self.is_of_outputs and self.is_relative:
            raise InvalidInputError("an error is a share already: give it without +")
        if not self.limit > 0:
            raise InvalidInputError(f"a latency cannot be below {self.limit}")

    @property
    def is_of_outputs(self) -> bool:
        """Whether it is the error of the outputs that is to stay below."""
        return self.quantity == ERROR


@dataclass(frozen=True)
class Judgement:
    """A requirement beside what was measured.

    Attributes:
        requirement: what was asked.
        verdict: the answer.
        value: median over rounds, in the unit of the requirement's limit.
        lower, upper: where the true median lies, at `LEVEL`; 0 or less and infinite after too few
            rounds.
        n_rounds: rounds that say so.
        note: why there is no answer, where it is not for want of rounds.
    """

    requirement: Requirement
    verdict: Verdict
    value: float
    lower: float
    upper: float
    n_rounds: int
    note: str = ""


def judge(
    requirement: Requirement, visits: Sequence[VisitTail], others: Sequence[VisitTail] = ()
) -> Judgement:
    """Whether a program meets a requirement.

    Args:
        requirement: what is asked.
        visits: visits of the program. Those left out count where too few others are there: a
            gate on a busy machine is to say something, and disturbance widens the interval.
        others: visits of the program that a relative requirement compares it with, of the same
            campaign. Only visits of one round on one board are compared: they were made side by
            side, so that what slows the device for a while slows both.

    Raises:
        InvalidInputError: there is nothing to judge by.
    """
    pairs = _pairs(requirement, visits, others)
    calm = [pair for pair in pairs if not any(visit.left_out for visit in pair)]
    judged = calm if len(calm) >= LEAST_ROUNDS else pairs
    if not judged:
        raise InvalidInputError("no round was measured in which the requirement could be judged")
    values = [_value(requirement, *pair) for pair in judged]
    value = statistics.median(values)
    n_runs = min(visit.n_runs for pair in judged for visit in pair)
    if n_runs < LEAST_RUNS[requirement.quantity]:
        note = (
            f"visits of {n_runs} inferences cannot tell {requirement.quantity}, which takes "
            f"{LEAST_RUNS[requirement.quantity]}"
        )
        return Judgement(requirement, Verdict.INCONCLUSIVE, value, 0.0, math.inf, len(values), note)
    lower, upper = _interval(requirement, values)
    verdict = Verdict.INCONCLUSIVE
    if upper < requirement.limit:
        verdict = Verdict.PASS
    elif lower > requirement.limit:
        verdict = Verdict.FAIL
    return Judgement(requirement, verdict, value, lower, upper, len(values))


def judge_error(requirement: Requirement, error: float | None, reason: str = "") -> Judgement:
    """Whether outputs meet a requirement; they are the same in every round.

    Args:
        requirement: what is asked of the error.
        error: how far the outputs are from the reference's, as a share; None where that is not
            known, and nothing is said then.
        reason: why it is not known.
    """
    if error is None:
        return Judgement(
            requirement, Verdict.INCONCLUSIVE, math.nan, 0.0, math.inf, 0, reason or "no outputs"
        )
    verdict = Verdict.PASS if error < requirement.limit else Verdict.FAIL
    return Judgement(requirement, verdict, error, error, error, 1)


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """One verdict for all: a failure decides, and nothing passes that is not known to."""
    for verdict in (Verdict.FAIL, Verdict.INCONCLUSIVE):
        if verdict in verdicts:
            return verdict
    return Verdict.PASS


def _interval(requirement: Requirement, values: Sequence[float]) -> tuple[float, float]:
    """Where the true figure lies. Ratios of programs under equal noise scatter symmetrically."""
    if not requirement.is_relative:
        return median_interval(values, LEVEL)
    lower, upper = pseudomedian_interval([math.log(value) for value in values], LEVEL)
    return math.exp(lower), math.exp(upper)


def _pairs(
    requirement: Requirement, visits: Sequence[VisitTail], others: Sequence[VisitTail]
) -> list[tuple[VisitTail, ...]]:
    """The visits that each round is judged by: one, or one of either program."""
    if not requirement.is_relative:
        return [(visit,) for visit in visits]
    base = {(visit.round, visit.device_id): visit for visit in others}
    keys = [(visit.round, visit.device_id) for visit in visits]
    return [(visit, base[key]) for visit, key in zip(visits, keys, strict=True) if key in base]


def _value(requirement: Requirement, visit: VisitTail, *other: VisitTail) -> float:
    value, *base = (getattr(one, f"{requirement.quantity}_ns") for one in (visit, *other))
    return float(value / base[0] if base else value)
