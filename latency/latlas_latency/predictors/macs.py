"""`MacsPredictor`: latency as a straight line in multiply-accumulates, the least one can do."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from latlas_latency.calibration import LEAST_NETWORKS, AffineFit, fit_affine
from latlas_latency.measurement.statistics import require_level
from latlas_latency.measurement.target import Target
from latlas_latency.model import OpLatencies, Prediction, Subjects
from latlas_latency.predictors.base import checked_latencies
from latlas_latency.space_reference import SpaceReference
from latlas_latency.validation import Validation
from latlas_ops.costs import network_cost, op_cost, space_costs
from latlas_ops.space import ArchBatch, SearchSpace


@dataclass(frozen=True)
class MacsPredictor:
    """An affine function of MACs. Implements `LatencyModel`; answers about any network.

    Attributes:
        target: what the latencies were measured on.
        space: the search space it was fitted on.
        fit: the line from MACs to milliseconds.
        validation: the last comparison with unseen networks, if there was one.
    """

    target: Target
    space: SpaceReference
    fit: AffineFit
    validation: Validation | None = None

    @property
    def kind(self) -> str:
        """Short name of this kind of model."""
        return "macs"

    def with_validation(self, validation: Validation) -> MacsPredictor:
        """This predictor with the result of its last validation."""
        return replace(self, validation=validation)

    def predict(
        self, subjects: Subjects, level: float = 0.9, *, allow_estimates: bool = False
    ) -> Prediction:
        """Latencies of architectures or networks; see `LatencyModel.predict`.

        All of it is estimated. The interval is that of the line (Student's t).

        Raises:
            SpaceMismatchError: architectures of another space than the one it was fitted on.
        """
        require_level(level)
        if isinstance(subjects, ArchBatch):
            self.space.require(subjects.space, self._name)
            macs = space_costs(subjects).macs.astype(np.float64)
        else:
            macs = np.array([network_cost(network).macs for network in subjects], dtype=np.float64)
        mean = self.fit.mean(macs)
        half_width = self.fit.half_width(macs, level)
        nothing = np.zeros_like(mean)
        return Prediction(
            mean_ms=mean,
            lower_ms=np.maximum(mean - half_width, 0),
            upper_ms=mean + half_width,
            measured_ms=nothing,
            interpolated_ms=nothing,
            estimated_ms=mean,
            level=level,
        )

    def op_latencies(self, space: SearchSpace) -> OpLatencies:
        """MACs of every op times the slope; see `LatencyModel.op_latencies`."""
        self.space.require(space, self._name)
        macs = [op_cost(op).macs for op in space.slot_entries.ops]
        values = self.fit.slope * np.array([*macs, 0], dtype=np.float64)
        return OpLatencies(
            self.fit.intercept, tuple(values[table] for table in space.slot_entries.tables)
        )

    @property
    def _name(self) -> str:
        return f"the MACs predictor of target {self.target.name!r}"


def fit_macs(batch: ArchBatch, latency_ms: ArrayLike, target: Target) -> MacsPredictor:
    """Fits a line through MACs and latencies.

    Args:
        batch: the measured architectures.
        latency_ms: their latencies, `(n,)`, milliseconds.
        target: what they were measured on.

    Raises:
        InvalidInputError: fewer than three architectures, latencies that are not positive, or
            latencies that fall with MACs.
    """
    latencies = checked_latencies(batch, latency_ms, "a MACs predictor", LEAST_NETWORKS)
    line = fit_affine(space_costs(batch).macs, latencies, "a MACs predictor")
    return MacsPredictor(target, SpaceReference.of(batch.space), line)
