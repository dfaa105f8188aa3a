"""Latlas: measure operators on real devices, predict whole networks, search under a budget.

`import latlas` is light; what a name needs is imported when the name is first used.

    lab = latlas.connect("lab:7443")
    table = lab.latency_model("digits-table")
    batch = latlas.get_space("digits").sample(100, numpy.random.default_rng(0))
    print(table.predict(batch).mean_ms)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from latlas._version import __version__

if TYPE_CHECKING:
    from latlas.lab import Lab, connect
    from latlas.records import (
        CampaignStatus,
        DeviceState,
        FailedTask,
        Measurement,
        ModelInfo,
        Sampling,
        Suspicions,
        VisitSummary,
    )
    from latlas_latency.formats import load_latency_model
    from latlas_latency.measurement import Device, Target
    from latlas_latency.model import LatencyModel, OpLatencies, Prediction
    from latlas_latency.revalidation import Revalidation
    from latlas_latency.validation import Errors, NamedErrors, Validation
    from latlas_ops import (
        SPACE_NAMES,
        ArchBatch,
        ArchConfig,
        ImportedModule,
        Network,
        OpSpec,
        SearchSpace,
        Space,
        get_space,
        import_module,
        load_space,
        register_space,
    )
    from latlas_ops.errors import (
        ConflictError,
        CorruptProgramError,
        InfeasibleError,
        InvalidInputError,
        LatlasError,
        MeasurementError,
        MissingDependencyError,
        NotAdditiveError,
        NotFoundError,
        ProtocolError,
        RuntimeUnavailableError,
        SpaceMismatchError,
        StorageError,
        TargetMismatchError,
        UnknownOpError,
        UnreachableError,
        UnsupportedModuleError,
    )

_HOMES = {
    "latlas.lab": ("Lab", "connect"),
    "latlas.records": (
        "CampaignStatus",
        "DeviceState",
        "FailedTask",
        "Measurement",
        "ModelInfo",
        "Sampling",
        "Suspicions",
        "VisitSummary",
    ),
    "latlas_latency.formats": ("load_latency_model",),
    "latlas_latency.measurement": ("Device", "Target"),
    "latlas_latency.model": ("LatencyModel", "OpLatencies", "Prediction"),
    "latlas_latency.revalidation": ("Revalidation",),
    "latlas_latency.validation": ("Errors", "NamedErrors", "Validation"),
    "latlas_ops": (
        "SPACE_NAMES",
        "ArchBatch",
        "ArchConfig",
        "ImportedModule",
        "Network",
        "OpSpec",
        "SearchSpace",
        "Space",
        "get_space",
        "import_module",
        "load_space",
        "register_space",
    ),
    "latlas_ops.errors": (
        "ConflictError",
        "CorruptProgramError",
        "InfeasibleError",
        "InvalidInputError",
        "LatlasError",
        "MeasurementError",
        "MissingDependencyError",
        "NotAdditiveError",
        "NotFoundError",
        "ProtocolError",
        "RuntimeUnavailableError",
        "SpaceMismatchError",
        "StorageError",
        "TargetMismatchError",
        "UnknownOpError",
        "UnreachableError",
        "UnsupportedModuleError",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "SPACE_NAMES",
    "ArchBatch",
    "ArchConfig",
    "CampaignStatus",
    "ConflictError",
    "CorruptProgramError",
    "Device",
    "DeviceState",
    "Errors",
    "FailedTask",
    "ImportedModule",
    "InfeasibleError",
    "InvalidInputError",
    "Lab",
    "LatencyModel",
    "LatlasError",
    "Measurement",
    "MeasurementError",
    "MissingDependencyError",
    "ModelInfo",
    "NamedErrors",
    "Network",
    "NotAdditiveError",
    "NotFoundError",
    "OpLatencies",
    "OpSpec",
    "Prediction",
    "ProtocolError",
    "Revalidation",
    "RuntimeUnavailableError",
    "Sampling",
    "SearchSpace",
    "Space",
    "SpaceMismatchError",
    "StorageError",
    "Suspicions",
    "Target",
    "TargetMismatchError",
    "UnknownOpError",
    "UnreachableError",
    "UnsupportedModuleError",
    "Validation",
    "VisitSummary",
    "__version__",
    "connect",
    "get_space",
    "import_module",
    "load_latency_model",
    "load_space",
    "register_space",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'latlas' has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
