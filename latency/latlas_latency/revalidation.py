"""Whether a lookup table still holds: asked after an upgrade of the runtime or a change of the
device, answered from a few networks measured anew.

Per network the measured latency is compared with the predicted one. What the networks have in
common is one factor and, as between any two sessions small and large networks drift apart, a
constant (see `session`); what remains is how the costs of the ops have moved against each other.

1. *Does one factor do?* The scatter of the networks about factor and constant is held against what
   the table's intervals and the noise of the labels explain, and the constant against what sessions
   on an unchanged device differ by. More than that means `rebuild`.
2. *Is the factor 1?* It is held against what the calibration's own uncertainty, the scatter and
   the drift between two sessions on one device explain. More than that means `rescale`. Where
   something is known to have changed, nothing is put down to drift: rescaling then costs nothing,
   and a change that hides behind a noisy device would.

Otherwise the table is `valid`. Every test passes an unchanged device with probability `LEVEL`, so
that little more than one in a hundred is called changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from latlas_latency.calibration import SESSION_DRIFT
from latlas_latency.measurement.statistics import huber_weights, mape, student_t_quantile
from latlas_latency.model import Prediction
from latlas_latency.observations import (
    Observation,
    measure_drift,
    require_profiled,
    round_matrix,
    telling_common_mode,
)
from latlas_latency.session import CONSTANT_SHARE, LABEL_NOISE, centred, within_session
from latlas_latency.table import NOISY_SITTING, LookupTable
from latlas_ops.errors import InvalidInputError
from latlas_ops.network import Network

Verdict = Literal["valid", "rescale", "rebuild"]

LEAST_NETWORKS = 5
"""From fewer networks a factor and a scatter cannot be told apart."""

LEVEL = 0.995
"""Probability with which an unchanged device passes each of the three tests."""

_TYPICAL_RESIDUAL = 0.01
"""Relative error of calibrated tables beside the noise of the labels: about 1 % so far."""

_PRIOR_NETWORKS = 10
"""Degrees of freedom that the typical residual counts for beside a calibration's own: the residual
of eight networks alone may be off by half."""

_OUTLIERS = 0.1
"""Share of networks, rounded down, whose scatter is not looked at: a burst spoils a label."""

_LEAST_SHRUNK = 0.25
"""Share of its usual spread that a constant may have however little the networks tell of it."""

_PASSES = 10
_N_DRAWS = 4_000


@dataclass(frozen=True)
class Revalidation:
    """What became of a table's figures. Errors are fractions.

    Attributes:
        verdict: `valid`; `rescale`: one factor mends the table, see `rescaled`; `rebuild`: none
            does.
        scale: measured over predicted latency of a middling network, what all have in common.
        scale_error: relative standard error of `scale`.
        constant_share: what every network takes longer beside that, as a share of a middling one.
        error_as_is: mean absolute relative error of the table's predictions.
        error_rescaled: the same after one common factor, for each network that of the others.
        scatter: relative standard deviation of the networks about scale and constant, outliers
            left out.
        expected_scatter: what intervals and label noise explain of it on average.
        noise: of the labels: half the rounds against the other half, as `Drift` has it.
        n_networks: networks compared.
        reason: why, in a line for people.
    """

    verdict: Verdict
    scale: float
    scale_error: float
    constant_share: float
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
        changed: what is known to have changed: names of target fields, say.
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
    noise = drift.noise
    if math.isnan(noise) and any(seen.n_left_out for seen in observations):
        noise = NOISY_SITTING  # one quiet round is left, and nothing to hold it against
    if math.isnan(noise):
        raise InvalidInputError("revalidation needs at least two rounds, to know the labels' noise")
    common = telling_common_mode(round_matrix(observations)[0])
    rounds = np.log(common.factors[common.telling])
    wander = math.sqrt(2 / len(rounds)) * float(np.std(rounds, ddof=1)) if len(rounds) > 1 else 0.0
    measured_ms = np.array([drift.latency_ns(observation) for observation in observations]) / 1e6
    within = within_session(table)
    networks = [observation.network for observation in observations]
    prediction = within.predict(networks)
    return judge(
        measured_ms,
        prediction.mean_ms,
        _expectation(table, networks, prediction, noise),
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
    spreads = np.hypot(expectation.residual, expectation.others)
    expected = float(np.sqrt(np.mean(spreads**2)))
    design = centred(predicted_ms)[0]
    line = _fit_line(logs, design, spreads)
    log_scale, constant_share = line.parameters.tolist()
    without = [
        _fit_line(*(np.delete(part, one, axis=0) for part in (logs, design, spreads)))
        for one in range(n_networks)
    ]
    others = np.array([fit.parameters[0] for fit in without])
    unit, most = _scatter_bound(design, spreads, expectation.degrees_of_freedom, level)
    deviations = (logs - design @ line.parameters) / spreads
    scatter = float(_kept_rms(deviations)) / unit * expected
    most_scatter = most * expected
    scale_error, share_error = (line.errors * max(1.0, scatter / expected)).tolist()
    unchanged = math.hypot(
        0.0 if changed else session_drift,
        scale_error,
        float(np.sqrt(np.mean(expectation.others**2))),
    )
    quantile = NormalDist().inv_cdf((1 + level) / 2)
    most_shift = quantile * unchanged
    # An estimate that is drawn towards 0 varies less than what it estimates.
    shrunk = math.sqrt(
        max(CONSTANT_SHARE**2 - share_error**2, (_LEAST_SHRUNK * CONSTANT_SHARE) ** 2)
    )
    most_share = quantile * shrunk
    verdict: Verdict = "valid" if calibrated and abs(log_scale) <= most_shift else "rescale"
    if scatter > most_scatter or abs(constant_share) > most_share:
        verdict = "rebuild"
    found = Revalidation(
        verdict=verdict,
        scale=math.exp(log_scale),
        scale_error=scale_error,
        constant_share=constant_share,
        error_as_is=mape(measured_ms, predicted_ms),
        error_rescaled=mape(measured_ms, predicted_ms * np.exp(others)),
        scatter=scatter,
        expected_scatter=expected,
        noise=noise,
        n_networks=n_networks,
        reason="",
    )
    bounds = _Bounds(most_scatter, most_share, math.expm1(most_shift))
    return replace(found, reason=_reason(found, bounds, calibrated, changed))


def _expectation(
    table: LookupTable, networks: Sequence[Network], prediction: Prediction, noise: float
) -> Expectation:
    """What a table says of its error in a prediction, about labels with this much noise.

    The residual of a few calibration networks is drawn towards the typical one. It holds the noise
    that the labels had then; where that is not known, it is taken to be what it is now.
    """
    then = noise
    if table.conditions is not None and not math.isnan(table.conditions.noise):
        then = table.conditions.noise
    now, then = LABEL_NOISE * noise, LABEL_NOISE * then
    if table.calibration is None:
        residual, own, others = 0.0, 0, table.entry_noise(networks)
    else:
        fit = table.calibration.fit
        residual, own = fit.residual, fit.n_networks - 2
        quantile = student_t_quantile((1 + prediction.level) / 2, own)
        spreads = (prediction.mean_ms - prediction.lower_ms) / prediction.mean_ms / quantile
        others = np.sqrt(np.maximum(spreads**2 - residual**2, 0))
    degrees = own + _PRIOR_NETWORKS
    typical = _TYPICAL_RESIDUAL**2 + then**2
    variance = (own * residual**2 + _PRIOR_NETWORKS * typical) / degrees
    return Expectation(math.sqrt(variance + max(now**2 - then**2, 0)), degrees, others)


@dataclass(frozen=True, eq=False)
class _Line:
    """Log of the scale and share of the constant, `(2,)`, and their standard errors."""

    parameters: NDArray[np.float64]
    errors: NDArray[np.float64]


def _fit_line(
    logs: NDArray[np.float64], design: NDArray[np.float64], spreads: NDArray[np.float64]
) -> _Line:
    """Weighted least squares; outliers lose weight, the constant is believed as far as seen."""
    trust = np.ones(len(logs))
    for _ in range(_PASSES):
        normal = _normal_inverse(design, trust / spreads**2)
        parameters = normal @ (design.T @ (trust / spreads**2 * logs))
        trust = huber_weights((logs - design @ parameters) / spreads)
    return _Line(parameters, np.sqrt(np.diag(normal)))


def _normal_inverse(
    design: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    belief = np.diag([0.0, 1 / CONSTANT_SHARE**2])
    return np.asarray(np.linalg.inv(design.T @ (weights[:, None] * design) + belief))


def _kept_rms(deviations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Root mean square along the last axis without the largest `_OUTLIERS`."""
    n_networks = deviations.shape[-1]
    kept = np.sort(np.abs(deviations), axis=-1)[..., : n_networks - int(_OUTLIERS * n_networks)]
    return np.asarray(np.sqrt(np.mean(kept**2, axis=-1)))


def _scatter_bound(
    design: NDArray[np.float64], spreads: NDArray[np.float64], degrees_of_freedom: int, level: float
) -> tuple[float, float]:
    """What `_kept_rms` of normal deviations from their fitted line is, and what it may be.

    By simulation, always with the same draws.

    Returns:
        Its root mean square, in units of `spreads`; and, as a multiple of that, the bound that it
        keeps with probability `level` where the standard deviation itself is an estimate with so
        many degrees of freedom.
    """
    rng = np.random.default_rng(0)
    constants = rng.normal(0, CONSTANT_SHARE, (_N_DRAWS, 1))
    draws = rng.standard_normal((_N_DRAWS, len(spreads))) + constants * design[:, 1] / spreads
    scaled = design / spreads[:, None]
    hat = scaled @ _normal_inverse(design, 1 / spreads**2) @ scaled.T
    found = _kept_rms(draws - draws @ hat)
    unit = float(np.sqrt(np.mean(found**2)))
    known = np.sqrt(rng.chisquare(degrees_of_freedom, _N_DRAWS) / degrees_of_freedom)
    return unit, float(np.quantile(found / unit / known, level))


def _require_one_target(observations: Sequence[Observation]) -> None:
    targets = [seen.target for seen in observations if seen.target is not None]
    for target in targets[1:]:
        targets[0].require_same(target)


@dataclass(frozen=True)
class _Bounds:
    """What an unchanged device may reach in each test."""

    scatter: float
    constant_share: float
    shift: float


def _reason(found: Revalidation, bounds: _Bounds, calibrated: bool, changed: Sequence[str]) -> str:
    shift = found.scale - 1
    slower = f"{abs(shift):.1%} {'longer' if shift > 0 else 'shorter'} than predicted"
    within = f"{found.scatter:.1%}, no more than table and noise explain ({bounds.scatter:.1%})"
    if found.verdict == "rebuild" and found.scatter > bounds.scatter:
        text = (
            f"no factor mends the table: about the best, {found.scale:.3f}, {found.n_networks} "
            f"networks scatter by {found.scatter:.1%}, more than table and noise explain "
            f"({bounds.scatter:.1%})"
        )
    elif found.verdict == "rebuild":
        text = (
            f"no factor mends the table: about the best, {found.scale:.3f}, small and large "
            f"networks moved apart by {abs(found.constant_share):.1%} of a middling latency, more "
            f"than sessions on an unchanged device differ by ({bounds.constant_share:.1%})"
        )
    elif found.verdict == "rescale":
        text = (
            f"{found.n_networks} networks take {slower}, and the factor {found.scale:.3f} mends "
            f"it: they scatter about it by {within}"
        )
    else:
        text = (
            f"{found.n_networks} networks take {slower}, no more than "
            f"{'their noise explains' if changed else 'sessions on an unchanged device differ by'} "
            f"({bounds.shift:.1%}), and scatter by {within}"
        )
    if changed:
        text = f"changed: {', '.join(changed)}; {text}"
    if not calibrated:
        text += "; the table is not calibrated, so it cannot be valid as it is"
    if found.noise > NOISY_SITTING:
        text += f"; label noise is {found.noise:.1%}, so that smaller changes would not show"
    return text
