"""What a coordinator answers with, as frozen values. Field names end in their unit."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from latlas_latency.findings_in_words import (
    not_looked_at_in_words,
    precision_in_words,
    suspicions_in_words,
)
from latlas_latency.measurement.device import Device
from latlas_latency.measurement.target import Target
from latlas_latency.validation import Validation

RUNNING = "running"
FINISHED = "finished"
CANCELLED = "cancelled"


@dataclass(frozen=True)
class Sampling:
    """How every program of a campaign is timed.

    Many short visits tell more than few long ones: what disturbs one visit spares the next.

    Attributes:
        n_rounds: visits per program and mode; the rounds of all programs are interleaved.
        warmup_runs: inferences before each visit that are not timed.
        min_runs: least number of timed inferences in a visit.
        min_duration_ns: least total time of the timed inferences in a visit.
        timeout_ns: a visit that takes longer counts as hung.
        n_extra_rounds: a program that is suspicious, such as one whose visits disagree, is visited
            up to so many times more.
        time_budget_ns: rounds end so long after measuring began, except that every program is
            visited once; 0 for no limit.
        target_error: relative error that noise may leave in a prediction, and in the latency of a
            network of its own, such as 0.005; what exceeds it is visited up to `n_extra_rounds`
            times more. 0 for as many rounds as were asked for; needs at least three of them.
    """

    n_rounds: int = 4
    warmup_runs: int = 2
    min_runs: int = 2
    min_duration_ns: int = 30_000_000
    timeout_ns: int = 120_000_000_000
    n_extra_rounds: int = 3
    time_budget_ns: int = 0
    target_error: float = 0.0


CAREFUL = Sampling(min_runs=5)
"""For networks that are judged, or judge: more inferences in a visit than a table's many need."""

TAILED = Sampling(min_runs=5, min_duration_ns=500_000_000)
"""For a network whose tail is wanted too: p99 takes hundreds of inferences."""

SIDE_BY_SIDE = Sampling(n_rounds=100, min_runs=5)
"""For networks that are compared: what decides is how many rounds they are compared in."""


@dataclass(frozen=True)
class DeviceState:
    """A device that the coordinator knows.

    Attributes:
        device: the board and what can be run on it.
        connected: whether its agent has a session now.
        last_seen_ns: Unix time of the last sign of life.
        busy_with: the campaign it works on, empty when idle.
    """

    device: Device
    connected: bool
    last_seen_ns: int
    busy_with: str


@dataclass(frozen=True)
class FailedTask:
    """A program that could not be measured.

    Attributes:
        task_id: the task.
        label: what listings call its program.
        error_code: name of the `latlas_ops.errors` class.
        reason: one line.
    """

    task_id: str
    label: str
    error_code: str
    reason: str


@dataclass(frozen=True)
class Suspicion:
    """Something in a campaign's visits that cannot be right.

    Attributes:
        kind: `stretch` of slow or fast visits, `disagreement` of boards, or `break`: an entry that
            is slower than that of a bigger op.
        text: what it is, one line.
        revisited: whether visits were ordered because of it.
        open: whether it is left nevertheless.
    """

    kind: str
    text: str
    revisited: bool
    open: bool


@dataclass(frozen=True)
class Findings:
    """What was found in the visits of a campaign when its rounds were done last.

    Attributes:
        suspicions: what cannot be right, often nothing; of listings and while a campaign is
            watched, only the first that are open.
        entry_error: relative error that the noise of a table's entries adds to a network; None
            where that is not known.
        label_error: largest relative standard error of a network's own latency, likewise.
        target_error: what was wanted of both; 0 for nothing.
        n_suspicions: how many suspicions there are.
        n_revisited: of these, those that were visited again.
        n_open: of these, those that are left.
        n_labels_unknown: networks of which nobody knows how well their latency is known.
        remarks: what could not be looked at, or is not known, and why; one line each.
    """

    suspicions: tuple[Suspicion, ...] = ()
    entry_error: float | None = None
    label_error: float | None = None
    target_error: float = 0.0
    n_suspicions: int = 0
    n_revisited: int = 0
    n_open: int = 0
    n_labels_unknown: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """How many suspicions there were, were visited again, and are left; `none` for none."""
        return suspicions_in_words(self.n_suspicions, self.n_revisited, self.n_open)

    @property
    def precision(self) -> tuple[str, ...]:
        """How precise the figures are, a line each; none where there are no such figures."""
        return precision_in_words(
            self.entry_error, self.label_error, self.target_error, self.n_labels_unknown
        )


@dataclass(frozen=True)
class CampaignStatus:
    """How far a campaign is.

    Attributes:
        name: its name.
        target: name of the target it measures on.
        space: search space that it profiles; empty for a campaign that measures programs.
        state: `running`, `finished` or `cancelled`.
        created_ns: Unix time at which it was started.
        n_tasks: programs to measure, each in one mode.
        n_visits_wanted: visits that complete it.
        n_visits_done: visits stored so far.
        failed: tasks that were given up, with the reason.
        findings: what was found in its visits when its rounds were done last; None if nobody has
            looked yet.
    """

    name: str
    target: str
    space: str
    state: str
    created_ns: int
    n_tasks: int
    n_visits_wanted: int
    n_visits_done: int
    failed: tuple[FailedTask, ...] = ()
    findings: Findings | None = None

    @property
    def is_running(self) -> bool:
        """Whether it still wants visits."""
        return self.state == RUNNING

    @property
    def suspicious(self) -> str:
        """What was suspicious, in short; says so where nobody has looked yet."""
        if self.findings is None:
            return not_looked_at_in_words(self.is_running)
        return self.findings.summary


@dataclass(frozen=True)
class VisitSummary:
    """One visit without its samples.

    Attributes:
        round: round number, from 0.
        device_id: the board that was measured.
        started_ns: Unix time at the first timed inference.
        median_ns: median duration of an inference.
        n_runs: timed inferences.
        left_out: whether models pass over it, since the device was disturbed meanwhile and better
            visits are there.
        flags: how the device was disturbed: `throttled`, `crowded`, `memory pressure`,
            `slow clock`.
    """

    round: int
    device_id: str
    started_ns: int
    median_ns: int
    n_runs: int
    left_out: bool = False
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurement:
    """What was measured of one program in one mode.

    Attributes:
        task_id: the task.
        label: what listings call the program.
        role: `cover`, `training`, `calibration`, `validation`, `selected`, `alone` or `measured`.
        mode: `plain`, or `profiled` with per-node times.
        subject: key of the network.
        genes: choice per gene where the program is an architecture of the campaign's space.
        visits: the visits so far, in order of round.
    """

    task_id: str
    label: str
    role: str
    mode: str
    subject: str
    genes: tuple[int, ...]
    visits: tuple[VisitSummary, ...]

    @property
    def latency_ms(self) -> float | None:
        """Median of the medians of visits that are not left out, in ms; None without a visit."""
        kept = [visit.median_ns for visit in self.visits if not visit.left_out]
        return statistics.median(kept) / 1e6 if kept else None


@dataclass(frozen=True)
class ModelInfo:
    """A latency model that the coordinator holds.

    Attributes:
        name: its name.
        kind: `table`, `mlp`, `linear` or `macs`.
        space: search space it was made for; empty if it is bound to none.
        target: what its figures are valid for.
        created_ns: Unix time at which it was made.
        n_entries: entries of a table; 0 for a predictor.
        calibrated: whether whole networks corrected it.
        validation: its errors on networks that no fit has seen, None if there were none.
    """

    name: str
    kind: str
    space: str
    target: Target
    created_ns: int
    n_entries: int
    calibrated: bool
    validation: Validation | None


@dataclass(frozen=True)
class MonotonicityBreak:
    """Two ops, equal but for one direction, of which the bigger is the faster.

    Attributes:
        smaller_op_key: key of the op that took longer.
        bigger_op_key: key of the op that took less.
        direction: `channels`, `kernel`, `expansion` or `resolution`.
        ratio: latency of the smaller over that of the bigger.
        sigmas: logarithm of the ratio in standard errors.
    """

    smaller_op_key: str
    bigger_op_key: str
    direction: str
    ratio: float
    sigmas: float


@dataclass(frozen=True)
class Stretch:
    """Visits in a row on one board that were all slower, or faster, than the others.

    Attributes:
        device_id: the board.
        first_visit_ns, last_visit_ns: Unix time of its first and last visit.
        ratio: latency in it over latency outside.
        n_visits: its visits.
    """

    device_id: str
    first_visit_ns: int
    last_visit_ns: int
    ratio: float
    n_visits: int


@dataclass(frozen=True)
class BoardDisagreement:
    """A program that two boards put at different latencies.

    Attributes:
        label: what listings call the program.
        faster_device_id, slower_device_id: the boards.
        ratio: latency on the slower over that on the faster.
        sigmas: logarithm of the ratio in standard errors.
    """

    label: str
    faster_device_id: str
    slower_device_id: str
    ratio: float
    sigmas: float


@dataclass(frozen=True)
class Suspicions:
    """What in a table, or in the visits behind it, cannot be right; often nothing.

    Attributes:
        breaks: entries that are slower than that of a bigger op.
        stretches: stretches of time in which a board was slower or faster than usual.
        disagreements: programs that two boards put at different latencies.
        campaign: the campaign that was given further visits; empty if none was.
        n_visits_requeued: how many.
    """

    breaks: tuple[MonotonicityBreak, ...]
    stretches: tuple[Stretch, ...]
    disagreements: tuple[BoardDisagreement, ...]
    campaign: str = ""
    n_visits_requeued: int = 0
