"""What a measurement is: devices, targets, visits and their statistics. Light: numpy only."""

from latlas_latency.measurement.device import Device, RuntimeCapability
from latlas_latency.measurement.flags import (
    Flag,
    FlagThresholds,
    UsualClocks,
    VisitSelection,
    kept_visits,
    visit_flags,
)
from latlas_latency.measurement.outputs import Computed, OutputDigest, digests, output_error
from latlas_latency.measurement.precision_rules import require_computed
from latlas_latency.measurement.target import Target
from latlas_latency.measurement.visit import (
    MODES,
    PLAIN,
    PROFILED,
    WHOLE_NETWORK,
    Conditions,
    InputShapes,
    Opening,
    Series,
    Visit,
    input_shapes,
)

__all__ = [
    "MODES",
    "PLAIN",
    "PROFILED",
    "WHOLE_NETWORK",
    "Computed",
    "Conditions",
    "Device",
    "Flag",
    "FlagThresholds",
    "InputShapes",
    "Opening",
    "OutputDigest",
    "RuntimeCapability",
    "Series",
    "Target",
    "UsualClocks",
    "Visit",
    "VisitSelection",
    "digests",
    "input_shapes",
    "kept_visits",
    "output_error",
    "require_computed",
    "visit_flags",
]
