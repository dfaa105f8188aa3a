import dataclasses

import pytest

from latlas_latency.measurement import Device, RuntimeCapability
from latlas_ops.errors import RuntimeUnavailableError

CAPABILITY = RuntimeCapability(
    runtime="onnxruntime",
    version="1.32.0",
    providers=("CPUExecutionProvider",),
    precisions=("fp32",),
    graph_levels=("basic", "all"),
    program_formats=("onnx",),
    per_node_times=True,
)
DEVICE = Device(
    device_id="b1",
    fingerprint="f00",
    device_model="simulated board",
    host_name="lab",
    operating_system="Linux 6.1",
    architecture="aarch64",
    n_cores=4,
    memory_bytes=4 << 30,
    power_mode="default",
    runtimes=(CAPABILITY,),
)


def test_a_device_that_offers_what_a_target_needs_serves_it(target):
    assert DEVICE.require_capable(target) is CAPABILITY


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("device_model", "Pi 5", "needs device_model 'Pi 5'; .* has 'simulated board'"),
        ("power_mode", "15W", "needs power_mode '15W'; .* has 'default'"),
        ("runtime", "litert", "needs runtime 'litert'; .* offers: onnxruntime"),
        ("runtime_version", "1.20.0", "needs onnxruntime 1.20.0; .* has 1.32.0"),
        ("provider", "CUDA", "needs provider 'CUDA'; .* offers: CPUExecutionProvider"),
        ("precision", "int8", "needs precision 'int8'; .* offers: fp32"),
        ("graph_level", "disabled", "needs graph_level 'disabled'; .* offers: basic, all"),
        ("cores", (0, 4), "pins core 4; .* offers cores: 0, 1, 2, 3$"),
    ],
)
def test_what_a_device_lacks_is_named(target, field, value, complaint):
    with pytest.raises(RuntimeUnavailableError, match=complaint):
        DEVICE.require_capable(dataclasses.replace(target, **{field: value}))


def test_cores_are_those_that_the_device_really_offers(target):
    """Some may be switched off, or belong to another container."""
    sparse = dataclasses.replace(DEVICE, n_cores=2, cores=(4, 6))
    assert sparse.require_capable(dataclasses.replace(target, cores=(6,))) is CAPABILITY
    with pytest.raises(RuntimeUnavailableError, match=r"pins core 1; .* offers cores: 4, 6$"):
        sparse.require_capable(dataclasses.replace(target, cores=(1,)))


def test_a_device_without_runtimes_says_so(target):
    bare = dataclasses.replace(DEVICE, runtimes=())
    with pytest.raises(RuntimeUnavailableError, match="offers: none"):
        bare.require_capable(target)
