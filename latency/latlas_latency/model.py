"""The one interface of everything that predicts latency, and the values it answers with.

Search, the coordinator and the exports talk to `LatencyModel` only; whether a lookup table or a
predictor stands behind it is no business of theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from latlas_latency.measurement.target import Target
from latlas_ops.network import Network
from latlas_ops.opspec import OpSpec
from latlas_ops.space import ArchBatch, SearchSpace

Subjects = ArchBatch | Sequence[Network]
"""What a prediction may be about: architectures as integers, or any networks."""

Milliseconds = NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """Predicted latencies of `n` networks; every array is `(n,)` float64 in milliseconds.

    Attributes:
        mean_ms: expected median latency.
        lower_ms: lower end of the interval of the prediction's error at `level`.
        upper_ms: upper end; a hard budget is held against this one.
        measured_ms: the part of `mean_ms` that rests on measured entries.
        interpolated_ms: the part interpolated between measured entries.
        estimated_ms: the part that is an estimate (predictors: all of it).
        level: two-sided coverage promised for the interval, for example 0.9.
        missing: ops without a figure, present only where estimates were allowed.
    """

    mean_ms: Milliseconds
    lower_ms: Milliseconds
    upper_ms: Milliseconds
    measured_ms: Milliseconds
    interpolated_ms: Milliseconds
    estimated_ms: Milliseconds
    level: float
    missing: tuple[OpSpec, ...] = ()


@dataclass(frozen=True)
class OpLatencies:
    """Calibrated latencies of a space's ops, for gathers and gradients.

    The mean latency of an architecture is `intercept_ms` plus, over the slots, the element of
    the slot's table at the architecture's choices.

    Attributes:
        intercept_ms: what a network costs beyond its ops.
        tables_ms: per slot a float64 array with one axis per gene of the slot, 0 where empty.
    """

    intercept_ms: float
    tables_ms: tuple[Milliseconds, ...]


@runtime_checkable
class LatencyModel(Protocol):
    """A latency lookup table or a latency predictor for one target."""

    @property
    def target(self) -> Target:
        """The target whose latency this model predicts."""
        ...

    def predict(
        self, subjects: Subjects, level: float = 0.9, *, allow_estimates: bool = False
    ) -> Prediction:
        """Latencies of architectures or networks.

        Args:
            subjects: an `ArchBatch`, or networks.
            level: coverage of the interval, in (0, 1).
            allow_estimates: answer for ops that were never measured by a stated estimate.

        Raises:
            UnknownOpError: an op has no figure and estimates are not allowed; it is named.
            SpaceMismatchError: the model belongs to another space.
        """
        ...

    def op_latencies(self, space: SearchSpace) -> OpLatencies:
        """Per-op latencies of a space.

        Raises:
            NotAdditiveError: the model has no per-op figures.
            UnknownOpError: an op of the space has no figure; it is named.
        """
        ...
