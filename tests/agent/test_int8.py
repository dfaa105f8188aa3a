"""Int8 programs in the runtimes: every node in its place, refused where figures would lie."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latlas_agent.runtimes.litert import BUILTIN, XNNPACK, LiteRt
from latlas_agent.runtimes.onnxruntime import OnnxRuntime
from latlas_agent.runtimes.tflite_precision import computations, require_computed_right
from latlas_latency.computed_precision import computed_shares
from latlas_latency.measurement import PROFILED, WHOLE_NETWORK, Series, Target, Visit
from latlas_latency.program_details import program_details
from latlas_ops import Network, OpSpec
from latlas_ops.errors import InvalidInputError, RuntimeUnavailableError
from latlas_ops.writers.calibration import drawn_inputs
from latlas_ops.writers.onnx_int8 import int8_positions, quantise_onnx
from latlas_ops.writers.onnx_writer import OnnxProgram, write_onnx
from latlas_ops.writers.tflite_int8 import quantise_tflite
from latlas_ops.writers.tflite_writer import write_tflite

Networks = Callable[..., list[Network]]
SPACES = ("digits", "nas-bench-201", "encoder-post-norm")
LITERT = Target("here", "test board", "litert", "2", BUILTIN, precision="int8")
ACTIVATION = Network.chain([OpSpec.of("activation", (4, 8, 8), activation="hswish")])
CONV = Network.chain([OpSpec.of("conv", (4, 8, 8), out_channels=8, kernel=3)])


@pytest.fixture(scope="module")
def runtime() -> OnnxRuntime:
    return OnnxRuntime()


@pytest.fixture
def int8_target(onnx_target: Target) -> Target:
    return dataclasses.replace(onnx_target, precision="int8")


@pytest.fixture
def save(tmp_path: Path) -> Callable[[bytes], Path]:
    def write_file(data: bytes) -> Path:
        path = tmp_path / "model"
        path.write_bytes(data)
        return path

    return write_file


def int8_onnx(network: Network) -> OnnxProgram:
    program = write_onnx(network)
    model = quantise_onnx(program.model_bytes, drawn_inputs(network.input_shape, 2))
    return OnnxProgram(model, int8_positions(model, program.tensor_positions))


def int8_tflite(network: Network) -> bytes:
    pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed")
    images = np.moveaxis(drawn_inputs(network.input_shape, 2), 1, -1)
    return quantise_tflite(write_tflite(network).model_bytes, images)


def profile(runtime: OnnxRuntime, path: Path, target: Target, scratch: Path) -> tuple[Series, ...]:
    session = OnnxRuntime().load_profiled(path, target, scratch)
    for _ in range(3):
        session.run()
    return session.node_series(2)


class TestOnnxruntime:
    @pytest.mark.parametrize("level", ["extended", "all"])
    @pytest.mark.parametrize("space", SPACES)
    def test_every_node_belongs_to_its_op(
        self,
        runtime: OnnxRuntime,
        networks: Networks,
        int8_target: Target,
        save: Callable[[bytes], Path],
        tmp_path: Path,
        space: str,
        level: str,
    ) -> None:
        (network,) = networks(space, 1)
        program = int8_onnx(network)
        target = dataclasses.replace(int8_target, graph_level=level)
        series = profile(runtime, save(program.model_bytes), target, tmp_path)
        assert len(series) > len(network.ops) / 2
        for node in series:
            kind, _, name = node.node.partition(" ")
            assert node.label in program.tensor_positions, node
            said = re.match(r"p(\d+)/", name)
            if said and kind != "DequantizeLinear":  # belongs to the op that reads it
                assert program.tensor_positions[node.label] == int(said[1]), node

    def test_most_of_a_network_is_computed_in_integers(
        self,
        runtime: OnnxRuntime,
        networks: Networks,
        int8_target: Target,
        save: Callable[[bytes], Path],
        tmp_path: Path,
    ) -> None:
        program = int8_onnx(networks("digits", 1)[0])
        nodes = profile(runtime, save(program.model_bytes), int8_target, tmp_path)
        whole = Series(WHOLE_NETWORK, np.array([1, 1]))
        visit = Visit("t", "d", 0, PROFILED, 1, 2, 1, (whole, *nodes))
        shares = computed_shares(program_details("m", [], [visit]).nodes)
        assert shares is not None
        assert shares.integer > 0.5
        assert shares.floating > 0  # HardSwish has no integer kernel

    def test_a_program_in_float_is_refused(
        self,
        runtime: OnnxRuntime,
        int8_target: Target,
        save: Callable[[bytes], Path],
        tmp_path: Path,
    ) -> None:
        path = save(write_onnx(CONV).model_bytes)
        for load in (runtime.load, lambda *given: runtime.load_profiled(*given, tmp_path)):
            with pytest.raises(InvalidInputError, match="no node of the program is quantised"):
                load(path, int8_target)

    def test_what_has_nothing_worth_quantising_is_measured(
        self, runtime: OnnxRuntime, int8_target: Target, save: Callable[[bytes], Path]
    ) -> None:
        runtime.load(save(write_onnx(ACTIVATION).model_bytes), int8_target).run()

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"precision": "fp16"}, "onnxruntime does not compute here: on the CPU it casts"),
            ({"graph_level": "basic"}, "take --graph-level extended or all"),
        ],
    )
    def test_what_it_would_not_compute_is_refused(
        self,
        runtime: OnnxRuntime,
        int8_target: Target,
        save: Callable[[bytes], Path],
        fields: dict[str, Any],
        message: str,
    ) -> None:
        target = dataclasses.replace(int8_target, **fields)
        with pytest.raises(RuntimeUnavailableError, match=message):
            runtime.load(save(int8_onnx(CONV).model_bytes), target)

    def test_both_precisions_are_offered(self, runtime: OnnxRuntime) -> None:
        assert runtime.capability().precisions == ("fp32", "int8")


class TestTflite:
    @pytest.fixture
    def litert(self) -> LiteRt:
        pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
        return LiteRt({})

    def test_an_int8_program_runs(self, litert: LiteRt, save: Callable[[bytes], Path]) -> None:
        assert "int8" in litert.capability().precisions
        for provider in (BUILTIN, XNNPACK):
            target = dataclasses.replace(LITERT, provider=provider)
            litert.load(save(int8_tflite(CONV)), target).run()

    def test_a_provider_that_leaves_nodes_to_plain_kernels_is_refused(
        self, litert: LiteRt, networks: Networks, save: Callable[[bytes], Path]
    ) -> None:
        path = save(int8_tflite(networks("digits", 1)[0]))
        target = dataclasses.replace(LITERT, provider=XNNPACK)
        with pytest.raises(RuntimeUnavailableError, match=r"\(HARD_SWISH\); set allow_fallback"):
            litert.load(path, target)
        litert.load(path, dataclasses.replace(target, allow_fallback=True)).run()

    def test_a_program_in_float_is_refused(
        self, litert: LiteRt, save: Callable[[bytes], Path]
    ) -> None:
        with pytest.raises(InvalidInputError, match="no node of the program is quantised"):
            litert.load(save(write_tflite(CONV).model_bytes), LITERT)

    def test_types_tell_how_a_program_computes(self) -> None:
        assert computations(int8_tflite(CONV)) == {"integer": 1}
        assert computations(write_tflite(CONV).model_bytes) == {"float": 1}
        assert computations(dynamic_range(CONV)) == {"dynamic": 1}

    def test_dynamic_range_is_refused_where_it_is_silently_wrong(
        self, litert: LiteRt, save: Callable[[bytes], Path]
    ) -> None:
        model = dynamic_range(CONV)
        old = dataclasses.replace(LITERT, runtime="tflite-runtime", runtime_version="2.14.0")
        for precision in ("fp32", "int8"):
            with pytest.raises(RuntimeUnavailableError, match="dynamic-range int8 wrongly"):
                require_computed_right(model, dataclasses.replace(old, precision=precision))
        require_computed_right(int8_tflite(CONV), old)
        litert.load(save(model), LITERT).run()


def dynamic_range(network: Network) -> bytes:
    """Float activations, rounded as they come, on integer weights."""
    pytest.importorskip("ai_edge_quantizer", reason="ai-edge-quantizer is not installed")
    from ai_edge_quantizer import quantizer, recipe

    job = quantizer.Quantizer(
        bytearray(write_tflite(network).model_bytes), recipe.dynamic_wi8_afp32()
    )
    return bytes(job.quantize(enable_progress_report=False).quantized_model)
