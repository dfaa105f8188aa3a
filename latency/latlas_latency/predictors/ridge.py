"""Ridge regression of latency on physical totals and choices: the linear model to beat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latlas_latency.predictors.features import ArchFeatures

Floats = NDArray[np.float64]

_CHOICE_SCALES = (0.1, 0.3, 1.0)
"""How much the choices may say beside the totals; the best is found by leave-one-out."""

_PENALTIES = np.logspace(-6, 2, 33)
"""Penalties tried, relative to the largest squared singular value of the design."""

_LEAST_SHARE = 0.2
"""A prediction never falls below this share of the least latency the fit has seen."""


@dataclass(frozen=True, eq=False)
class Ridge:
    """latency = intercept + totals · per_total + (choices · per_choice) · area, in milliseconds.

    Attributes:
        intercept_ms: constant.
        per_total_ms: `(n_totals,)`, milliseconds per unit of each total.
        per_choice_ms: `(n_choices,)`, milliseconds at the largest resolution.
        floor_ms: predictions are no less.
    """

    intercept_ms: float
    per_total_ms: Floats
    per_choice_ms: Floats
    floor_ms: float

    def predict_ms(self, features: ArchFeatures) -> Floats:
        """Latencies, `(n,)`."""
        linear = (
            self.intercept_ms
            + features.totals @ self.per_total_ms
            + (features.choices @ self.per_choice_ms) * features.area
        )
        return np.maximum(linear, self.floor_ms)


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """A ridge, and how it would have predicted each sample without having seen it.

    Attributes:
        ridge: the fitted model.
        log_residuals: `(n,)`, log of measured over leave-one-out prediction.
    """

    ridge: Ridge
    log_residuals: Floats


def fit_ridge(features: ArchFeatures, latency_ms: Floats) -> RidgeFit:
    """Fits a ridge by least relative error; penalty and scale of the choices by leave-one-out.

    Totals are standardised and choices (times area) centred, so that one penalty serves both;
    choices are then scaled down by one of a few factors, since totals explain most of a latency.

    Args:
        features: of `n` architectures.
        latency_ms: their latencies, `(n,)`, positive.
    """
    totals, total_offset, total_scale = _standardised(features.totals)
    shaded = features.choices * features.area[:, None]
    choice_offset = shaded.mean(axis=0)
    solutions = {
        scale: _solve(
            np.concatenate([totals, scale * (shaded - choice_offset)], axis=1), latency_ms
        )
        for scale in _CHOICE_SCALES
    }
    scale, solution = min(solutions.items(), key=lambda item: item[1].error)
    n_totals = totals.shape[1]
    per_total = solution.coefficients[:n_totals] * total_scale
    per_choice = solution.coefficients[n_totals:] * scale
    intercept = solution.intercept - total_offset @ per_total - choice_offset @ per_choice
    floor = _LEAST_SHARE * float(latency_ms.min())
    ridge = Ridge(float(intercept), per_total, per_choice, floor)
    left_out = np.maximum(latency_ms * (1 - solution.residuals), floor)
    return RidgeFit(ridge, np.log(latency_ms / left_out))


@dataclass(frozen=True, eq=False)
class _Solution:
    """Coefficients on a design, with relative leave-one-out residuals and their mean square."""

    coefficients: Floats
    intercept: float
    residuals: Floats
    error: float


def _solve(design: Floats, latency_ms: Floats) -> _Solution:
    """Ridge on rows divided by the latency, unpenalised intercept, penalty by leave-one-out.

    Leave-one-out residuals come from the hat matrix: `r / (1 - h)` (Golub, Heath and Wahba, 1979).
    """
    # Rows over their latency: the target is 1 throughout and the intercept's column 1 / latency.
    inverse = 1 / latency_ms
    rows = design * inverse[:, None]
    norm = math.sqrt(float(inverse @ inverse))
    direction = inverse / norm
    centred = rows - np.outer(direction, direction @ rows)
    target = 1 - direction * direction.sum()
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    if not singular.size or singular[0] == 0:
        singular, left, right = np.ones(1), np.zeros((len(rows), 1)), np.zeros((1, rows.shape[1]))
    projected = left.T @ target
    # (n_penalties, n_singular) shrinkage of each direction, then residuals and leverages at once.
    shrink = singular**2 / (singular**2 + _PENALTIES[:, None] * singular[0] ** 2)
    residuals = target - (shrink * projected) @ left.T
    leverage = shrink @ (left**2).T + direction**2
    residuals = residuals / np.maximum(1 - leverage, 1e-6)
    errors = np.mean(residuals**2, axis=1)
    chosen = int(np.argmin(errors))
    coefficients = right.T @ (shrink[chosen] * projected / singular)
    intercept = float(direction.sum() - (direction @ rows) @ coefficients) / norm
    return _Solution(coefficients, intercept, residuals[chosen], float(errors[chosen]))


def _standardised(columns: Floats) -> tuple[Floats, Floats, Floats]:
    """Columns with mean 0 and deviation 1 (0 where constant), their means, and the factors."""
    offset, deviation = columns.mean(axis=0), columns.std(axis=0)
    varies = deviation > 1e-12 * np.maximum(np.abs(offset), 1)
    scale = np.where(varies, 1 / np.where(varies, deviation, 1), 0)
    return (columns - offset) * scale, offset, scale
