"""Fitting an accuracy predictor to labelled subnets, and judging it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from latlas_latency.measurement.statistics import kendall_tau_b
from latlas_nas.accuracy_predictor import (
    HIDDEN_LAYERS,
    AccuracyPredictor,
    Layer,
    feature_weights,
    features,
    logit,
)
from latlas_nas.labelling import Label
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import SearchSpace

_MEMBERS = 10
_WIDTH = 64
_STEPS = 300
_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 4.0
_FEWEST_LABELS = 2 * _MEMBERS
_FOLDS = 5
_FEWEST_TO_JUDGE = _FEWEST_LABELS * _FOLDS // (_FOLDS - 1)


@dataclass(frozen=True)
class AccuracyFit:
    """A predictor held against labels it has not seen.

    Attributes:
        measured: `(n,)` accuracies.
        predicted: `(n,)` accuracies.
        kendall_tau: rank correlation of the two (tau-b); NaN where one of them is constant.
        mean_absolute_error: of the prediction.
        coverage: share of labels inside the predictor's interval.
        level: what the interval promises.
    """

    measured: NDArray[np.float64]
    predicted: NDArray[np.float64]
    kendall_tau: float
    mean_absolute_error: float
    coverage: float
    level: float


def fit_accuracy_predictor(
    space: SearchSpace, labels: Sequence[Label], seed: int
) -> AccuracyPredictor:
    """An ensemble fitted to labelled subnets; each member leaves out a tenth of them.

    Args:
        space: the space of the subnets.
        labels: at least 20.
        seed: decides folds and initial weights.

    Raises:
        InvalidInputError: too few labels.
        SpaceMismatchError: a label belongs to another space.
    """
    if len(labels) < _FEWEST_LABELS:
        raise InvalidInputError(
            f"an accuracy predictor needs {_FEWEST_LABELS} labels or more, got {len(labels)}"
        )
    inputs = features(space.batch(label.arch for label in labels))
    accuracies = np.array([label.accuracy for label in labels])
    generator = torch.Generator().manual_seed(seed)
    fold = torch.randperm(len(labels), generator=generator).numpy() % _MEMBERS
    seen = fold[None] != np.arange(_MEMBERS)[:, None]

    input_mean = inputs.mean(0)
    input_scale = np.maximum(inputs.std(0), 0.1, dtype=np.float32) / feature_weights(space)
    logits = logit(accuracies)
    target_mean, target_scale = float(logits.mean()), max(float(logits.std()), 1e-6)
    scaled = torch.from_numpy((inputs - input_mean) / input_scale)
    targets = torch.from_numpy((logits - target_mean) / target_scale).float()
    layers = _train(scaled, targets, torch.from_numpy(seen), generator)

    predictor = AccuracyPredictor(
        space, layers, input_mean, input_scale, target_mean, target_scale, np.zeros(1)
    )
    outputs = predictor.members(space.batch(label.arch for label in labels))
    errors = np.abs(outputs[fold, np.arange(len(labels))] - accuracies)
    return dataclasses.replace(predictor, residuals=np.sort(errors))


def judge_accuracy_predictor(
    predictor: AccuracyPredictor, labels: Sequence[Label], level: float = 0.9
) -> AccuracyFit:
    """How well a predictor ranks and hits subnets whose labels it was not fitted to."""
    measured = np.array([label.accuracy for label in labels])
    found = predictor.predict(predictor.space.batch(label.arch for label in labels), level)
    inside = (found.lower <= measured) & (measured <= found.upper)
    return AccuracyFit(
        measured,
        found.mean,
        kendall_tau_b(measured, found.mean),
        float(np.abs(found.mean - measured).mean()),
        float(inside.mean()),
        level,
    )


def cross_judge_accuracy_predictor(
    space: SearchSpace, labels: Sequence[Label], seed: int, level: float = 0.9
) -> AccuracyFit:
    """How well a predictor fitted to four fifths of the labels does on the last fifth, in turn.

    Every label is predicted once, by a predictor that has not seen it, so all of them can judge and
    still all of them be fitted to. It errs on the side of caution: the predictor that is used
    afterwards has learned from a quarter more.

    Args:
        space: the space of the subnets.
        labels: at least 25, in any order.
        seed: decides folds, and what `fit_accuracy_predictor` leaves to it.
        level: coverage of the intervals.

    Returns:
        The fit, with accuracies in the order of `labels`.

    Raises:
        InvalidInputError: too few labels.
    """
    if len(labels) < _FEWEST_TO_JUDGE:
        raise InvalidInputError(
            f"judging an accuracy predictor on its own labels needs {_FEWEST_TO_JUDGE} or more, "
            f"got {len(labels)}"
        )
    fold = np.random.default_rng(seed).permutation(len(labels)) % _FOLDS
    measured, predicted = np.zeros(len(labels)), np.zeros(len(labels))
    inside = 0.0
    for number in range(_FOLDS):
        known = [label for label, of in zip(labels, fold, strict=True) if of != number]
        unseen = [label for label, of in zip(labels, fold, strict=True) if of == number]
        judged = judge_accuracy_predictor(fit_accuracy_predictor(space, known, seed), unseen, level)
        measured[fold == number], predicted[fold == number] = judged.measured, judged.predicted
        inside += judged.coverage * len(unseen)
    return AccuracyFit(
        measured,
        predicted,
        kendall_tau_b(measured, predicted),
        float(np.abs(predicted - measured).mean()),
        inside / len(labels),
        level,
    )


def _train(
    inputs: torch.Tensor, targets: torch.Tensor, seen: torch.Tensor, generator: torch.Generator
) -> tuple[Layer, ...]:
    """All members at once, full batch. `seen` `(members, n)`: which labels each learns from."""
    members = len(seen)
    widths = [inputs.shape[1], *[_WIDTH] * HIDDEN_LAYERS, 1]
    weights, biases = [], []
    for before, after in pairwise(widths):
        weight = torch.randn(members, before, after, generator=generator) * (2 / before) ** 0.5
        weights.append(weight.requires_grad_())
        biases.append(torch.zeros(members, 1, after, requires_grad=True))
    optimizer = torch.optim.AdamW(
        [
            {"params": weights, "weight_decay": _WEIGHT_DECAY},
            {"params": biases, "weight_decay": 0.0},
        ],
        lr=_LEARNING_RATE,
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    share = seen / seen.sum(1, keepdim=True)
    for _ in range(_STEPS):
        hidden = inputs.expand(members, -1, -1)
        for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if index < HIDDEN_LAYERS:
                hidden = hidden.relu()
        loss = ((hidden[..., 0] - targets) ** 2 * share).sum()
        gradients = torch.autograd.grad(loss, [*weights, *biases])
        for parameter, gradient in zip([*weights, *biases], gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        scheduler.step()
    return tuple(
        Layer(weight.detach().numpy(), bias.detach()[:, 0].numpy())
        for weight, bias in zip(weights, biases, strict=True)
    )
