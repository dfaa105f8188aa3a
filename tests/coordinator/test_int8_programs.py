"""Programs of a target in int8 are int8, and what cannot be written is refused."""

import dataclasses

import numpy as np
import onnx
import pytest

from latlas_coordinator.domain import ProfilePlan, Role, Sampling
from latlas_coordinator.handlers.campaigns import CampaignDefinition, start_campaign
from latlas_coordinator.handlers.targets import TargetRequest, complete_target
from latlas_coordinator.storage import open_store
from latlas_coordinator.writing import write_program
from latlas_latency.measurement import RuntimeCapability
from latlas_ops import get_space
from latlas_ops.errors import RuntimeUnavailableError

SPACE = get_space("nas-bench-201")


def some_network():
    (arch,) = SPACE.archs(SPACE.sample(1, np.random.default_rng(1)))
    return SPACE.network(arch)


def types(model):
    return {node.op_type for node in onnx.load_from_string(model).graph.node}


@pytest.fixture
def store(imagined):
    """A store whose only device has int8 as well, with the target `in-int8`."""
    opened = open_store(":memory:")
    (runtime,) = imagined.device.runtimes
    device = dataclasses.replace(
        imagined.device,
        runtimes=(dataclasses.replace(runtime, precisions=("fp32", "int8")),),
    )
    opened.attach_agent(imagined.agent, [device], 0)
    opened.add_target(dataclasses.replace(imagined.target, name="in-int8", precision="int8"))
    yield opened
    opened.close()


def test_a_profile_in_int8_is_of_quantised_programs(store):
    plan = ProfilePlan(SPACE.name, 0, 2, 2, min_occurrences=1, seed=0)
    start_campaign(store, CampaignDefinition("c", "in-int8", plan, Sampling(1)), 0)
    tasks = [progress.task for progress in store.list_tasks("c")]
    assert {Role.COVER, Role.CALIBRATION, Role.VALIDATION} <= {task.role for task in tasks}
    programs = store.get_programs({task.program_sha256 for task in tasks})
    for sha256, record in programs.items():
        assert "QuantizeLinear" in types(store.read_program(sha256))
        assert set(record.tensor_positions.values()) <= set(range(len(record.network.ops)))


def test_the_precision_decides_the_bytes_and_nothing_else_does():
    network = some_network()
    floating, integer = (write_program(network, "onnx", 1, p) for p in ("fp32", "int8"))
    assert "QuantizeLinear" not in types(floating.model_bytes)
    assert "QuantizeLinear" in types(integer.model_bytes)
    assert write_program(network, "onnx", 1, "int8").model_bytes == integer.model_bytes
    # A ReLU that stands alone is merged into what comes before it, and has no tensor of its own.
    assert set(integer.tensor_positions.values()) < set(floating.tensor_positions.values())


def test_tflite_programs_are_quantised_too():
    pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed")
    floating, integer = (write_program(some_network(), "tflite", 1, p) for p in ("fp32", "int8"))
    assert len(integer.model_bytes) < len(floating.model_bytes)
    assert integer.tensor_positions == floating.tensor_positions


@pytest.mark.parametrize(
    ("program_format", "precision", "reason"),
    [
        ("opgraph", "int8", "no int8 programs in the format opgraph, only onnx and tflite"),
        ("onnx", "fp16", "no fp16 programs in the format onnx, only opgraph"),
        ("tflite", "fp16", "no fp16 programs in the format tflite, only opgraph"),
    ],
)
def test_what_is_not_written_is_refused(program_format, precision, reason):
    with pytest.raises(RuntimeUnavailableError, match=reason):
        write_program(some_network(), program_format, 1, precision)


def test_a_target_in_a_precision_that_is_not_computed_is_not_added(imagined):
    runtime = RuntimeCapability(
        "onnxruntime", "1", ("CPUExecutionProvider",), ("fp32", "int8", "fp16"),
        ("basic", "all"), ("onnx",), True,
    )  # fmt: skip
    device = dataclasses.replace(imagined.device, runtimes=(runtime,))
    assert complete_target(TargetRequest("t", precision="int8"), [device]).precision == "int8"
    for fields, reason in (
        ({"precision": "fp16"}, "casts fp16 to fp32"),
        ({"precision": "int8", "graph_level": "basic"}, "take --graph-level extended or all"),
    ):
        with pytest.raises(RuntimeUnavailableError, match=reason):
            complete_target(TargetRequest("t", **fields), [device])
