"""Whether a lookup table still holds: asked after an upgrade of the runtime or a change of the
device, answered from a few networks measured anew.

Per network the measured latency is compared with the predicted one. What the networks have in
common is one factor; what remains is how the costs of the ops have moved against each other.

1. *Does one factor do?* The scatter of the networks about the factor is held against what the
   table's intervals and the noise of the labels explain. More than that means `rebuild`.
2. *Is the factor 1?* It is held against what the calibration's own uncertainty, the scatter and
   the drift between two sessions on one device explain. More than that means `rescale`.

Otherwise the table is `valid`. Both tests pass an unchanged device with probability `LEVEL`, so
that one in a hundred is called changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from latlas_latency.calibration import SESSION_DRIFT, AffineFit, Calibration
from latlas_latency.measurement.statistics import mape, robust_mean, student_t_quantile
from latlas_latency.measurement.target import Target
from latlas_latency.model import Prediction
from latlas_latency.observations import (
    Observation,
    measure_drift,
    require_profiled,
    round_matrix,
    telling_common_mode,
)
from latlas_latency.session import CONSTANT_SHARE, scaled, within_session
from latlas_latency.table import NOISY_SITTING, LookupTable
from latlas_ops.errors import InvalidInputError

Verdict = Literal["valid", "rescale", "rebuild"]

LEAST_NETWORKS = 5
"""From fewer networks a factor and a scatter cannot be told apart."""

LEVEL = 0.995
"""Probability with which an unchanged device passes each of the two tests."""

_TYPICAL_RESIDUAL = 0.01
"""Relative error of calibrated tables beside the noise of the labels: about 1 % so far."""

_PRIOR_NETWORKS = 10
"""Degrees of freedom that the typical residual counts for beside a calibration's own: the residual
of eight networks alone may be off by half."""

_OUTLIERS = 0.1
"""Share of networks, rounded down, whose scatter is not looked at: a burst spoils a label."""

_NOISE_TO_STANDARD_DEVIATION = 0.8
"""Standard deviation of a label (a median of two or three rounds) over `label_noise` (the median
difference of halves of the rounds), for normal noise: 0.74 of two rounds, 0.81 of three."""

_N_DRAWS = 20_000


@dataclass(frozen=True)
class Revalidation:
    """What became of a table's figures. Errors are fractions.

    Attributes:
        verdict: `valid`; `rescale`: one factor mends the table, see `rescaled`; `rebuild`: none
            does.
        scale: measured over predicted latency, what the networks have in common.
        scale_error: relative standard error of `scale`.
        error_as_is: mean absolute relative error of the table's predictions.
        error_rescaled: the same after one common factor, for each network that of the others.
        scatter: relative standard deviation of the networks about `scale`, outliers left out.
        expected_scatter: what intervals and label noise explain of it on average.
        noise: of the labels: half the rounds against the other half, as `Drift` has it.
        n_networks: networks compared.
        reason: why, in a line for people.
    """

    verdict: Verdict
    scale: float
    scale_error: float
    error_as_is: float
    error_rescaled: float
    scatter: float
    expected_scatter: float
    noise: float
    n_networks: int
    reason: str


@dataclass(frozen=True, eq=False)
class Expectation:
    """Relative errors that a table admits to.

    Attributes:
        residual: standard deviation of a label about the calibration's line.
        degrees_of_freedom: how well the residual is known.
        others: standard deviation, per network `(n,)`, from the line's own uncertainty and from
            entries that are noisier than those of the calibration networks.
    """

    residual: float
    degrees_of_freedom: int
    others: NDArray[np.float64]


def revalidate(
    table: LookupTable,
    observations: Sequence[Observation],
    *,
    changed: Sequence[str] = (),
    session_drift: float = SESSION_DRIFT,
    level: float = LEVEL,
) -> Revalidation:
    """Judges a table by networks measured anew, on its own target or on one that replaced it.

    An uncalibrated table is never `valid`: its sums are biased to begin with.

    Args:
        table: the table.
        observations: plain visits of networks that the table was not calibrated with, best ten of
            different latency, in two rounds or more. With three, no single burst spoils a label.
        changed: what is known to have changed, for the reason: names of target fields, say.
        session_drift: relative standard deviation of what all networks share from one session
            to the next while nothing changes; what the rounds of this session drift is added.
        level: probability with which an unchanged device passes each test, in (0.5, 1).

    Raises:
        InvalidInputError: fewer than `LEAST_NETWORKS` networks, profiled visits, or one round.
        TargetMismatchError: the observations themselves are of two targets.
        UnknownOpError: a network has an op that the table does not know.
    """
    if len(observations) < LEAST_NETWORKS:
        raise InvalidInputError(
            f"revalidation needs at least {LEAST_NETWORKS} networks, got {len(observations)}; "
            "measure more"
        )
    require_profiled(observations, "revalidation", wanted=False)
    _require_one_target(observations)
    drift = measure_drift(observations)
    noise = drift.common_mode_free_noise if drift.removed else drift.label_noise
    if math.isnan(noise) and any(seen.n_left_out for seen in observations):
        noise = NOISY_SITTING  # one quiet round is left, and nothing to hold it against
    if math.isnan(noise):
        raise InvalidInputError("revalidation needs at least two rounds, to know the labels' noise")
    common = telling_common_mode(round_matrix(observations)[0])
    rounds = np.log(common.factors[common.telling])
    wander = math.sqrt(2 / len(rounds)) * float(np.std(rounds, ddof=1)) if len(rounds) > 1 else 0.0
    measured_ms = np.array([drift.latency_ns(observation) for observation in observations]) / 1e6
    within = within_session(table)
    prediction = within.predict([observation.network for observation in observations])
    return judge(
        measured_ms,
        prediction.mean_ms,
        _expectation(table, prediction, noise),
        noise=noise,
        calibrated=table.calibrated,
        changed=changed,
        # Rounds that drift leave a mean that drifts, here and when the table was measured.
        session_drift=math.hypot(session_drift, wander),
        level=level,
    )


def judge(
    measured_ms: NDArray[np.float64],
    predicted_ms: NDArray[np.float64],
    expectation: Expectation,
    *,
    noise: float,
    calibrated: bool = True,
    changed: Sequence[str] = (),
    session_drift: float = SESSION_DRIFT,
    level: float = LEVEL,
) -> Revalidation:
    """`revalidate` from bare figures.

    Args:
        measured_ms: labels, `(n,)`.
        predicted_ms: what the table predicts for them, `(n,)`.
        expectation: what the table says of its own error.
        noise: relative, of the labels; for the record and the reason.
        calibrated: whether the table is; it is never `valid` otherwise.
        changed: see `revalidate`.
        session_drift: relative standard deviation of what all networks share in a session.
        level: see `revalidate`.
    """
    logs = np.log(measured_ms / predicted_ms)
    n_networks = len(logs)
    log_scale = robust_mean(logs)
    others = np.array([robust_mean(np.delete(logs, index)) for index in range(n_networks)])
    spreads = np.hypot(expectation.residual, expectation.others)
    expected = float(np.sqrt(np.mean(spreads**2)))
    unit, most = _scatter_bound(n_networks, expectation.degrees_of_freedom, level)
    scatter = float(_kept_rms((logs - np.median(logs)) / spreads)) / unit * expected
    most_scatter = most * expected
    scale_error = float(np.maximum(expected, scatter)) / math.sqrt(n_networks)
    unchanged = math.hypot(
        session_drift, scale_error, float(np.sqrt(np.mean(expectation.others**2)))
    )
    most_shift = NormalDist().inv_cdf((1 + level) / 2) * unchanged
    verdict: Verdict = "valid" if calibrated and abs(log_scale) <= most_shift else "rescale"
    if scatter > most_scatter:
        verdict = "rebuild"
    scale = math.exp(log_scale)
    found = Revalidation(
        verdict=verdict,
        scale=scale,
        scale_error=scale_error,
        error_as_is=mape(measured_ms, predicted_ms),
        error_rescaled=mape(measured_ms, predicted_ms * np.exp(others)),
        scatter=scatter,
        expected_scatter=expected,
        noise=noise,
        n_networks=n_networks,
        reason="",
    )
    return replace(
        found, reason=_reason(found, most_scatter, math.expm1(most_shift), calibrated, changed)
    )


def carried_over(table: LookupTable, revalidation: Revalidation, target: Target) -> LookupTable:
    """The table for the target that its revalidation was measured on; what is valid stays as it is.

    What the table's last validation said is gone.

    Raises:
        InvalidInputError: the verdict is `rebuild`.
    """
    if revalidation.verdict == "valid":
        return replace(table, target=target, validation=None)
    return rescaled(table, revalidation, target)


def rescaled(
    table: LookupTable, revalidation: Revalidation, target: Target | None = None
) -> LookupTable:
    """The table with its calibration multiplied by the factor that mends it.

    The intervals widen by what is not known of the factor. An uncalibrated table is calibrated by
    the factor alone. What the table's last validation said is gone.

    Args:
        table: the table that was judged.
        revalidation: the judgement, `rescale`.
        target: what the networks were measured on, where that replaces the table's own target.

    Raises:
        InvalidInputError: the verdict is another.
    """
    if revalidation.verdict != "rescale":
        raise InvalidInputError(
            f"the table of target {table.target.name!r} is not to be rescaled, the verdict is "
            f"{revalidation.verdict!r}: {revalidation.reason}"
        )
    scale, error = revalidation.scale, revalidation.scale_error
    if table.calibration is None:
        variance = (scale * error) ** 2
        residual = max(revalidation.scatter, revalidation.expected_scatter)
        n_networks = revalidation.n_networks
        fit = AffineFit(0.0, scale, ((0.0, 0.0), (0.0, variance)), residual, n_networks)
        calibration = Calibration(fit, 0.0)
    else:
        old = table.calibration.fit
        fit = replace(scaled(old, scale, error), residual=max(old.residual, revalidation.scatter))
        calibration = replace(table.calibration, fit=fit)
    return replace(table, target=target or table.target, calibration=calibration, validation=None)


def _expectation(table: LookupTable, prediction: Prediction, noise: float) -> Expectation:
    """What a table says of its error in a prediction, about labels with this much noise.

    The residual of a few calibration networks is drawn towards the typical one. It holds the noise
    that the labels had then; where that is not known, it is taken to be what it is now.
    """
    then = noise
    if table.conditions is not None and not math.isnan(table.conditions.common_mode_free_noise):
        then = table.conditions.common_mode_free_noise
    now, then = _NOISE_TO_STANDARD_DEVIATION * noise, _NOISE_TO_STANDARD_DEVIATION * then
    if table.calibration is None:
        # The lower end is the sum less the noise of its entries.
        quantile, residual, own = NormalDist().inv_cdf((1 + prediction.level) / 2), 0.0, 0
    else:
        fit = table.calibration.fit
        residual, own = fit.residual, fit.n_networks - 2
        quantile = student_t_quantile((1 + prediction.level) / 2, own)
    spreads = (prediction.mean_ms - prediction.lower_ms) / prediction.mean_ms / quantile
    others = np.sqrt(np.maximum(spreads**2 - residual**2, 0))
    # Between two sessions small and large networks drift apart.
    tilt = np.average(prediction.mean_ms, weights=1 / prediction.mean_ms) / prediction.mean_ms - 1
    others = np.hypot(others, CONSTANT_SHARE * tilt)
    degrees = own + _PRIOR_NETWORKS
    typical = _TYPICAL_RESIDUAL**2 + then**2
    variance = (own * residual**2 + _PRIOR_NETWORKS * typical) / degrees
    return Expectation(math.sqrt(variance + max(now**2 - then**2, 0)), degrees, others)


def _kept_rms(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square along the last axis without the largest `_OUTLIERS`."""
    n_networks = deviations.shape[-1]
    kept = np.sort(np.abs(deviations), axis=-1)[..., : n_networks - int(_OUTLIERS * n_networks)]
    return np.asarray(np.sqrt(np.mean(kept**2, axis=-1)))


@lru_cache
def _scatter_bound(n_networks: int, degrees_of_freedom: int, level: float) -> tuple[float, float]:
    """What `_kept_rms` of standard normal deviations from their median is, and what it may be.

    By simulation, always with the same draws.

    Returns:
        Its root mean square; and, as a multiple of that, the bound that it keeps with
        probability `level` where the standard deviation itself is an estimate with so many
        degrees of freedom.
    """
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((_N_DRAWS, n_networks))
    found = _kept_rms(draws - np.median(draws, axis=1, keepdims=True))
    unit = float(np.sqrt(np.mean(found**2)))
    known = np.sqrt(rng.chisquare(degrees_of_freedom, _N_DRAWS) / degrees_of_freedom)
    return unit, float(np.quantile(found / unit / known, level))


def _require_one_target(observations: Sequence[Observation]) -> None:
    targets = [seen.target for seen in observations if seen.target is not None]
    for target in targets[1:]:
        targets[0].require_same(target)


def _reason(
    found: Revalidation,
    most_scatter: float,
    most_shift: float,
    calibrated: bool,
    changed: Sequence[str],
) -> str:
    shift = found.scale - 1
    slower = f"{abs(shift):.1%} {'longer' if shift > 0 else 'shorter'} than predicted"
    within = f"{found.scatter:.1%}, no more than table and noise explain ({most_scatter:.1%})"
    if found.verdict == "rebuild":
        text = (
            f"no factor mends the table: about the best, {found.scale:.3f}, {found.n_networks} "
            f"networks scatter by {found.scatter:.1%}, more than table and noise explain "
            f"({most_scatter:.1%})"
        )
    elif found.verdict == "rescale":
        text = (
            f"{found.n_networks} networks take {slower}, and the factor {found.scale:.3f} mends "
            f"it: they scatter about it by {within}"
        )
    else:
        text = (
            f"{found.n_networks} networks take {slower}, no more than sessions on an unchanged "
            f"device differ by ({most_shift:.1%}), and scatter by {within}"
        )
    if changed:
        text = f"changed: {', '.join(changed)}; {text}"
    if not calibrated:
        text += "; the table is not calibrated, so it cannot be valid as it is"
    if found.noise > NOISY_SITTING:
        text += f"; label noise is {found.noise:.1%}, so that smaller changes would not show"
    return text
