"""What is to be measured: campaigns, their plans and tasks, and how far they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from latlas_coordinator.domain.findings import Findings
from latlas_coordinator.domain.names import check_name
from latlas_latency.measurement import Conditions, InputShapes
from latlas_latency.methods import IN_SITU, require_method
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import ArchConfig

_MOST_ROUNDS = 1000
_LEAST_FOR_ERRORS = 3


class Role(Enum):
    """What the visits of a task are for."""

    COVER = "cover"
    CHAIN = "chain"
    TRAINING = "training"
    CALIBRATION = "calibration"
    VALIDATION = "validation"
    SELECTED = "selected"
    ALONE = "alone"
    MEASURED = "measured"


class CampaignState(Enum):
    """Where a campaign stands. Only a running one has work."""

    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Sampling:
    """How one task is measured.

    Attributes:
        n_rounds: visits wanted, one per round.
        n_extra_rounds: further visits at most, for a task of which something is suspicious or not
            yet precise enough.
        time_budget_ns: time after the campaign's first lease at which its rounds end, except that
            every task is visited once; 0 for no limit.
        warmup_runs: inferences before each visit that are not timed.
        min_runs: timed inferences per visit, at least.
        min_duration_ns: timed duration of a visit, at least.
        timeout_ns: loading and one visit together must end within this time.
        target_error: relative error that noise may leave: what the noise of entries costs a
            network, and the standard error of a network's own latency. Tasks that exceed it get
            further visits, `n_extra_rounds` at most; 0 for as many rounds as were asked for.
    """

    n_rounds: int = 3
    warmup_runs: int = 2
    min_runs: int = 5
    min_duration_ns: int = 50_000_000
    timeout_ns: int = 120_000_000_000
    n_extra_rounds: int = 0
    time_budget_ns: int = 0
    target_error: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (
            ("n_rounds", 1),
            ("warmup_runs", 0),
            ("min_runs", 1),
            ("min_duration_ns", 0),
            ("timeout_ns", 1),
            ("n_extra_rounds", 0),
            ("time_budget_ns", 0),
        ):
            value = getattr(self, name)
            if value < least:
                raise InvalidInputError(f"sampling: {name} must be at least {least}, not {value}")
        for name in ("n_rounds", "n_extra_rounds"):
            if getattr(self, name) > _MOST_ROUNDS:
                raise InvalidInputError(
                    f"sampling: {name} must be at most {_MOST_ROUNDS}, not {getattr(self, name)}"
                )
        if not 0 <= self.target_error < 1:
            raise InvalidInputError(
                f"sampling: target_error must be a fraction below 1, not {self.target_error}"
            )
        if self.target_error and self.n_rounds < _LEAST_FOR_ERRORS:
            raise InvalidInputError(
                f"sampling: a target_error needs n_rounds of at least {_LEAST_FOR_ERRORS}, not "
                f"{self.n_rounds}: from fewer visits their noise cannot be told"
            )
        if self.target_error and not self.n_extra_rounds:
            raise InvalidInputError(
                "sampling: a target_error needs n_extra_rounds of at least 1, not 0: without "
                "further visits nothing becomes more precise; allow some, or leave it out"
            )


@dataclass(frozen=True)
class ProfilePlan:
    """Profile a search space; fields as in the message of the same name.

    Attributes:
        method: how ops are measured, one of `latlas_latency.methods.METHODS`; where it is left
            empty, the runtime decides when the campaign is started.
        resolutions: input resolutions that ops are measured at, rising; empty for all of the space.
    """

    space: str
    n_training_networks: int
    n_calibration_networks: int
    n_validation_networks: int
    min_occurrences: int
    seed: int
    # Plans that were kept before there was a choice have no method.
    method: str = IN_SITU
    resolutions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.method:
            require_method(self.method)
        if list(self.resolutions) != sorted(set(self.resolutions)):
            raise InvalidInputError(f"plan: resolutions must be rising, not {self.resolutions}")
        for name, least, most in (
            ("n_training_networks", 0, 100_000),
            ("n_calibration_networks", 0, 100_000),
            ("n_validation_networks", 0, 100_000),
            ("min_occurrences", 1, 100),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise InvalidInputError(f"plan: {name} must be {least} to {most}, not {value}")


@dataclass(frozen=True)
class ValidationPlan:
    """Measure networks that a table was not made from; fields as in the message of the same name.

    Attributes:
        space: name of the table's space; filled in when the campaign is started.
    """

    table: str
    n_random_networks: int
    n_selected_networks: int
    n_spread_networks: int
    stand_alone: bool
    seed: int
    space: str = ""

    def __post_init__(self) -> None:
        if not self.table:
            raise InvalidInputError("plan: a validation needs the name of a table")
        for name, most in (
            ("n_random_networks", 100_000),
            ("n_selected_networks", 10_000),
            ("n_spread_networks", 1_000),
            ("seed", 2**63 - 1),
        ):
            value = getattr(self, name)
            if not 0 <= value <= most:
                raise InvalidInputError(f"plan: {name} must be 0 to {most}, not {value}")
        if not (self.n_random_networks or self.n_selected_networks or self.n_spread_networks):
            raise InvalidInputError("plan: a validation needs at least one network")


@dataclass(frozen=True)
class MeasuredProgram:
    """An uploaded program and what to call it."""

    sha256: str
    label: str


@dataclass(frozen=True)
class MeasurePlan:
    """Measure programs that were uploaded.

    Attributes:
        programs: the programs.
        with_nodes: also with node times, where the target's runtime has them.
        shapes: of inputs with free axes, by name.
    """

    programs: tuple[MeasuredProgram, ...]
    with_nodes: bool = False
    shapes: InputShapes = ()

    def __post_init__(self) -> None:
        if not self.programs:
            raise InvalidInputError("plan: a campaign needs at least one program to measure")
        seen = set()
        for program in self.programs:
            if program.sha256 in seen:
                raise InvalidInputError(f"plan: program {program.sha256} is listed twice")
            seen.add(program.sha256)


Plan = ProfilePlan | ValidationPlan | MeasurePlan

PLAN_KINDS: dict[str, type[Plan]] = {
    "profile": ProfilePlan,
    "validation": ValidationPlan,
    "measure": MeasurePlan,
}


def plan_kind(plan: Plan) -> str:
    """What a plan is called in records."""
    return next(name for name, kind in PLAN_KINDS.items() if isinstance(plan, kind))


@dataclass(frozen=True)
class Campaign:
    """What is wanted on which target.

    Attributes:
        name: unique name of the user's choosing.
        target: name of the target.
        plan: what is measured.
        sampling: how each task is measured.
        created_ns: Unix time of its start.
        state: where it stands.
    """

    name: str
    target: str
    plan: Plan
    sampling: Sampling
    created_ns: int
    state: CampaignState = CampaignState.RUNNING

    def __post_init__(self) -> None:
        check_name("campaign", self.name)

    @property
    def space(self) -> str:
        """Name of the space that its networks are of; empty for measured programs."""
        return "" if isinstance(self.plan, MeasurePlan) else self.plan.space

    def definition(self) -> dict[str, Any]:
        """Field path → value of all that the user chose; two equal ones are one campaign."""
        plan = dataclasses.asdict(self.plan)
        if isinstance(self.plan, MeasurePlan):
            plan["programs"] = [[program.sha256, program.label] for program in self.plan.programs]
        return {
            "target": self.target,
            "plan.kind": plan_kind(self.plan),
            **{f"plan.{name}": value for name, value in plan.items()},
            **{f"sampling.{name}": value for name, value in vars(self.sampling).items()},
        }


@dataclass(frozen=True)
class Task:
    """One program on one target: measured once per round until every round has a visit.

    Attributes:
        task_id: unique.
        campaign: name of the campaign.
        target: name of the target.
        program_sha256: the program.
        mode: `PLAIN` or `PROFILED` of `latlas_latency.measurement`.
        role: what its visits are for.
        label: what to call it in listings.
        sampling: how it is measured.
        arch: the architecture that the program implements, if it is one of a space.
    """

    task_id: str
    campaign: str
    target: str
    program_sha256: str
    mode: str
    role: Role
    label: str
    sampling: Sampling
    arch: ArchConfig | None = None


@dataclass(frozen=True)
class TaskFailure:
    """Why a task could not be measured.

    Attributes:
        task_id: the task.
        error_code: name of a `latlas_ops.errors` class.
        reason: one line.
    """

    task_id: str
    error_code: str
    reason: str


@dataclass(frozen=True)
class TaskProgress:
    """A task and how far it is.

    Attributes:
        task: the task.
        visited: rounds that have a visit.
        attempts: leases under which it has failed.
        failure: why it was given up; None while it is not.
        last_failure: the newest failure, whether it was given up or not.
        n_extra_rounds: rounds beyond those of its sampling; see `latlas_coordinator.settling`.
    """

    task: Task
    visited: frozenset[int] = frozenset()
    attempts: int = 0
    failure: TaskFailure | None = None
    last_failure: TaskFailure | None = None
    n_extra_rounds: int = 0

    @property
    def missing_rounds(self) -> tuple[int, ...]:
        """Rounds without a visit, rising; empty where the task was given up."""
        if self.failure is not None:
            return ()
        return tuple(number for number in range(self.n_rounds) if number not in self.visited)

    @property
    def n_rounds(self) -> int:
        """Rounds in all."""
        return self.task.sampling.n_rounds + self.n_extra_rounds

    @property
    def is_measured(self) -> bool:
        """Whether it has as many visits as its sampling asks for."""
        return len(self.visited) >= self.task.sampling.n_rounds


@dataclass(frozen=True)
class Looked:
    """What a campaign was like when it was looked at: what was decided holds while it is so.

    Attributes:
        n_rounds: rounds of all of its tasks.
        n_visits: visits of all of them.
    """

    n_rounds: int
    n_visits: int

    @classmethod
    def at(cls, tasks: Iterable[TaskProgress], n_visits: int) -> Looked:
        """A look at these tasks and at so many visits."""
        return cls(sum(progress.n_rounds for progress in tasks), n_visits)


@dataclass(frozen=True)
class FailedTask:
    """A task that was given up, for listings."""

    label: str
    failure: TaskFailure


@dataclass(frozen=True)
class CampaignStatus:
    """A campaign and its progress.

    Attributes:
        campaign: the campaign.
        n_tasks: tasks, those given up included.
        n_visits_wanted: visits at its end; rounds that tasks given up still lacked do not count.
        n_visits_done: visits so far.
        failed: tasks given up.
        findings: what was found in its visits when its rounds were done last; None if nobody has
            looked yet.
    """

    campaign: Campaign
    n_tasks: int
    n_visits_wanted: int
    n_visits_done: int
    failed: tuple[FailedTask, ...] = ()
    findings: Findings | None = None


@dataclass(frozen=True)
class VisitSummary:
    """A visit in a listing.

    Attributes:
        task_id: its task.
        round: its round.
        device_id: the board.
        started_ns: Unix time at the first timed inference.
        median_ns: median duration of an inference.
        n_runs: timed inferences.
        conditions: state of the device.
    """

    task_id: str
    round: int
    device_id: str
    started_ns: int
    median_ns: int
    n_runs: int
    conditions: Conditions = field(default_factory=Conditions)
