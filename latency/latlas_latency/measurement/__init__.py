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
    "Conditions",
    "Device",
    "Flag",
    "FlagThresholds",
    "InputShapes",
    "Opening",
    "RuntimeCapability",
    "Series",
    "Target",
    "UsualClocks",
    "Visit",
    "VisitSelection",
    "input_shapes",
    "kept_visits",
    "visit_flags",
]
