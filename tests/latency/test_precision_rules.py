"""Targets in a precision that their runtime does not compute in are refused with a reason."""

import dataclasses

import pytest

from latlas_latency.measurement import Device, RuntimeCapability, Target, require_computed
from latlas_ops.errors import RuntimeUnavailableError

TARGET = Target("t", "bench", "onnxruntime", "1", "CPUExecutionProvider")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"precision": "fp16"}, "it casts fp16 to fp32 .* take --precision fp32"),
        ({"precision": "int8", "graph_level": "basic"}, "take --graph-level extended or all"),
        ({"precision": "int8", "graph_level": "disabled"}, "computes in fp32 between conversions"),
        ({"precision": "int8", "provider": "CUDAExecutionProvider"}, "its CUDA provider computes"),
        ({"precision": "fp16", "runtime": "litert", "provider": "xnnpack"}, "unpacks fp16 weights"),
        ({"precision": "fp16", "runtime": "torch", "provider": "cpu"}, "or --provider cuda"),
        ({"precision": "int8", "runtime": "torch", "provider": "cuda"}, "no int8 programs for it"),
    ],
)
def test_what_is_not_computed_is_refused(fields, reason):
    target = dataclasses.replace(TARGET, **fields)
    with pytest.raises(RuntimeUnavailableError, match=reason) as raised:
        require_computed(target)
    told = str(raised.value)
    assert "\n" not in told
    assert repr(target.precision) in told
    assert target.runtime in told


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"graph_level": "basic"},
        {"precision": "int8"},
        {"precision": "int8", "graph_level": "extended"},
        {"precision": "int8", "runtime": "litert", "provider": "builtin"},
        {"precision": "int8", "runtime": "tflite-runtime", "provider": "builtin"},
        {"precision": "fp16", "runtime": "torch", "provider": "cuda"},
        {"precision": "fp16", "runtime": "somebody-elses", "provider": "npu"},
    ],
)
def test_anything_else_is_left_to_the_device(fields):
    require_computed(dataclasses.replace(TARGET, **fields))


def test_a_device_that_claims_it_is_not_believed():
    boasting = RuntimeCapability(
        "onnxruntime", "1", (TARGET.provider,), ("fp32", "fp16"), ("all",), ("onnx",), True
    )
    device = Device("d", "", "bench", "", "", "", 4, 1, "default", (boasting,))
    with pytest.raises(RuntimeUnavailableError, match="it casts fp16 to fp32"):
        device.require_capable(dataclasses.replace(TARGET, precision="fp16"))
