"""Conditions and devices as database columns hold them."""

import dataclasses
import json

import pytest

from latlas_coordinator.domain import Findings, Suspicion, SuspicionKind
from latlas_coordinator.storage.packing import (
    conditions_from_json,
    conditions_to_json,
    device_from_json,
    device_to_json,
    findings_from_json,
    findings_to_json,
)
from latlas_latency.measurement import Conditions, Device

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
    max_clock_mhz=2400.0,
    gpu_clock_mhz=1410.0,
    other_gpu_share=0.0,
    other_gpu_memory_bytes=0,
    available_gpu_memory_bytes=40 << 30,
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


def test_a_device_is_stored_with_its_cores_and_read_without():
    device = Device(
        device_id="b1",
        fingerprint="f00",
        device_model="Pi 5",
        host_name="lab",
        operating_system="Linux 6.1",
        architecture="aarch64",
        n_cores=2,
        memory_bytes=8 << 30,
        power_mode="default",
        runtimes=(),
        cores=(1, 3),
    )
    record = json.loads(json.dumps(device_to_json(device)))
    assert device_from_json(record) == device
    del record["cores"]  # as the first release stored it
    assert device_from_json(record) == dataclasses.replace(device, cores=())


def test_conditions_of_a_newer_version_are_passed_over():
    assert conditions_from_json({**FIRST_RELEASE, "mood": 3}) == Conditions(**FIRST_RELEASE)


@pytest.mark.parametrize(
    ("visits", "stored"),
    [
        ((), {"tasks": "", "rounds": {}}),
        ((("c/12", 3),), {"tasks": "c/12", "rounds": {"3": [""]}}),
        (
            (("c/12", 0), ("c/1", 0), ("c/130", 1)),
            {"tasks": "c/1", "rounds": {"0": ["2", ""], "1": ["30"]}},
        ),
        ((("a", 0), ("b", 0)), {"tasks": "", "rounds": {"0": ["a", "b"]}}),
    ],
    ids=["none", "one", "one begins the others", "nothing in common"],
)
def test_doubtful_visits_are_stored_as_what_their_tasks_begin_with_and_the_rest(visits, stored):
    suspicion = Suspicion(SuspicionKind.STRETCH, "b1", "slow for a while", doubtful=visits)
    findings = Findings((suspicion,), remarks=("two rounds only",))
    record = json.loads(json.dumps(findings_to_json(findings)))
    assert record["suspicions"][0]["doubtful"] == stored
    assert findings_from_json(record) == findings
