"""What a coordinator answers with, as frozen values. Field names end in their unit."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from latlas_latency.measurement.device import Device
from latlas_latency.measurement.target import Target
from latlas_latency.validation import Validation

RUNNING = "running"
FINISHED = "finished"
CANCELLED = "cancelled"


@dataclass(frozen=True)
class Sampling:
    """How every program of a campaign is timed.

    Attributes:
        n_rounds: visits per program and mode; the rounds of all programs are interleaved.
        warmup_runs: inferences before each visit that are not timed.
        min_runs: least number of timed inferences in a visit.
        min_duration_ns: least total time of the timed inferences in a visit.
        timeout_ns: a visit that takes longer counts as hung.
        n_extra_rounds: a program whose visits disagree is visited up to so many times more.
        time_budget_ns: rounds end so long after measuring began, except that every program is
            visited once; 0 for no limit.
    """

    n_rounds: int = 3
    warmup_runs: int = 3
    min_runs: int = 5
    min_duration_ns: int = 30_000_000
    timeout_ns: int = 120_000_000_000
    n_extra_rounds: int = 3
    time_budget_ns: int = 0


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

    @property
    def is_running(self) -> bool:
        """Whether it still wants visits."""
        return self.state == RUNNING


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
    """

    round: int
    device_id: str
    started_ns: int
    median_ns: int
    n_runs: int
    left_out: bool = False


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
