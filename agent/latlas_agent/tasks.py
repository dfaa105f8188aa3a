"""Tasks, their failures, and the order in which a lease's visits are made."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from latlas_agent.timing import MAX_RUNS
from latlas_latency.measurement import MODES, InputShapes, Target
from latlas_latency.wire import shapes_from_messages, target_from_message
from latlas_ops.errors import InvalidInputError, LatlasError, wire_code
from latlas_protos.v1 import fleet_pb2

_MAX_REASON_CHARACTERS = 600


@dataclass(frozen=True)
class Task:
    """One program on one target, and the rounds of it that a lease wants.

    Attributes:
        task_id: the coordinator's name for it.
        program_sha256: digest of the program, in hexadecimal.
        program_format: for example `onnx`.
        program_bytes: size of the program.
        target: how it is to be run.
        mode: `plain` or `profiled`.
        rounds: round numbers wanted.
        warmup_runs: inferences before the clock starts, per visit.
        min_runs: least number of timed inferences per visit.
        min_duration_ns: least time that the timed inferences of a visit take together.
        timeout_ns: time that loading and one visit may take together.
        shapes: of the program's inputs with free axes, by name.
    """

    task_id: str
    program_sha256: str
    program_format: str
    program_bytes: int
    target: Target
    mode: str
    rounds: tuple[int, ...]
    warmup_runs: int
    min_runs: int
    min_duration_ns: int
    timeout_ns: int
    shapes: InputShapes = ()

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidInputError(f"task {self.task_id}: mode {self.mode!r} is unknown")
        if not 1 <= self.min_runs <= MAX_RUNS:
            raise InvalidInputError(
                f"task {self.task_id}: min_runs {self.min_runs} is not between 1 and {MAX_RUNS}"
            )
        if not 0 <= self.warmup_runs <= MAX_RUNS or self.min_duration_ns < 0:
            raise InvalidInputError(
                f"task {self.task_id}: warmup_runs {self.warmup_runs} is not between 0 and "
                f"{MAX_RUNS}, or min_duration_ns {self.min_duration_ns} is negative"
            )
        if self.timeout_ns <= 0:
            raise InvalidInputError(f"task {self.task_id}: timeout_ns must be positive")
        if any(round_ < 0 for round_ in self.rounds):
            raise InvalidInputError(f"task {self.task_id}: a round is negative")

    @classmethod
    def from_message(cls, item: fleet_pb2.LeaseItem) -> Task:
        """The task of a lease's item; raises `InvalidInputError` naming what is off."""
        return cls(
            task_id=item.task_id,
            program_sha256=item.program_sha256,
            program_format=item.program_format,
            program_bytes=item.program_bytes,
            target=target_from_message(item.target),
            mode=item.mode,
            rounds=tuple(item.rounds),
            warmup_runs=item.warmup_runs,
            min_runs=max(1, item.min_runs),
            min_duration_ns=item.min_duration_ns,
            timeout_ns=item.timeout_ns,
            shapes=shapes_from_messages(item.shapes),
        )


@dataclass(frozen=True)
class Failure:
    """A task that cannot be measured and why; `error_code` names a `latlas_ops.errors` class."""

    task_id: str
    error_code: str
    reason: str

    @classmethod
    def of(cls, task_id: str, error: LatlasError) -> Failure:
        """The failure that an error means for a task; the reason is kept to one short line."""
        reason = " ".join(str(error).split())
        if len(reason) > _MAX_REASON_CHARACTERS:
            reason = reason[: _MAX_REASON_CHARACTERS - 1] + "…"
        return cls(task_id, wire_code(error), reason)


def visit_order(rounds: Sequence[Iterable[int]], seed: int) -> list[tuple[int, int]]:
    """Interleaves tasks in rounds: round by round, within each round in a shuffled order.

    Noise comes in bursts and drifts; visits to one task are therefore spread as far apart as the
    lease allows, and no task always follows the same other one.

    Args:
        rounds: the rounds that each task wants.
        seed: seed of the shuffles.

    Returns:
        Pairs (index of the task, round), each wanted pair once.
    """
    rng = random.Random(seed)
    order: list[tuple[int, int]] = []
    for round_ in sorted(set().union(*rounds)):
        members = [index for index, wanted in enumerate(rounds) if round_ in wanted]
        rng.shuffle(members)
        order += [(index, round_) for index in members]
    return order
