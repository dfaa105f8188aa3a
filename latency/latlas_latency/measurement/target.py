"""`Target`: what a latency figure is valid for. Two targets never merge."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from latlas_ops.errors import InvalidInputError, TargetMismatchError

GRAPH_LEVELS = ("disabled", "basic", "extended", "all")
PRECISIONS = ("fp32", "fp16", "int8")
EXECUTIONS = ("eager", "compiled")


@dataclass(frozen=True)
class Target:
    """Device model × power mode × runtime × how the runtime is set up.

    Attributes:
        name: short name of the user's choosing; not part of the identity.
        device_model: what equal boards share, as the agent's probe reports it.
        runtime: name of the agent's runtime plug-in, for example `onnxruntime`.
        runtime_version: its exact version.
        provider: execution provider or delegate.
        power_mode: power mode of the board; `default` where it has only one.
        execution: `eager` or `compiled`.
        precision: precision of the computation.
        graph_level: graph-optimisation level of the runtime.
        threads: threads that one inference may use.
        cores: cores that the worker is pinned to; empty means not pinned.
        batch: batch size.
        allow_fallback: accept that the provider hands nodes to another one.
    """

    name: str
    device_model: str
    runtime: str
    runtime_version: str
    provider: str
    power_mode: str = "default"
    execution: str = "eager"
    precision: str = "fp32"
    graph_level: str = "all"
    threads: int = 1
    cores: tuple[int, ...] = ()
    batch: int = 1
    allow_fallback: bool = False

    def __post_init__(self) -> None:
        for field, value, known in (
            ("graph_level", self.graph_level, GRAPH_LEVELS),
            ("precision", self.precision, PRECISIONS),
            ("execution", self.execution, EXECUTIONS),
        ):
            if value not in known:
                raise InvalidInputError(
                    f"target {self.name!r}: {field} {value!r} is not one of {', '.join(known)}"
                )
        if not self.name or any(c.isspace() or c == "/" for c in self.name):
            raise InvalidInputError(f"target name {self.name!r} must be one word without '/'")
        if self.threads < 1 or self.batch < 1:
            raise InvalidInputError(f"target {self.name!r}: threads and batch must be at least 1")
        object.__setattr__(self, "cores", tuple(sorted(set(self.cores))))

    def conditions(self) -> dict[str, object]:
        """Every field that a figure depends on: all but the name."""
        record = dataclasses.asdict(self)
        del record["name"]
        return record

    @property
    def key(self) -> str:
        """SHA-256 over the conditions: equal for two targets that measure the same thing."""
        text = json.dumps(self.conditions(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def require_same(self, other: Target) -> None:
        """Raises `TargetMismatchError`, naming the first field that differs from `other`."""
        theirs = other.conditions()
        for field, value in self.conditions().items():
            if theirs[field] != value:
                raise TargetMismatchError(
                    f"targets {self.name!r} and {other.name!r} differ in {field}: "
                    f"{value!r} and {theirs[field]!r}"
                )

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; `from_dict` reads it back."""
        record = dataclasses.asdict(self)
        record["cores"] = list(self.cores)
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, object]) -> Target:
        """The target of `to_dict`; raises `InvalidInputError` naming a field that is off."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(record) - known)
        if unknown:
            raise InvalidInputError(f"a target has no field {unknown[0]!r}")
        values = dict(record)
        cores = values.get("cores", ())
        if not isinstance(cores, (list, tuple)):
            raise InvalidInputError(f"target field cores must be a list, not {cores!r}")
        values["cores"] = tuple(int(core) for core in cores)
        try:
            return cls(**values)  # type: ignore[arg-type]
        except TypeError as error:
            raise InvalidInputError(f"not a target: {error}") from error
