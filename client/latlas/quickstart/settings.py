"""How much of everything a quickstart does."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latlas._version import __version__
from latlas.files import read_file, write_atomically
from latlas_ops.errors import ConflictError
from latlas_ops.spaces import get_space


@dataclass(frozen=True)
class QuickstartSettings:
    """Amounts of work.

    Attributes:
        space: search space that is profiled and searched.
        n_training_networks, n_calibration_networks, n_validation_networks: whole networks that
            the predictors learn from, that calibrate the table, and that judge all models.
        min_occurrences: cover networks in which every distinct op occurs at least.
        n_rounds: visits per network and mode, each in another round.
        min_duration_ns: least time of the timed inferences of one visit.
        level: coverage of the intervals.
        train_copies, validation_copies, test_copies: distorted versions per original image of
            each split.
        short_training: train for a few steps only.
        n_labelled_subnets: subnets whose accuracy is measured for the accuracy predictor.
        budget_quantiles: the latency budgets, as quantiles of the validation networks' latency.
        population, generations: sizes of every evolutionary search.
        n_cloud_subnets: random subnets shown beside the Pareto fronts.
        n_verification_rounds: visits of every found network, each in another round.
        max_drift: a sitting in which the device runs slower or faster by a larger fraction than
            while profiling is measured again.
        max_sittings: sittings to try before the steadiest is taken as it is.
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
    train_copies: int = 6
    validation_copies: int = 2
    test_copies: int = 6
    short_training: bool = False
    n_labelled_subnets: int = 75
    budget_quantiles: tuple[float, ...] = (0.25, 0.5, 0.75)
    population: int = 200
    generations: int = 30
    n_cloud_subnets: int = 1000
    n_verification_rounds: int = 8
    max_drift: float = 0.02
    max_sittings: int = 3
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the version of the space."""
        record = json.loads(json.dumps(dataclasses.asdict(self)))
        return {**record, "space_version": get_space(self.space).version}


QUICK = QuickstartSettings(
    n_training_networks=40,
    n_calibration_networks=6,
    n_validation_networks=12,
    min_occurrences=1,
    n_rounds=2,
    min_duration_ns=5_000_000,
    train_copies=2,
    validation_copies=1,
    test_copies=1,
    short_training=True,
    n_labelled_subnets=26,
    population=40,
    generations=4,
    n_cloud_subnets=100,
    n_verification_rounds=2,
    max_sittings=1,
)
"""A run that goes through every step as fast as it can; its figures mean little."""


def claim_folder(folder: Path, settings: QuickstartSettings, core: int) -> int:
    """Writes the settings into a fresh folder, or makes sure that it was begun with these.

    Args:
        folder: the folder of one quickstart.
        settings: those wanted.
        core: the core to measure on, if the folder is fresh.

    Returns:
        The core that the folder was begun with: figures of another are not comparable.

    Raises:
        ConflictError: it was begun with other settings, whose results would be mixed with these.
    """
    path = folder / "settings.json"
    wanted = {"latlas_version": __version__, **settings.to_dict()}
    if not path.exists():
        if (folder / "fleet").exists():
            raise begun_otherwise(folder, "by another version of Latlas")
        record = {**wanted, "core": core}
        write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
        return core
    try:
        there = json.loads(read_file(path))
        begun_on = int(there.pop("core"))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise begun_otherwise(folder, "by something that left a broken settings.json") from None
    for name in {**wanted, **there}:
        if there.get(name) != wanted.get(name):
            how = f"with other settings ({name} {there.get(name)}, not {wanted.get(name)})"
            raise begun_otherwise(folder, how)
    return begun_on


def begun_otherwise(folder: Path, how: str) -> ConflictError:
    """The error of a folder whose content does not go together with what is wanted now."""
    return ConflictError(
        f"{folder} was begun {how}; repeat the command it was begun with, or give another --folder"
    )
