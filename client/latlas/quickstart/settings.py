"""How much of everything a quickstart does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class QuickstartSettings:
    """Amounts of work; the defaults end within eight minutes on two cores.

    Attributes:
        space: search space that is profiled, trained and searched.
        n_training_networks, n_calibration_networks, n_validation_networks: whole networks that
            the predictors learn from, that calibrate the table, and that judge all models.
        min_occurrences: cover networks in which every distinct op occurs at least.
        n_rounds: visits per network and mode, each in another round.
        min_duration_ns: least time of the timed inferences of one visit.
        schedule: name of the progressive-shrinking schedule.
        n_labelled, n_held_out: subnets whose accuracy is measured for the accuracy predictor,
            and how many of them are kept from its fit.
        budget_quantiles: the latency budgets, as quantiles of the measured validation networks.
        level: coverage of the interval whose upper end must stay within the budget.
        n_verify_rounds: visits of every found network.
        seed: seed of every random choice.
    """

    space: str = "digits"
    n_training_networks: int = 160
    n_calibration_networks: int = 10
    n_validation_networks: int = 40
    min_occurrences: int = 3
    n_rounds: int = 4
    min_duration_ns: int = 30_000_000
    schedule: str = "quickstart"
    n_labelled: int = 120
    n_held_out: int = 30
    budget_quantiles: tuple[float, ...] = (0.2, 0.5, 0.8)
    level: float = 0.9
    n_verify_rounds: int = 7
    seed: int = 0


QUICK = QuickstartSettings(
    n_training_networks=40,
    n_calibration_networks=6,
    n_validation_networks=12,
    min_occurrences=1,
    n_rounds=2,
    min_duration_ns=5_000_000,
    schedule="quick",
    n_labelled=16,
    n_held_out=6,
    n_verify_rounds=2,
)
"""A run of a minute or two that goes through every step; its figures mean little."""
