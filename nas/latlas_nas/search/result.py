"""What a search was asked and what it found, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latlas_ops.errors import InvalidInputError
from latlas_ops.space import ArchConfig

BOUNDS = ("upper", "mean")
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Constraint:
    """A hard limit on predicted latency.

    Attributes:
        max_latency_ms: the limit.
        bound: what is held against it: the `upper` end of the prediction's interval, or its `mean`.
        level: coverage of that interval.
    """

    max_latency_ms: float
    bound: str = "upper"
    level: float = 0.9

    def __post_init__(self) -> None:
        if self.bound not in BOUNDS:
            raise InvalidInputError(f"bound {self.bound!r} is not one of {', '.join(BOUNDS)}")
        if not self.max_latency_ms > 0:
            raise InvalidInputError(f"a latency budget must be positive, not {self.max_latency_ms}")
        if not 0.0 < self.level < 1.0:
            raise InvalidInputError(f"level must lie between 0 and 1, not {self.level}")

    def __str__(self) -> str:
        """For messages: the limit and what is held against it."""
        what = f"upper bound at level {self.level:g}" if self.bound == "upper" else "mean"
        return f"{self.max_latency_ms:.4g} ms ({what})"


@dataclass(frozen=True)
class Candidate:
    """An architecture with what the models say of it.

    Attributes:
        arch: the architecture.
        accuracy: predicted, in [0, 1].
        latency_ms: predicted mean.
        lower_ms: lower end of the latency's interval.
        upper_ms: upper end.
    """

    arch: ArchConfig
    accuracy: float
    latency_ms: float
    lower_ms: float
    upper_ms: float


@dataclass(frozen=True)
class SearchResult:
    """What one search found. Every candidate keeps the constraint.

    Attributes:
        method: `evolution` or `random`.
        target: name of the target whose latency was limited.
        constraint: the limit.
        top: the best candidates, most accurate first.
        front: candidates that no other beats in both mean latency and accuracy, fastest first.
        history: best accuracy after every generation (random search: after every draw).
        n_evaluated: architectures whose accuracy was asked for; all keep the constraint.
        n_predicted: architectures whose latency was asked for.
    """

    method: str
    target: str
    constraint: Constraint
    top: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    history: tuple[float, ...]
    n_evaluated: int
    n_predicted: int

    @property
    def best(self) -> Candidate:
        """The most accurate candidate."""
        return self.top[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        arch = self.best.arch
        return {
            "version": FORMAT_VERSION,
            "method": self.method,
            "target": self.target,
            "space": arch.space,
            "space_version": arch.version,
            "constraint": {
                "max_latency_ms": self.constraint.max_latency_ms,
                "bound": self.constraint.bound,
                "level": self.constraint.level,
            },
            "top": [_candidate_record(candidate) for candidate in self.top],
            "front": [_candidate_record(candidate) for candidate in self.front],
            "history": list(self.history),
            "n_evaluated": self.n_evaluated,
            "n_predicted": self.n_predicted,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> SearchResult:
        """The result of `to_dict`; raises `InvalidInputError` for anything else."""
        try:
            if record["version"] != FORMAT_VERSION:
                raise ValueError(f"version {record['version']!r}")
            space, version = str(record["space"]), int(record["space_version"])
            return cls(
                str(record["method"]),
                str(record["target"]),
                Constraint(**record["constraint"]),
                tuple(_candidate(row, space, version) for row in record["top"]),
                tuple(_candidate(row, space, version) for row in record["front"]),
                tuple(float(value) for value in record["history"]),
                int(record["n_evaluated"]),
                int(record["n_predicted"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInputError(f"not a search result: {error!r}") from error


def _candidate_record(candidate: Candidate) -> dict[str, Any]:
    return {
        "genes": list(candidate.arch.genes),
        "accuracy": candidate.accuracy,
        "latency_ms": candidate.latency_ms,
        "lower_ms": candidate.lower_ms,
        "upper_ms": candidate.upper_ms,
    }


def _candidate(record: Mapping[str, Any], space: str, version: int) -> Candidate:
    return Candidate(
        ArchConfig(space, version, tuple(int(gene) for gene in record["genes"])),
        float(record["accuracy"]),
        float(record["latency_ms"]),
        float(record["lower_ms"]),
        float(record["upper_ms"]),
    )
