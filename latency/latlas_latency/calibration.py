"""Straight lines fitted to latencies, with their uncertainty: y = intercept + slope · x.

A lookup table is calibrated by such a line (x: the sum of its entries), and latency is predicted
from MACs by one (x: the MACs).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from latlas_latency.measurement.statistics import (
    huber_weights,
    require_level,
    student_t_quantile,
)
from latlas_ops.errors import InvalidInputError

LEAST_SHARE = 0.5
"""A latency on a line is at least this share of what grows with x, should the constant be negative:
far below the networks it was fitted to, the line itself would turn negative."""

LEAST_NETWORKS = 3
"""A line through fewer networks has no residual to judge it by."""

SESSION_DRIFT = 0.03
"""Relative standard deviation of what all networks share from one session on a device to the next:
on a virtual machine the six pairs of sittings of `bench/additivity.py` differed by 0.1 to 5.3 %,
2.7 % root mean square."""

_PASSES = 20
_SETTLED = 1e-9
_LEAST_RELATIVE_SPREAD = 1e-3


@dataclass(frozen=True)
class AffineFit:
    """A fitted line and what is known about its error.

    Attributes:
        intercept: in the unit of y.
        slope: y per x.
        covariance: of (intercept, slope), as rows.
        residual: relative standard deviation of a new y about the true line.
        n_networks: points that the line was fitted to.
    """

    intercept: float
    slope: float
    covariance: tuple[tuple[float, float], tuple[float, float]]
    residual: float
    n_networks: int

    def mean(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The line at `x`, `(n,)`, but at least `LEAST_SHARE · slope · x`."""
        linear = self.slope * x
        return np.maximum(self.intercept + linear, LEAST_SHARE * linear)

    def half_width(
        self, x: NDArray[np.float64], level: float, extra: NDArray[np.float64] | float = 0.0
    ) -> NDArray[np.float64]:
        """Half the width of the prediction interval at `x`, in the unit of y, `(n,)`.

        Residual and uncertainty of the parameters together, times Student's t.

        Args:
            x: where, `(n,)`.
            level: two-sided coverage.
            extra: further relative variance from other sources, `(n,)` or a number.
        """
        require_level(level)
        (var_intercept, covariance), (_, var_slope) = self.covariance
        parameters = var_intercept + 2 * covariance * x + var_slope * x**2
        variance = (self.residual**2 + extra) * self.mean(x) ** 2 + parameters
        quantile = student_t_quantile((1 + level) / 2, self.n_networks - 2)
        return np.asarray(quantile * np.sqrt(np.maximum(variance, 0)), dtype=np.float64)


def fit_affine(x: ArrayLike, y: ArrayLike, what: str) -> AffineFit:
    """The line with the least relative error: squared residuals weighted by 1 / line².

    Outliers among the y lose weight (Huber, see `huber_weights`). `residual` is unbiased: each
    squared residual is divided by what fitting to the point itself took from it, so that it is
    the product of the point's residual and its leave-one-out residual (the estimator HC2 of
    MacKinnon and White, 1985).

    Args:
        x: `(n,)`, positive.
        y: latencies, `(n,)`, positive.
        what: names the fit in error messages, for example `calibration`.

    Raises:
        InvalidInputError: fewer than three points, points that do not differ in x, values that
            are not positive, or points that contradict a rising line.
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    n_points = len(xs)
    if n_points < LEAST_NETWORKS:
        raise InvalidInputError(
            f"{what} needs at least {LEAST_NETWORKS} networks, got {n_points}; measure more"
        )
    if not (xs.min() > 0 and ys.min() > 0 and np.isfinite(xs).all() and np.isfinite(ys).all()):
        raise InvalidInputError(f"{what}: predicted and measured latencies must be positive")
    if xs.std() < _LEAST_RELATIVE_SPREAD * xs.mean():
        raise InvalidInputError(
            f"{what}: all networks are of one size; measure networks of different latency"
        )
    line, weights = ys, np.ones(n_points)
    for _ in range(_PASSES):
        rows = np.stack([np.ones(n_points), xs], axis=1) / line[:, None]
        # Columns brought to one scale: x may be milliseconds or MACs.
        scale = np.array([line.mean(), (line / xs).mean()])
        design = rows * scale
        normal = np.linalg.inv(design.T @ (weights[:, None] * design))
        intercept, slope = scale * (normal @ (design.T @ (weights * ys / line)))
        before, line = line, intercept + slope * xs
        if slope <= 0 or line.min() <= 0:
            raise InvalidInputError(
                f"{what}: measured latency does not grow with the predicted one; "
                "these measurements do not belong together"
            )
        residuals = (ys - line) / line
        if np.abs(line / before - 1).max() < _SETTLED:
            break
        weights = huber_weights(residuals)
    leverage = weights * np.einsum("ij,jk,ik->i", design, normal, design)
    variance = float(np.mean(residuals**2 / np.maximum(1 - leverage, 1e-6)))
    covariance = variance * normal * np.outer(scale, scale)
    return AffineFit(
        float(intercept),
        float(slope),
        (
            (float(covariance[0, 0]), float(covariance[0, 1])),
            (float(covariance[1, 0]), float(covariance[1, 1])),
        ),
        math.sqrt(variance),
        n_points,
    )


@dataclass(frozen=True)
class Calibration:
    """What turns sums of table entries into latencies of whole networks.

    Attributes:
        fit: the line from sums of entries (ms) to latencies (ms).
        entry_noise: relative standard deviation that the noise of the entries alone gives to the
            calibration networks, already contained in the residual of `fit`.
        session_error: relative standard deviation of what all networks share in another session
            than that of the calibration; 0 where only this session is spoken of.
    """

    fit: AffineFit
    entry_noise: float
    session_error: float = 0.0
