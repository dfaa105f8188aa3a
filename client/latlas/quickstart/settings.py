"""How much of everything a quickstart does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class QuickstartSettings:
    """Amounts of work.

    Attributes:
        space: search space that is profiled.
        n_training_networks, n_calibration_networks, n_validation_networks: whole networks that
            the predictors learn from, that calibrate the table, and that judge all models.
        min_occurrences: cover networks in which every distinct op occurs at least.
        n_rounds: visits per network and mode, each in another round.
        min_duration_ns: least time of the timed inferences of one visit.
        level: coverage of the intervals.
        seed: seed of every random choice.
    """

    space: str = "digits"
    n_training_networks: int = 160
    n_calibration_networks: int = 10
    n_validation_networks: int = 40
    min_occurrences: int = 3
    n_rounds: int = 4
    min_duration_ns: int = 30_000_000
    level: float = 0.9
    seed: int = 0


QUICK = QuickstartSettings(
    n_training_networks=40,
    n_calibration_networks=6,
    n_validation_networks=12,
    min_occurrences=1,
    n_rounds=2,
    min_duration_ns=5_000_000,
)
"""A run of a minute that goes through every step; its figures mean little."""
