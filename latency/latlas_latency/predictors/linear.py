"""`LinearPredictor`: ridge regression on totals and choices. The baseline to fear."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlas_latency.measurement.statistics import conformal_quantile
from latlas_latency.measurement.target import Target
from latlas_latency.model import OpLatencies, Prediction, Subjects
from latlas_latency.predictors.base import (
    checked_archs,
    checked_latencies,
    estimated_prediction,
)
from latlas_latency.predictors.features import arch_features, choice_names, total_names
from latlas_latency.predictors.ridge import Ridge, fit_ridge
from latlas_latency.space_reference import SpaceReference
from latlas_latency.validation import Validation
from latlas_ops.errors import NotAdditiveError
from latlas_ops.space import ArchBatch, SearchSpace

LEAST_SAMPLES = 5


@dataclass(frozen=True, eq=False)
class LinearPredictor:
    """Ridge regression of whole-network latency. Implements `LatencyModel`.

    Attributes:
        target: what the latencies were measured on.
        space: the search space it knows.
        total_names: names of the totals, in the order of the ridge's coefficients.
        choice_names: names of the choices, likewise.
        ridge: the fitted coefficients.
        scores: `(n_samples,)` absolute log of measured over leave-one-out prediction; the
            interval is their conformal quantile.
        validation: the last comparison with unseen networks, if there was one.
    """

    target: Target
    space: SpaceReference
    total_names: tuple[str, ...]
    choice_names: tuple[str, ...]
    ridge: Ridge
    scores: NDArray[np.float64]
    validation: Validation | None = None

    @property
    def kind(self) -> str:
        """Short name of this kind of model."""
        return "linear"

    def with_validation(self, validation: Validation) -> LinearPredictor:
        """This predictor with the result of its last validation."""
        return replace(self, validation=validation)

    def predict(
        self, subjects: Subjects, level: float = 0.9, *, allow_estimates: bool = False
    ) -> Prediction:
        """Latencies of architectures; see `LatencyModel.predict`. All of it is estimated.

        Raises:
            SpaceMismatchError: networks, or architectures of another space.
        """
        batch = checked_archs(subjects, self.space, self.choice_names, self._name)
        mean = self.ridge.predict_ms(arch_features(batch))
        return estimated_prediction(mean, conformal_quantile(self.scores, level), level)

    def op_latencies(self, space: SearchSpace) -> OpLatencies:
        """Raises `NotAdditiveError`: choices are not ops."""
        raise NotAdditiveError(
            f"{self._name} has no latencies of single ops; use a lookup table for those"
        )

    @property
    def _name(self) -> str:
        return f"the linear predictor of target {self.target.name!r}"


def fit_linear(batch: ArchBatch, latency_ms: ArrayLike, target: Target) -> LinearPredictor:
    """Fits a linear predictor.

    Args:
        batch: the measured architectures.
        latency_ms: their latencies, `(n,)`, milliseconds.
        target: what they were measured on.

    Raises:
        InvalidInputError: too few architectures, or latencies that are not positive.
    """
    latencies = checked_latencies(batch, latency_ms, "a linear predictor", LEAST_SAMPLES)
    fit = fit_ridge(arch_features(batch), latencies)
    return LinearPredictor(
        target=target,
        space=SpaceReference.of(batch.space),
        total_names=total_names(batch.space),
        choice_names=choice_names(batch.space),
        ridge=fit.ridge,
        scores=np.sort(np.abs(fit.log_residuals)),
    )
