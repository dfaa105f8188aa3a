"""Targets are completed from the only connected device that fits."""

import dataclasses

import pytest

from latlas_coordinator.handlers.targets import TargetRequest, complete_target, plain_provider
from latlas_latency.measurement import Device, RuntimeCapability, Target
from latlas_ops.errors import InvalidInputError, RuntimeUnavailableError

ORT = RuntimeCapability(
    "onnxruntime", "1.32.0", ("AzureExecutionProvider", "CPUExecutionProvider"),
    ("fp32",), ("all",), ("onnx",), True,
)  # fmt: skip
LITERT = RuntimeCapability(
    "litert", "2.3", ("xnnpack", "none"), ("fp32", "int8"), ("all",), ("tflite",), False
)
PI = Device("d1", "", "Raspberry Pi 5", "", "", "", 4, 1, "default", (ORT,))
JETSON = Device("d2", "", "Jetson", "", "", "", 6, 1, "15W", (ORT, LITERT))


def test_a_name_alone_is_enough_where_one_device_has_one_runtime():
    assert complete_target(TargetRequest("pi5"), [PI]) == Target(
        name="pi5",
        device_model="Raspberry Pi 5",
        runtime="onnxruntime",
        runtime_version="1.32.0",
        provider="CPUExecutionProvider",
    )


def test_what_is_said_is_kept():
    request = TargetRequest("j", runtime="litert", precision="int8", threads=4, cores=(2, 1))
    target = complete_target(request, [PI, JETSON])
    assert (target.device_model, target.power_mode, target.provider) == ("Jetson", "15W", "xnnpack")
    assert (target.precision, target.threads, target.cores) == ("int8", 4, (1, 2))


def test_two_boards_of_one_model_are_one_target():
    twin = dataclasses.replace(PI, device_id="d9")
    assert complete_target(TargetRequest("pi5"), [PI, twin]).device_model == "Raspberry Pi 5"


def test_several_that_fit_are_named_instead_of_guessed():
    request = TargetRequest("x", runtime="onnxruntime")
    with pytest.raises(InvalidInputError, match="device_model may be 'Raspberry Pi 5' or 'J"):
        complete_target(request, [PI, JETSON])
    with pytest.raises(InvalidInputError, match=r"runtime may be 'onnxruntime' or 'litert'"):
        complete_target(TargetRequest("x", device_model="Jetson"), [PI, JETSON])


def test_a_runtime_that_no_device_has_lists_what_is_offered():
    with pytest.raises(RuntimeUnavailableError, match=r"needs runtime 'tvm'.* offers: onnxruntime"):
        complete_target(TargetRequest("x", runtime="tvm"), [PI])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device_model", "Coral"),
        ("power_mode", "MAXN"),
        ("runtime_version", "1.17"),
        ("provider", "CUDAExecutionProvider"),
        ("precision", "fp16"),
        ("graph_level", "basic"),
        ("cores", (7,)),
    ],
)
def test_what_the_device_does_not_have_is_named(field, value):
    request = dataclasses.replace(TargetRequest("x"), **{field: value})
    expected = value[0] if isinstance(value, tuple) else value
    with pytest.raises(RuntimeUnavailableError, match=str(expected)):
        complete_target(request, [PI])


def test_without_a_device_nothing_can_be_said():
    with pytest.raises(RuntimeUnavailableError, match="no device is connected: start latlas-agent"):
        complete_target(TargetRequest("x"), [])


def test_a_malformed_field_is_named():
    with pytest.raises(InvalidInputError, match="graph_level 'most' is not one of"):
        complete_target(TargetRequest("x", graph_level="most"), [PI])


def test_a_provider_other_than_the_plain_one_is_never_chosen_unasked():
    assert plain_provider(ORT) == "CPUExecutionProvider"
    assert plain_provider(LITERT) == "xnnpack"
