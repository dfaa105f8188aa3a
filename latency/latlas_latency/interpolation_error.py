"""How far interpolated table entries are off: from entries left out, and from whole networks.

An error has two parts. A network at a resolution that was not measured has *all* of its ops
interpolated, and what curvature or a step of the cache does to them they have in common (`shared`):
it adds up over the network and does not average out. The rest is each op's own (`scatter`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from latlas_latency.calibration import Calibration

ALL_KINDS = "all"
"""Stands for the ops of every kind together."""

ASSUMED_SHARED, ASSUMED_SCATTER = 0.04, 0.05
"""What either part is taken for where it is not known, as fractions.

From OFA-MobileNetV3 at four resolutions (onnxruntime, two graph levels; `bench/interpolation.py`):
with one or two of the resolutions interpolated from the others, 90 % of their entries are within 2
to 8 %, and the sum of these is off by up to 3.6 %."""

LEAST_LEFT_OUT = 8
"""From fewer entries left out an error is not known."""

_LEAST_AT_ONE_PLACE = 5
_P90_IN_STANDARD_DEVIATIONS = 1.645


@dataclass(frozen=True)
class LeftOut:
    """A measured entry that was predicted from the others.

    Attributes:
        axis: along which it was interpolated.
        kind: kind of the op.
        place: its rank among its siblings and their number: in a network, ops are interpolated
            together that stand at one place.
        measured_ms: its entry.
        predicted_ms: what its neighbours say.
    """

    axis: str
    kind: str
    place: tuple[int, int]
    measured_ms: float
    predicted_ms: float


@dataclass(frozen=True)
class InterpolationError:
    """How far interpolated entries of one kind of op are off along one axis. Fractions.

    Attributes:
        axis: see `interpolation.AXES`.
        kind: kind of op, or `all`.
        n_entries: measured entries that could be left out and predicted from the others.
        median: median of their absolute relative errors; NaN without any.
        p90: 90 % of those errors are at most this; NaN without any.
        scatter: standard error that an interpolated entry has of its own.
        shared: standard error that the interpolated entries of a network have in common.
        known: whether enough entries of the axis could be left out; else `scatter` is assumed, and
            `shared` too, unless whole networks told it.
    """

    axis: str
    kind: str
    n_entries: int
    median: float
    p90: float
    scatter: float
    shared: float
    known: bool

    @property
    def is_total(self) -> bool:
        """Whether it speaks of all kinds together."""
        return self.kind == ALL_KINDS

    @property
    def summary(self) -> str:
        """One line for people."""
        whose = "" if self.is_total else f" of {self.kind}"
        if not self.known:
            return (
                f"over {self.axis}{whose}: error not known, as only {self.n_entries} entries can "
                f"be left out; taken for {self.scatter:.1%} per op and {self.shared:.1%} in common"
            )
        return (
            f"over {self.axis}{whose}: median error {self.median:.1%}, 90 % within {self.p90:.1%}, "
            f"{self.shared:.1%} in common ({self.n_entries} entries predicted from the others)"
        )


@dataclass(frozen=True)
class InterpolationCheck:
    """What whole networks of resolutions that were not measured say about interpolating these.

    Attributes:
        n_networks: such networks.
        mape: mean absolute relative error of what the interpolated table says of them, a fraction.
        excess: root mean square of the error beyond what the calibration leaves anyway, as a
            fraction of the interpolated part.
    """

    n_networks: int
    mape: float
    excess: float


def check_interpolation(
    measured_ms: ArrayLike,
    predicted_ms: ArrayLike,
    interpolated_ms: ArrayLike,
    calibration: Calibration,
) -> InterpolationCheck | None:
    """Compares whole networks with what an interpolated table says of them; None without any.

    Args:
        measured_ms: latencies, of the sitting that calibrated the table, `(n,)`.
        predicted_ms: predictions, `(n,)`.
        interpolated_ms: the interpolated part of the predictions, positive, `(n,)`.
        calibration: of the table.
    """
    measured = np.asarray(measured_ms, dtype=np.float64)
    if not measured.size:
        return None
    predicted = np.asarray(predicted_ms, dtype=np.float64)
    parts = np.asarray(interpolated_ms, dtype=np.float64)
    errors = measured - predicted
    beyond = errors**2 - (calibration.fit.residual * predicted) ** 2
    excess = math.sqrt(max(0.0, float(np.mean(beyond / parts**2))))
    return InterpolationCheck(len(measured), float(np.mean(np.abs(errors) / measured)), excess)


def interpolation_errors(
    axis: str, left_out: Sequence[LeftOut], check: InterpolationCheck | None
) -> tuple[InterpolationError, ...]:
    """The errors along one axis: of all kinds together, then of each kind that could be left out.

    What is shared is the error of the sum over all entries left out at one place. Places are few,
    and one says little about the next, so that `shared` is the root mean square over places, whole
    networks where there were any, and `ASSUMED_SHARED`, which counts for one more. `scatter` is a
    robust standard deviation (90 % of the errors about what is shared are within 1.645 of it); of
    a kind with few entries at least that of all together.

    Args:
        axis: the axis.
        left_out: entries that were left out along it, in any order.
        check: what whole networks say, or None.
    """
    known = len(left_out) >= LEAST_LEFT_OUT
    common = _errors_in_common(left_out)
    told = [ASSUMED_SHARED, *(common.values() if known else ())]
    if check is not None:
        told += [check.excess] * check.n_networks
    shared = math.sqrt(sum(error**2 for error in told) / len(told))
    errors = np.array([one.predicted_ms / one.measured_ms - 1 for one in left_out])
    own = errors - np.array([common.get(one.place, 0.0) for one in left_out])
    together = _scatter(own) if known else ASSUMED_SCATTER
    found = [_summary(axis, ALL_KINDS, errors, together, shared, known)]
    for kind in sorted({one.kind for one in left_out}):
        these = np.array([one.kind == kind for one in left_out])
        scatter = together
        if known:
            scatter = _scatter(own[these])
            if these.sum() < LEAST_LEFT_OUT:
                scatter = max(scatter, together)
        found.append(_summary(axis, kind, errors[these], scatter, shared, known))
    return tuple(found)


def _errors_in_common(left_out: Sequence[LeftOut]) -> dict[tuple[int, int], float]:
    """Relative error of the sum over all entries left out at one place, by place.

    Places with few entries are passed over, unless there are no others.
    """
    places: dict[tuple[int, int], list[LeftOut]] = defaultdict(list)
    for one in left_out:
        places[one.place].append(one)
    full = {place: those for place, those in places.items() if len(those) >= _LEAST_AT_ONE_PLACE}
    return {
        place: sum(one.predicted_ms for one in those) / sum(one.measured_ms for one in those) - 1
        for place, those in (full or places).items()
    }


def _scatter(errors: np.ndarray) -> float:
    return float(np.quantile(np.abs(errors), 0.9)) / _P90_IN_STANDARD_DEVIATIONS


def _summary(
    axis: str, kind: str, errors: np.ndarray, scatter: float, shared: float, known: bool
) -> InterpolationError:
    sizes = np.abs(errors)
    return InterpolationError(
        axis=axis,
        kind=kind,
        n_entries=len(sizes),
        median=float(np.median(sizes)) if len(sizes) else math.nan,
        p90=float(np.quantile(sizes, 0.9)) if len(sizes) else math.nan,
        scatter=scatter,
        shared=shared,
        known=known,
    )
