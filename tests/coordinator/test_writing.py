"""Programs are written in the format that the target's runtime loads."""

import dataclasses

import numpy as np
import pytest

from latlas_coordinator.chaining import chain_programs
from latlas_coordinator.domain import MeasuredProgram, MeasurePlan, ProfilePlan, Role, Sampling
from latlas_coordinator.handlers import campaigns
from latlas_coordinator.handlers.campaigns import (
    CampaignDefinition,
    keep_program,
    start_campaign,
)
from latlas_coordinator.storage import open_store
from latlas_coordinator.writing import choose_format, write_program
from latlas_latency.measurement import RuntimeCapability, Target
from latlas_ops import get_space
from latlas_ops.errors import RuntimeUnavailableError

SPACE = get_space("digits")
LITERT = RuntimeCapability(
    "litert", "2.3.0", ("xnnpack", "builtin"), ("fp32",), ("all",), ("tflite",), False
)


def target(runtime):
    return Target("t", "bench", runtime, "1", "p")


def loading(*formats):
    return RuntimeCapability("r", "1", ("p",), ("fp32",), ("all",), formats, False)


def some_network():
    (arch,) = SPACE.archs(SPACE.sample(1, np.random.default_rng(1)))
    return SPACE.network(arch)


@pytest.mark.parametrize(
    ("capabilities", "program_format"),
    [
        ([loading("onnx")], "onnx"),
        ([loading("tflite")], "tflite"),
        ([loading("word", "tflite")], "tflite"),
        ([loading("onnx", "tflite"), loading("tflite")], "tflite"),
    ],
)
def test_devices_say_what_they_load(capabilities, program_format):
    assert choose_format(target("any"), capabilities) == program_format


@pytest.mark.parametrize(
    ("runtime", "program_format"),
    [
        ("onnxruntime", "onnx"),
        ("litert", "tflite"),
        ("tflite-runtime", "tflite"),
        ("somebody-elses", "onnx"),
    ],
)
def test_without_a_device_the_runtime_decides(runtime, program_format):
    assert choose_format(target(runtime), []) == program_format


def test_a_runtime_that_loads_nothing_that_is_written_is_refused():
    with pytest.raises(RuntimeUnavailableError, match="loads word, Latlas writes onnx or tflite"):
        choose_format(target("words"), [loading("word")])


def test_the_formats_hold_the_same_network():
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    network = some_network()
    onnx, tflite = (write_program(network, name, 1) for name in ("onnx", "tflite"))
    assert tflite.model_bytes[4:8] == b"TFL3"
    assert write_program(network, "tflite", 1).model_bytes == tflite.model_bytes
    assert set(tflite.tensor_positions.values()) <= set(onnx.tensor_positions.values())


@pytest.fixture
def store(imagined):
    """A store whose only device runs LiteRT alone, as the target `bench-ort`."""
    opened = open_store(":memory:")
    device = dataclasses.replace(imagined.device, runtimes=(LITERT,))
    opened.attach_agent(imagined.agent, [device], 0)
    opened.add_target(
        dataclasses.replace(
            imagined.target, runtime="litert", runtime_version="2.3.0", provider="xnnpack"
        )
    )
    yield opened
    opened.close()


def test_a_profile_of_litert_is_chains_of_tflite_models(store, monkeypatch):
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    monkeypatch.setattr(campaigns, "chain_programs", lambda *given: chain_programs(*given)[:3])
    plan = ProfilePlan("digits", 0, 2, 2, min_occurrences=1, seed=0, method="")
    start_campaign(store, CampaignDefinition("c", "bench-ort", plan, Sampling(1)), 0)
    tasks = [progress.task for progress in store.list_tasks("c")]
    assert Role.CHAIN in {task.role for task in tasks}
    programs = store.get_programs({task.program_sha256 for task in tasks})
    assert {record.format for record in programs.values()} == {"tflite"}
    assert all(record.network is not None for record in programs.values())


def test_an_uploaded_program_is_measured_by_a_runtime_that_loads_it(store):
    def start(name, program_format, data):
        sha256 = keep_program(store, program_format, data)
        plan = MeasurePlan((MeasuredProgram(sha256, "model"),))
        return start_campaign(store, CampaignDefinition(name, "bench-ort", plan, Sampling(1)), 0)

    assert start("fits", "tflite", b"never parsed").campaign.name == "fits"
    with pytest.raises(RuntimeUnavailableError, match="it is onnx, litert loads tflite"):
        start("other", "onnx", b"never parsed either")
