"""`MlpPredictor`: a linear model and small neural networks on what it leaves unexplained.

A directly trained network needs several times the measurements that a linear model on physical
totals needs. So the networks learn the residual: the log of measured over predicted latency of a
ridge, and only as much of their answer is used as has been of use on samples they had not seen.
"""

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
from latlas_latency.predictors.features import (
    ArchFeatures,
    arch_features,
    choice_names,
    total_names,
)
from latlas_latency.predictors.ridge import Ridge, fit_ridge
from latlas_latency.space_reference import SpaceReference
from latlas_latency.validation import Validation
from latlas_ops.errors import MissingDependencyError, NotAdditiveError
from latlas_ops.space import ArchBatch, SearchSpace

N_MEMBERS = 5
LEAST_SAMPLES = 10

_LOG_OFFSET = 0.1
_SHRINKS = np.linspace(0, 1, 21)
_BATCH_ROWS = 4096


@dataclass(frozen=True, eq=False)
class InputScaling:
    """How features become inputs: `log(total / mean + 0.1)` standardised, then choices.

    Attributes:
        total_means: `(n_totals,)` means of the totals.
        offsets: `(n_totals,)` means of the logs.
        scales: `(n_totals,)` one over their deviation, 0 where they do not vary.
    """

    total_means: NDArray[np.float64]
    offsets: NDArray[np.float64]
    scales: NDArray[np.float64]

    @classmethod
    def of(cls, totals: NDArray[np.float64]) -> InputScaling:
        """The scaling that standardises these totals, `(n, n_totals)`."""
        means = np.maximum(totals.mean(axis=0), 1e-12)
        logs = np.log(totals / means + _LOG_OFFSET)
        deviations = logs.std(axis=0)
        varies = deviations > 1e-9
        scales = np.where(varies, 1 / np.where(varies, deviations, 1), 0)
        return cls(means, logs.mean(axis=0), scales)

    def apply(self, features: ArchFeatures) -> NDArray[np.float32]:
        """Inputs, `(n, n_totals + n_choices)` float32."""
        logs = np.log(features.totals / self.total_means + _LOG_OFFSET)
        scaled = (logs - self.offsets) * self.scales
        return np.concatenate([scaled, features.choices], axis=1, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Layers:
    """Weights of all members' networks: ReLU between layers, one output.

    Attributes:
        weights: one per layer, `(n_members, n_in, n_out)` float32.
        biases: one per layer, `(n_members, 1, n_out)` float32.
    """

    weights: tuple[NDArray[np.float32], ...]
    biases: tuple[NDArray[np.float32], ...]

    def outputs(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """Output of every member, `(n_members, n)`."""
        hidden = np.broadcast_to(inputs, (len(self.weights[0]), *inputs.shape))
        last = len(self.weights) - 1
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = np.matmul(hidden, weight)
            hidden += bias
            if layer < last:
                np.maximum(hidden, 0, out=hidden)
        return hidden[..., 0].astype(np.float64)


@dataclass(frozen=True, eq=False)
class MlpPredictor:
    """Ridge plus residual networks, five members. Implements `LatencyModel`; needs numpy only.

    The latency is the geometric mean over the members of `ridge · exp(shrink · network)`. Each
    member has not seen one fifth of the samples (CV+: Barber et al., Annals of Statistics 2021);
    its errors there give the interval.

    Attributes:
        target: what the latencies were measured on.
        space: the search space it knows.
        total_names: names of the totals, in the order of the coefficients.
        choice_names: names of the choices, likewise.
        scaling: normalisation of the inputs.
        ridges: linear part of each member.
        layers: networks of all members.
        output_scale: what a network's output of 1 means in log latency, before shrinking.
        shrink: share of the networks' answer that is used, 0 to 1.
        scores: `(n_samples,)` absolute log of measured over out-of-fold prediction; the interval
            is their conformal quantile.
        validation: the last comparison with unseen networks, if there was one.
    """

    target: Target
    space: SpaceReference
    total_names: tuple[str, ...]
    choice_names: tuple[str, ...]
    scaling: InputScaling
    ridges: tuple[Ridge, ...]
    layers: Layers
    output_scale: float
    shrink: float
    scores: NDArray[np.float64]
    validation: Validation | None = None

    @property
    def kind(self) -> str:
        """Short name of this kind of model."""
        return "mlp"

    def with_validation(self, validation: Validation) -> MlpPredictor:
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
        # In pieces that stay in the cache: 1.6 times as fast on 100,000 architectures.
        pieces = [
            self._log_latency(ArchBatch(batch.space, batch.genes[start : start + _BATCH_ROWS]))
            for start in range(0, len(batch), _BATCH_ROWS)
        ]
        mean = np.exp(np.concatenate(pieces)) if pieces else np.empty(0)
        return estimated_prediction(mean, conformal_quantile(self.scores, level), level)

    def op_latencies(self, space: SearchSpace) -> OpLatencies:
        """Raises `NotAdditiveError`: the model has no figures of single ops."""
        raise NotAdditiveError(
            f"{self._name} has no latencies of single ops; use a lookup table for those"
        )

    def _log_latency(self, batch: ArchBatch) -> NDArray[np.float64]:
        features = arch_features(batch)
        linear = np.log([ridge.predict_ms(features) for ridge in self.ridges])
        residual = self.layers.outputs(self.scaling.apply(features))
        members = linear + self.shrink * self.output_scale * residual
        return np.asarray(members.mean(axis=0), dtype=np.float64)

    @property
    def _name(self) -> str:
        return f"the MLP predictor of target {self.target.name!r}"


def fit_mlp(batch: ArchBatch, latency_ms: ArrayLike, target: Target, *, seed: int) -> MlpPredictor:
    """Fits an MLP predictor; equal arguments give equal predictors on one machine.

    Five folds. On four of them a member fits its ridge and trains its network on the ridge's
    leave-one-out log residuals; on the fifth the two are judged. The networks' answers are then
    shrunk by the one factor that leaves the least absolute error on the folds not seen.

    Args:
        batch: the measured architectures.
        latency_ms: their latencies, `(n,)`, milliseconds.
        target: what they were measured on.
        seed: seed of the folds and of the initial weights.

    Raises:
        InvalidInputError: too few architectures, or latencies that are not positive.
        MissingDependencyError: torch is not installed.
    """
    latencies = checked_latencies(batch, latency_ms, "an MLP predictor", LEAST_SAMPLES)
    try:
        from latlas_latency.predictors.mlp_training import train_members
    except ImportError as error:
        raise MissingDependencyError(
            "fitting an MLP predictor needs torch: install latlas[nas] or latlas[torch]"
        ) from error
    n_samples = len(latencies)
    features = arch_features(batch)
    folds = np.random.default_rng(seed).permutation(n_samples) % N_MEMBERS
    seen = folds != np.arange(N_MEMBERS)[:, None]
    ridges: list[Ridge] = []
    targets = np.zeros((N_MEMBERS, n_samples))
    for member, mask in enumerate(seen):
        fit = fit_ridge(_rows(features, mask), latencies[mask])
        ridges.append(fit.ridge)
        targets[member] = np.log(latencies / fit.ridge.predict_ms(features))
        targets[member, mask] = fit.log_residuals
    scale = max(float(np.sqrt(np.mean(targets[seen] ** 2))), 1e-6)
    scaling = InputScaling.of(features.totals)
    inputs = scaling.apply(features)
    layers = Layers(*train_members(inputs, targets / scale, seen, seed=seed))
    unseen = np.arange(n_samples)
    residuals = targets[folds, unseen]
    answers = scale * layers.outputs(inputs)[folds, unseen]
    losses = [float(np.mean(np.abs(residuals - shrink * answers))) for shrink in _SHRINKS]
    shrink = float(_SHRINKS[int(np.argmin(losses))])
    return MlpPredictor(
        target=target,
        space=SpaceReference.of(batch.space),
        total_names=total_names(batch.space),
        choice_names=choice_names(batch.space),
        scaling=scaling,
        ridges=tuple(ridges),
        layers=layers,
        output_scale=scale,
        shrink=shrink,
        scores=np.sort(np.abs(residuals - shrink * answers)),
    )


def _rows(features: ArchFeatures, mask: NDArray[np.bool_]) -> ArchFeatures:
    return ArchFeatures(features.totals[mask], features.choices[mask], features.area[mask])
