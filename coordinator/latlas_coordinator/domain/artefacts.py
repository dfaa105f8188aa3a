"""What is kept as bytes: programs and latency models, as records beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from latlas_coordinator.domain.names import check_name
from latlas_latency.measurement import Target
from latlas_latency.validation import Validation
from latlas_ops.network import Network

TABLE = "table"
"""The kind of latency model that is a lookup table."""


class ProgramOrigin(Enum):
    """Who made a program. The coordinator never parses one that was uploaded."""

    WRITTEN = "written"
    UPLOADED = "uploaded"


@dataclass(frozen=True)
class ProgramRecord:
    """A program without its bytes.

    Attributes:
        sha256: hexadecimal SHA-256 of the bytes; its name.
        format: for example `onnx`.
        n_bytes: size.
        origin: who made it.
        network_json: the network it implements, as `Network.to_json` writes it; None for
            uploads, which are never parsed.
        tensor_positions: output tensor name → position in the network; empty for uploads.
    """

    sha256: str
    format: str
    n_bytes: int
    origin: ProgramOrigin
    network_json: str | None = None
    tensor_positions: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def network(self) -> Network | None:
        """The network it implements, parsed when it is first asked for."""
        return None if self.network_json is None else Network.from_json(self.network_json)

    @property
    def subject(self) -> str:
        """Key of the network it implements, else its own hash."""
        return self.network.key if self.network is not None else f"program:{self.sha256}"


@dataclass(frozen=True)
class LatencyModelRecord:
    """A stored latency model without its bytes.

    Attributes:
        name: unique name of the user's choosing.
        kind: `table`, `mlp`, `linear` or `macs`.
        space: name of the space it was made for; empty if none.
        target: the target whose latency it predicts.
        campaign: campaign it was made from; empty if it was imported.
        created_ns: Unix time.
        n_entries: entries of a table; 0 for predictors.
        calibrated: whether whole networks have corrected its sums.
        validation: its errors; None where there were no networks to validate on.
    """

    name: str
    kind: str
    space: str
    target: Target
    campaign: str
    created_ns: int
    n_entries: int
    calibrated: bool
    validation: Validation | None = None

    def __post_init__(self) -> None:
        check_name("latency model", self.name)
