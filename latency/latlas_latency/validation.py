"""`Validation`: the errors of a latency model on networks that it was not made from."""

from __future__ import annotations

import math
from dataclasses import dataclass

BEFORE_SESSION = "as calibrated earlier"
"""Name of the part that is the table before it was calibrated by the session's own networks."""


@dataclass(frozen=True)
class Errors:
    """Errors of predicted latencies. Fractions; NaN where a figure cannot be had.

    Attributes:
        n_networks: networks compared.
        mape: mean absolute relative error.
        max_error: largest absolute relative error.
        spearman: rank correlation of predicted and measured latency; NaN for constant values.
        r2: coefficient of determination in milliseconds.
        share_within_5_percent: share of networks with an error of at most 5 %.
        share_within_10_percent: share of networks with an error of at most 10 %.
        pair_order: share of pairs of networks with equal multiply-accumulates that are put in the
            right order; see `statistics.pair_order`. NaN without such a pair.
        n_pairs: how many such pairs there are.
    """

    n_networks: int
    mape: float
    max_error: float
    spearman: float
    r2: float
    share_within_5_percent: float
    share_within_10_percent: float
    pair_order: float
    n_pairs: int


@dataclass(frozen=True)
class NamedErrors(Errors):
    """Errors of something that has a name: a part of the networks, or another model."""

    name: str


@dataclass(frozen=True)
class Validation(Errors):
    """Error of a latency model on unseen networks, beside the noise of the labels.

    Attributes:
        interval_coverage: share of measured latencies inside the predicted interval.
        interval_level: the coverage that the interval promised.
        label_noise: half the rounds of these networks against the other half.
        common_mode_free_noise: the same without what all networks share in a round.
        measured_ns: Unix time at which the last visit began.
        session_scale: latency in this session over what the table had said before it was
            calibrated by the session's own networks; NaN where it was not.
        parts: the same model on parts of the networks; `BEFORE_SESSION` is the table as it was
            before that calibration, on all of them.
        baselines: other models on all of the networks.
    """

    interval_coverage: float
    interval_level: float
    label_noise: float
    common_mode_free_noise: float
    measured_ns: int = 0
    session_scale: float = math.nan
    parts: tuple[NamedErrors, ...] = ()
    baselines: tuple[NamedErrors, ...] = ()

    @property
    def summary(self) -> str:
        """One line for people: the error beside the noise of the labels."""
        noise = f"label noise {self.label_noise:.1%}"
        if math.isnan(self.label_noise):
            noise = "label noise unknown: one round"
        text = (
            f"mean absolute error {self.mape:.1%}, greatest {self.max_error:.1%} ({noise}) on "
            f"{self.n_networks} networks that it was not made from"
        )
        for part in self.parts:
            if part.name == BEFORE_SESSION:
                text += f", calibrated by networks of that session; {part.mape:.1%} as it stands"
        return text
