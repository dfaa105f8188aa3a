import dataclasses

import numpy as np
import pytest

from latlas_latency import wire
from latlas_latency.measurement import (
    PROFILED,
    WHOLE_NETWORK,
    Computed,
    Conditions,
    Device,
    Opening,
    OutputDigest,
    RuntimeCapability,
    Series,
    Visit,
)
from latlas_ops.errors import InvalidInputError
from latlas_protos.v1 import measurement_pb2 as pb

FULL = Conditions(
    clock_mhz=1800.5,
    temperature_celsius=0.0,
    throttled=False,
    load_1min=0.25,
    other_cpu_share=0.0,
    available_memory_bytes=3 << 30,
    governor="performance",
    waiting_share=0.0,
    memory_stall_share=0.125,
    power_mode="nvpmodel-2",
    online_cores=4,
    max_clock_mhz=2400.0,
    gpu_clock_mhz=1410.0,
    other_gpu_share=0.0,
    other_gpu_memory_bytes=0,
    available_gpu_memory_bytes=40 << 30,
)
VISIT = Visit(
    task_id="t1",
    device_id="b1",
    round=2,
    mode=PROFILED,
    started_ns=1_700_000_000_000_000_001,
    duration_ns=90,
    warmup_runs=3,
    series=(
        Series(WHOLE_NETWORK, np.array([30, 2**40])),
        Series("p000/abc/conv", np.array([0, 7000]), node="conv_nchwc:Conv", place="cpu"),
    ),
    conditions=FULL,
    opening=Opening(
        load_ns=2**33,
        first_run_ns=91,
        memory_bytes=0,
        computed=Computed(
            ("float32 1x3", "int64"),
            (OutputDigest((1, 2), 2.5, (1.5, -2.0)), OutputDigest((), 0.0, (), is_finite=False)),
        ),
    ),
)


def through_bytes(message):
    return type(message).FromString(message.SerializeToString())


def test_a_target_survives_the_wire(target):
    full = dataclasses.replace(target, cores=(1, 3), threads=2, batch=4, allow_fallback=True)
    assert wire.target_from_message(through_bytes(wire.target_to_message(full))) == full


def test_a_malformed_target_on_the_wire_is_refused(target):
    message = wire.target_to_message(target)
    message.precision = "fp7"
    with pytest.raises(InvalidInputError, match="precision 'fp7'"):
        wire.target_from_message(message)


def test_outputs_that_hold_what_is_no_number_are_refused():
    message = wire.visit_to_message(VISIT)
    message.opening.computed.outputs[0].values.append(float("nan"))
    with pytest.raises(InvalidInputError, match="all of them finite"):
        wire.visit_from_message(message)


def test_an_older_agent_tells_no_outputs():
    message = wire.visit_to_message(VISIT)
    message.opening.ClearField("computed")
    assert wire.visit_from_message(message).opening == Opening(2**33, 91, 0)


def test_a_visit_survives_the_wire_to_the_last_nanosecond():
    back = wire.visit_from_message(through_bytes(wire.visit_to_message(VISIT)))
    for field in dataclasses.fields(Visit):
        if field.name != "series":
            assert getattr(back, field.name) == getattr(VISIT, field.name), field.name
    for one, other in zip(back.series, VISIT.series, strict=True):
        assert (one.label, one.node, one.place) == (other.label, other.node, other.place)
        np.testing.assert_array_equal(one.samples_ns, other.samples_ns)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Conditions)])
def test_a_condition_that_the_device_does_not_say_stays_unknown(field):
    conditions = dataclasses.replace(FULL, **{field: None})
    visit = dataclasses.replace(VISIT, conditions=conditions)
    back = wire.visit_from_message(through_bytes(wire.visit_to_message(visit)))
    assert back.conditions == conditions


def test_a_visit_of_an_older_agent_is_read_and_says_less():
    fields = [field.name for field in dataclasses.fields(Conditions)]
    old = fields[fields.index("waiting_share") :]
    message = wire.visit_to_message(VISIT)
    for field in old:
        message.conditions.ClearField(field)
    back = wire.visit_from_message(through_bytes(message))
    assert back.conditions == dataclasses.replace(FULL, **dict.fromkeys(old))


@pytest.mark.parametrize("field", ["task_id", "device_id"])
def test_a_visit_must_name_its_task_and_device(field):
    message = wire.visit_to_message(VISIT)
    message.ClearField(field)
    with pytest.raises(InvalidInputError, match="must name its task and its device"):
        wire.visit_from_message(message)


def test_a_broken_series_on_the_wire_is_refused():
    message = wire.visit_to_message(VISIT)
    message.series[1].packed_samples_ns = b"123"
    with pytest.raises(InvalidInputError, match="'p000/abc/conv': 3 bytes"):
        wire.visit_from_message(message)


def test_a_device_survives_the_wire():
    device = Device(
        device_id="b1",
        fingerprint="f00",
        device_model="Pi 5",
        host_name="lab",
        operating_system="Linux 6.1",
        architecture="aarch64",
        n_cores=4,
        memory_bytes=8 << 30,
        power_mode="default",
        runtimes=(
            RuntimeCapability("onnxruntime", "1.32.0", ("A", "B"), ("fp32",), ("all",), (), True),
            RuntimeCapability("litert", "2.3", (), (), (), ("tflite",), False),
        ),
        cores=(0, 1, 4, 5),
    )
    assert wire.device_from_message(through_bytes(wire.device_to_message(device))) == device


def test_a_device_without_identity_is_refused():
    with pytest.raises(InvalidInputError, match="device_id and a device_model"):
        wire.device_from_message(pb.Device(device_model="Pi 5"))
