"""`Observation`: a network, what its program's tensors mean, and every visit of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from latlas_latency.measurement.flags import UsualClocks, kept_visits
from latlas_latency.measurement.statistics import (
    common_mode,
    label_noise,
)
from latlas_latency.measurement.target import Target
from latlas_latency.measurement.visit import PROFILED, Visit
from latlas_ops.errors import InvalidInputError
from latlas_ops.network import Network
from latlas_ops.space import ArchBatch, ArchConfig, SearchSpace

Sitting = tuple[str, int]
"""Device and round: visits that share one stretch of time on one board."""

LEAST_FOR_COMMON_MODE = 8
"""From fewer networks the common mode of a round is no better known than a single label."""


@dataclass(frozen=True, eq=False)
class Observation:
    """All visits of one task: one program in one mode on one target.

    Attributes:
        network: what the program computes.
        tensor_positions: name of a tensor of the program → position in `network` of its op.
        visits: the visits, of one mode; several boards of the target's device model may share.
        arch: the architecture, where the network is one of a search space.
        target: what the visits were measured on. Where it is given, building or validating a
            model of another target is refused.
        n_left_out: further visits, not among `visits`, that were disturbed; see `undisturbed`.
        n_disturbed: visits among `visits` that were disturbed and had no better ones beside them.
    """

    network: Network
    tensor_positions: Mapping[str, int]
    visits: tuple[Visit, ...]
    arch: ArchConfig | None = None
    target: Target | None = None
    n_left_out: int = 0
    n_disturbed: int = 0

    def __post_init__(self) -> None:
        if not self.visits:
            raise InvalidInputError("an observation needs at least one visit")
        task = self.visits[0].task_id
        seen = set()
        for visit in self.visits:
            if visit.mode != self.visits[0].mode:
                raise InvalidInputError(
                    f"observation of task {task}: visits are {self.visits[0].mode} and {visit.mode}"
                )
            identity = (visit.task_id, visit.device_id, visit.round, visit.started_ns)
            if identity in seen:
                raise InvalidInputError(
                    f"observation of task {task}: round {visit.round} of device "
                    f"{visit.device_id} is given twice"
                )
            seen.add(identity)
        for tensor, position in self.tensor_positions.items():
            if not 0 <= position < len(self.network.ops):
                raise InvalidInputError(
                    f"observation of task {task}: tensor {tensor!r} is placed at position "
                    f"{position} of a network of {len(self.network.ops)} ops"
                )

    @property
    def mode(self) -> str:
        """Mode of the visits."""
        return self.visits[0].mode

    @cached_property
    def visit_medians_ns(self) -> NDArray[np.float64]:
        """Median whole-network duration of each visit, `(n_visits,)`."""
        return np.array([np.median(visit.network_ns) for visit in self.visits])

    @property
    def latency_ns(self) -> float:
        """Median of the visit medians."""
        return float(np.median(self.visit_medians_ns))

    @property
    def latency_ms(self) -> float:
        """Median of the visit medians in milliseconds: the label of the network."""
        return self.latency_ns / 1e6


def undisturbed(
    observations: Sequence[Observation], usual: Mapping[str, UsualClocks] | None = None
) -> list[Observation]:
    """The observations without visits that were disturbed while better ones remain.

    What a latency model is made from, or held against, passes over visits under throttling or
    crowding; see `kept_visits`. They stay in the store, and their numbers with the observation.

    Args:
        observations: those of one sitting.
        usual: usual clocks of each board, see `UsualClocks.of`; where these observations are the
            whole sitting, they tell them themselves: None.
    """
    if usual is None:
        usual = UsualClocks.of(visit for seen in observations for visit in seen.visits)
    found = []
    for seen in observations:
        selection = kept_visits(seen.visits, usual=usual)
        found.append(
            replace(
                seen,
                visits=selection.kept,
                n_left_out=seen.n_left_out + len(selection.left_out),
                n_disturbed=len(selection.flagged_kept),
            )
        )
    return found


@dataclass(frozen=True, eq=False)
class Drift:
    """What the device as a whole did in each sitting, and how noisy the labels are.

    Attributes:
        factors: how slow each sitting was, relative to the usual; 1 for all where dividing by
            the common mode does not lower the noise.
        label_noise: half the rounds against the other, as measured; NaN with one round.
        common_mode_free_noise: the same after dividing by the common mode.
        removed: whether the factors take the common mode out.
    """

    factors: Mapping[Sitting, float]
    label_noise: float
    common_mode_free_noise: float
    removed: bool

    @property
    def noise(self) -> float:
        """Noise of the labels as they are used; NaN with one round."""
        return self.common_mode_free_noise if self.removed else self.label_noise

    def factors_of(self, observation: Observation) -> NDArray[np.float64]:
        """The factor of each visit, `(n_visits,)`; 1 for a sitting that is not known."""
        return np.array([self.factors.get(_sitting(visit), 1.0) for visit in observation.visits])

    def latency_ns(self, observation: Observation) -> float:
        """Median of the visit medians, each divided by the factor of its sitting."""
        return float(np.median(observation.visit_medians_ns / self.factors_of(observation)))


def round_matrix(
    observations: Sequence[Observation],
) -> tuple[NDArray[np.float64], tuple[Sitting, ...]]:
    """Visit medians in nanoseconds, one row per observation and one column per sitting.

    Returns:
        The matrix `(n_observations, n_sittings)` float64, NaN where an observation has no visit
        in a sitting (the median if it has several), and the sittings by device and round.
    """
    sittings = tuple(
        sorted({_sitting(visit) for observation in observations for visit in observation.visits})
    )
    column = {sitting: index for index, sitting in enumerate(sittings)}
    matrix = np.full((len(observations), len(sittings)), np.nan)
    for row, observation in enumerate(observations):
        cells: dict[int, list[float]] = {}
        for visit, median in zip(observation.visits, observation.visit_medians_ns, strict=True):
            cells.setdefault(column[_sitting(visit)], []).append(float(median))
        for index, medians in cells.items():
            matrix[row, index] = np.median(medians)
    return matrix, sittings


def measure_drift(observations: Sequence[Observation]) -> Drift:
    """The common mode of each sitting over all observations, plain and profiled alike.

    It is removed where that lowers the noise of the labels and there are at least
    `LEAST_FOR_COMMON_MODE` observations to tell it from.
    """
    matrix, sittings = round_matrix(observations)
    free_noise = label_noise(matrix / telling_common_mode(matrix).factors)
    factors = removable_common_mode(matrix)
    removed = factors is not None
    if factors is None:
        factors = np.ones(len(sittings))
    by_sitting = dict(zip(sittings, factors.tolist(), strict=True))
    return Drift(by_sitting, label_noise(matrix), free_noise, removed)


@dataclass(frozen=True, eq=False)
class CommonMode:
    """What the device as a whole did in each round.

    Attributes:
        factors: `(n_rounds,)`, 1.05 is 5 % slower than usual; 1 for a round that tells nothing.
        telling: `(n_rounds,)`, whether the round has rows enough to tell it from.
    """

    factors: NDArray[np.float64]
    telling: NDArray[np.bool_]


def telling_common_mode(matrix: NDArray[np.float64]) -> CommonMode:
    """The common mode of the rounds that most rows were measured in.

    A round of few rows, such as one that repeats only visits that disagreed, says more about these
    rows than about the device.

    Args:
        matrix: round matrix, see `latlas_latency.measurement.statistics`.
    """
    least = min(LEAST_FOR_COMMON_MODE, (len(matrix) + 1) // 2)
    telling = (~np.isnan(matrix)).sum(axis=0) >= least
    factors = np.ones(matrix.shape[1])
    if telling.any():
        factors[telling] = common_mode(matrix[:, telling])
    return CommonMode(factors, telling)


def removable_common_mode(matrix: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The common mode of each round, `(n_rounds,)`, or None where dividing by it does not pay.

    Args:
        matrix: round matrix, see `latlas_latency.measurement.statistics`.
    """
    if len(matrix) < LEAST_FOR_COMMON_MODE:
        return None
    factors = telling_common_mode(matrix).factors
    return factors if label_noise(matrix / factors) < label_noise(matrix) else None


def labels_of_rounds(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """The label of every row: its median over the rounds, the common mode removed if that pays.

    Args:
        matrix: round matrix, see `latlas_latency.measurement.statistics`.

    Returns:
        `(n,)` in the unit of the matrix.
    """
    factors = removable_common_mode(matrix)
    labels: NDArray[np.float64] = np.nanmedian(matrix if factors is None else matrix / factors, 1)
    return labels


def checked_drift(
    observations: Sequence[Observation], target: Target, space: SearchSpace | None
) -> Drift:
    """The drift of everything that a table is made from, which has to belong together.

    Args:
        observations: all of the sitting, plain and profiled alike.
        target: what the table is for.
        space: the search space that the networks belong to, or None.

    Raises:
        TargetMismatchError: an observation was taken on another target; the field is named.
        SpaceMismatchError: an observation is an architecture of another space.
    """
    require_target(observations, target)
    if space is not None:
        space.batch(seen.arch for seen in observations if seen.arch is not None)
    return measure_drift(observations)


def require_target(observations: Sequence[Observation], target: Target) -> None:
    """Raises `TargetMismatchError`, naming the field, if an observation has another target."""
    for observation in observations:
        if observation.target is not None:
            target.require_same(observation.target)


def require_profiled(observations: Sequence[Observation], role: str, *, wanted: bool) -> None:
    """Raises `InvalidInputError` unless all observations are profiled (or, else, plain)."""
    for observation in observations:
        if (observation.mode == PROFILED) != wanted:
            raise InvalidInputError(
                f"{role} networks must be {'profiled' if wanted else 'plain'}; "
                f"task {observation.visits[0].task_id} is {observation.mode}"
            )


def arch_batch(observations: Sequence[Observation], space: SearchSpace) -> ArchBatch | None:
    """The architectures of observations in their order; None if one of them has none.

    Raises:
        SpaceMismatchError: an architecture belongs to another space.
    """
    archs = [observation.arch for observation in observations if observation.arch is not None]
    return space.batch(archs) if len(archs) == len(observations) else None


def _sitting(visit: Visit) -> Sitting:
    return visit.device_id, visit.round
