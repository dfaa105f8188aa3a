"""Conditions as a database column holds them."""

from latlas_coordinator.storage.packing import conditions_from_json, conditions_to_json
from latlas_latency.measurement import Conditions

FULL = Conditions(
    clock_mhz=2400.0,
    temperature_celsius=61.0,
    throttled=False,
    load_1min=0.5,
    other_cpu_share=0.0,
    available_memory_bytes=1 << 30,
    governor="performance",
    waiting_share=0.01,
    memory_stall_share=0.0,
    power_mode="nvpmodel-2",
    online_cores=4,
)
FIRST_RELEASE = {
    "clock_mhz": 2596.124,
    "load_1min": 1.4,
    "other_cpu_share": 0.046,
    "available_memory_bytes": 24089690112,
}


def test_all_conditions_are_stored():
    assert conditions_from_json(conditions_to_json(FULL)) == FULL


def test_conditions_that_the_first_release_stored_are_read():
    assert conditions_from_json(FIRST_RELEASE) == Conditions(**FIRST_RELEASE)


def test_conditions_of_a_newer_version_are_passed_over():
    assert conditions_from_json({**FIRST_RELEASE, "mood": 3}) == Conditions(**FIRST_RELEASE)
