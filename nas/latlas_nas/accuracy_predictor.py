"""`AccuracyPredictor`: from an architecture's genes to the accuracy of its subnet.

A small ensemble of perceptrons with three hidden layers (Once-for-All, section 3.4). Two things
differ from that paper, because a few dozen labels have to do: what is fitted is the logit of the
accuracy, in which the effects of genes nearly add up, and the inputs are not one-hot genes but the
few numbers that accuracy depends on most; see `features`. Prediction is plain numpy on whole
batches of architectures; the normalisation of inputs and target lies inside, and so does what the
interval needs.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from latlas_latency.measurement.statistics import conformal_quantile
from latlas_nas.checkpoint import write_whole
from latlas_ops.costs import space_costs
from latlas_ops.errors import SpaceMismatchError, StorageError
from latlas_ops.space import INACTIVE, ArchBatch, SearchSpace

HIDDEN_LAYERS = 3
_FORMAT = "latlas-accuracy-predictor"
_VERSION = 2
_LAYER_WEIGHT = 0.2

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class AccuracyPrediction:
    """Predicted accuracies of `n` architectures; every array is `(n,)` float64 in [0, 1].

    Attributes:
        mean: mean over the ensemble.
        lower: lower end of the interval of the prediction's error at `level`.
        upper: upper end.
        spread: standard deviation over the ensemble.
        level: two-sided coverage promised for the interval.
    """

    mean: Floats
    lower: Floats
    upper: Floats
    spread: Floats
    level: float


@dataclass(frozen=True)
class Layer:
    """One linear layer of every member: `weight` `(members, in, out)`, `bias` `(members, out)`."""

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True)
class AccuracyPredictor:
    """An ensemble of perceptrons; see `accuracy_fitting.fit_accuracy_predictor`.

    Attributes:
        space: the space whose architectures it takes.
        layers: three hidden layers and the output, ReLU between them.
        input_mean: subtracted from the features, `(n_features,)`.
        input_scale: divides them.
        target_mean: added to the scaled output, which then is the logit of the accuracy.
        target_scale: multiplies the output.
        residuals: absolute errors on labels that the member had not seen, sorted, `(n_labels,)`.
    """

    space: SearchSpace
    layers: tuple[Layer, ...]
    input_mean: NDArray[np.float32]
    input_scale: NDArray[np.float32]
    target_mean: float
    target_scale: float
    residuals: Floats

    def __call__(self, archs: ArchBatch) -> Floats:
        """Predicted accuracy of every architecture, `(n_archs,)`; what a search maximises."""
        mean: Floats = self.members(archs).mean(0)
        return mean

    def predict(self, archs: ArchBatch, level: float = 0.9) -> AccuracyPrediction:
        """Predicted accuracies with intervals.

        The interval is the mean plus and minus the `level` quantile of the errors on held-out
        labels (cross-conformal: Vovk, 2015), the same width everywhere.

        Raises:
            SpaceMismatchError: the architectures belong to another space.
            InvalidInputError: `level` is not in (0, 1).
        """
        outputs = self.members(archs)
        mean = outputs.mean(0)
        width = conformal_quantile(self.residuals, level)
        return AccuracyPrediction(
            mean,
            np.clip(mean - width, 0.0, 1.0),
            np.clip(mean + width, 0.0, 1.0),
            outputs.std(0),
            level,
        )

    def members(self, archs: ArchBatch) -> Floats:
        """What every member says, `(members, n_archs)`."""
        self.space.require_same(archs.space)
        values = (features(archs) - self.input_mean) / self.input_scale
        hidden = values[None]
        for index, layer in enumerate(self.layers):
            hidden = hidden @ layer.weight + layer.bias[:, None]
            if index < len(self.layers) - 1:
                np.maximum(hidden, 0, out=hidden)
        scaled = hidden[..., 0].astype(np.float64) * self.target_scale + self.target_mean
        accuracy: Floats = 1 / (1 + np.exp(-scaled))
        return accuracy

    def save(self, path: Path) -> None:
        """Writes an npz file without pickled content.

        Raises:
            StorageError: the file cannot be written.
        """
        header = {
            "format": _FORMAT,
            "version": _VERSION,
            "space": self.space.name,
            "space_version": self.space.version,
            "target_mean": self.target_mean,
            "target_scale": self.target_scale,
        }
        arrays: dict[str, Any] = {
            "header": np.array(json.dumps(header)),
            "input_mean": self.input_mean,
            "input_scale": self.input_scale,
            "residuals": self.residuals,
        }
        for index, layer in enumerate(self.layers):
            arrays |= {f"weight{index}": layer.weight, f"bias{index}": layer.bias}
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        write_whole(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> AccuracyPredictor:
        """The predictor of a file that `save` wrote.

        Raises:
            StorageError: the file cannot be read or is no accuracy predictor.
            SpaceMismatchError: it was fitted for another space.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            header: Mapping[str, Any] = json.loads(str(arrays["header"]))
            if (header["format"], header["version"]) != (_FORMAT, _VERSION):
                raise ValueError(f"format {header['format']!r} version {header['version']!r}")
            layers = tuple(
                Layer(arrays[f"weight{index}"], arrays[f"bias{index}"])
                for index in range(HIDDEN_LAYERS + 1)
            )
            predictor = cls(
                space,
                layers,
                arrays["input_mean"],
                arrays["input_scale"],
                float(header["target_mean"]),
                float(header["target_scale"]),
                arrays["residuals"],
            )
            owner = (header["space"], header["space_version"])
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
            raise StorageError(
                f"{path} is no accuracy predictor that can be read: {error}"
            ) from error
        if owner != (space.name, space.version):
            raise SpaceMismatchError(
                f"{path} predicts space {owner[0]!r} version {owner[1]}, not {space.name!r} "
                f"version {space.version}"
            )
        return predictor


def features(archs: ArchBatch) -> NDArray[np.float32]:
    """What the predictor sees of architectures, `(n_archs, n_features)`.

    First come the *steps* of every gene: 1 for every choice up to the one taken, so that the second
    of three choices is 1, 1, 0, and zeros where the gene has no effect. Then, per stage and family
    of genes that several layers have, the mean and the sum of their choices over the layers that
    are there; last the logarithms of multiply-accumulates and parameters.
    """
    genes, active = archs.genes, archs.genes != INACTIVE
    steps = [
        genes[:, gene, None] >= np.arange(size)
        for gene, size in enumerate(archs.space.sizes.tolist())
    ]
    totals = []
    for members in _groups(archs.space):
        total = np.where(active[:, members], genes[:, members], 0).sum(1)
        totals += [total / np.maximum(active[:, members].sum(1), 1), total]
    costs = space_costs(archs)
    logs = [np.log(costs.macs), np.log(costs.parameters)]
    columns = [*steps, *(column[:, None] for column in (*totals, *logs))]
    return np.concatenate(columns, axis=1).astype(np.float32)


def feature_weights(space: SearchSpace) -> NDArray[np.float32]:
    """By how much each feature counts under the same weight decay, `(n_features,)`.

    The genes of single layers count a fifth of the rest: a few dozen labels say little about them
    beyond what stages and costs say, while thousands of labels outweigh the factor.
    """
    groups = _groups(space)
    in_group = {gene for members in groups for gene in members}
    steps = [
        np.full(size, _LAYER_WEIGHT if gene in in_group else 1.0)
        for gene, size in enumerate(space.sizes.tolist())
    ]
    rest = np.ones(2 * len(groups) + 2)
    return np.concatenate([*steps, rest]).astype(np.float32)


def _groups(space: SearchSpace) -> list[list[int]]:
    """Genes of one family in one stage, where there are several: the kernels of stage 0, say."""
    found: dict[tuple[str, str], list[int]] = {}
    for index, gene in enumerate(space.genes):
        found.setdefault((gene.name.split(".")[0], gene.family), []).append(index)
    return [members for members in found.values() if len(members) > 1]


def logit(accuracies: Floats) -> Floats:
    """The log odds of accuracies, which are taken to lie between half a percent and 99.5 %."""
    inside = np.clip(accuracies, 0.005, 0.995)
    result: Floats = np.log(inside / (1 - inside))
    return result
