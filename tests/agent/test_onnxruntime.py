from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from latlas_agent.runtimes.onnxruntime import OnnxRuntime
from latlas_agent.timing import time_runs
from latlas_latency.measurement import Target
from latlas_ops.errors import (
    CorruptProgramError,
    InvalidInputError,
    LatlasError,
    RuntimeUnavailableError,
)
from latlas_ops.network import Network
from latlas_ops.writers.onnx_writer import write_onnx

CPU = "CPUExecutionProvider"


@pytest.fixture(scope="module")
def runtime() -> OnnxRuntime:
    return OnnxRuntime()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write_file(data: bytes) -> Path:
        path = tmp_path / "model.onnx"
        path.write_bytes(data)
        return path

    return write_file


@pytest.fixture
def program(networks: Callable[..., list[Network]], write: Callable[[bytes], Path]) -> Path:
    return write(write_onnx(networks("digits", 1)[0]).model_bytes)


def relu(shape: list[Any], dtype: int = TensorProto.FLOAT) -> bytes:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("y", dtype, shape)],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def test_it_says_what_it_offers(runtime: OnnxRuntime) -> None:
    capability = runtime.capability()
    assert capability.version == onnxruntime.__version__
    assert CPU in capability.providers
    assert capability.graph_levels == ("disabled", "basic", "extended", "all")
    assert capability.per_node_times


def test_a_session_runs_and_gives_the_same_outputs_each_time(
    runtime: OnnxRuntime, program: Path, onnx_target: Target
) -> None:
    first = runtime.load(program, onnx_target).run()
    second = runtime.load(program, onnx_target).run()
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("level", ["basic", "extended", "all"])
def test_nodes_add_up_to_the_whole(
    runtime: OnnxRuntime,
    networks: Callable[..., list[Network]],
    write: Callable[[bytes], Path],
    tmp_path: Path,
    onnx_target: Target,
    level: str,
) -> None:
    written = write_onnx(networks("digits", 1)[0])
    target = dataclasses.replace(onnx_target, graph_level=level)
    session = runtime.load_profiled(write(written.model_bytes), target, tmp_path)
    timing = time_runs(session.run, warmup_runs=2, min_runs=20, min_duration_ns=0)
    series = session.node_series(20)
    assert {len(one.samples_ns) for one in series} == {20}
    assert {one.label for one in series} <= set(written.tensor_positions)
    sums_ns = np.sum([one.samples_ns for one in series], axis=0)
    assert np.all(sums_ns <= timing.samples_ns)
    assert np.median(sums_ns) > 0.4 * np.median(timing.samples_ns)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "model.onnx"], "files left behind"


def test_a_profile_has_room_for_a_limited_number_of_runs(
    runtime: OnnxRuntime, program: Path, tmp_path: Path, onnx_target: Target
) -> None:
    session = runtime.load_profiled(program, onnx_target, tmp_path)
    session.run()
    n_nodes = len(session.node_series(1))
    assert session.max_runs == 200_000 // n_nodes


def test_a_free_first_axis_takes_the_target_s_batch(
    runtime: OnnxRuntime, write: Callable[[bytes], Path], onnx_target: Target
) -> None:
    target = dataclasses.replace(onnx_target, batch=3)
    (output,) = runtime.load(write(relu(["n", 4])), target).run()  # type: ignore[misc]
    assert output.shape == (3, 4)


def test_free_axes_take_the_sizes_that_they_are_given(
    runtime: OnnxRuntime, write: Callable[[bytes], Path], onnx_target: Target
) -> None:
    path = write(relu(["n", 3, "height", "width"]))
    session: Any = runtime.load(path, onnx_target, (("x", (1, 3, 7, 9)),))
    (output,) = session.run()
    assert output.shape == (1, 3, 7, 9)


def test_a_first_axis_that_is_no_batch_can_be_said_to_be_none(
    runtime: OnnxRuntime, write: Callable[[bytes], Path], onnx_target: Target
) -> None:
    path = write(relu([2, 3]))
    with pytest.raises(InvalidInputError, match="is no batch, say --shape x=2,3"):
        runtime.load(path, onnx_target)
    session: Any = runtime.load(path, onnx_target, (("x", (2, 3)),))
    assert session.run()[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("x", (1, 4, 7, 9), r"has the shape \?x3x\?x\? in the program, which 1x4x7x9 does not"),
        ("x", (3, 7, 9), "which 3x7x9 does not fit"),
        ("x", (8, 3, 7, 9), "free first axis, which takes the batch of target 'here', 1, not 8"),
        ("images", (1, 3, 7, 9), "no input 'images'; it has x"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(
    runtime: OnnxRuntime,
    write: Callable[[bytes], Path],
    onnx_target: Target,
    name: str,
    sizes: tuple[int, ...],
    message: str,
) -> None:
    path = write(relu(["n", 3, "height", "width"]))
    with pytest.raises(InvalidInputError, match=message):
        runtime.load(path, onnx_target, ((name, sizes),))


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ([1, "length"], TensorProto.FLOAT, r"free axes, 1x\?: say .* --shape x=1,224$"),
        ([2, 4], TensorProto.FLOAT, "has batch 2, target 'here' wants 1"),
        ([1, 4], TensorProto.STRING, "unsupported type"),
    ],
)
def test_a_program_that_does_not_fit_the_target_is_refused(
    runtime: OnnxRuntime,
    write: Callable[[bytes], Path],
    onnx_target: Target,
    shape: list[Any],
    dtype: int,
    message: str,
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        runtime.load(write(relu(shape, dtype)), onnx_target)


@pytest.mark.parametrize(
    "dtype",
    [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL],
)
def test_inputs_of_other_types_are_made_too(
    runtime: OnnxRuntime, write: Callable[[bytes], Path], onnx_target: Target, dtype: int
) -> None:
    runtime.load(write(relu([1, 4], dtype)), onnx_target).run()


@pytest.mark.parametrize("cut", [0, 10, 1000, -1])
def test_a_cut_model_is_corrupt(
    runtime: OnnxRuntime,
    program: Path,
    write: Callable[[bytes], Path],
    onnx_target: Target,
    cut: int,
) -> None:
    path = write(program.read_bytes()[:cut])
    with pytest.raises(CorruptProgramError):
        runtime.load(path, onnx_target)


def test_an_unknown_operator_is_corrupt(
    runtime: OnnxRuntime, write: Callable[[bytes], Path], onnx_target: Target
) -> None:
    data = relu([1, 4]).replace(b"Identity", b"Idontity")
    with pytest.raises(CorruptProgramError, match="Idontity"):
        runtime.load(write(data), onnx_target)


def test_a_model_that_reads_other_files_is_refused(
    runtime: OnnxRuntime, write: Callable[[bytes], Path], onnx_target: Target, tmp_path: Path
) -> None:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="secret")
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        [weight],
    )
    path = write(helper.make_model(graph).SerializeToString())
    for load in (
        lambda: runtime.load(path, onnx_target),
        lambda: runtime.load_profiled(path, onnx_target, tmp_path),
    ):
        with pytest.raises(CorruptProgramError, match="save it as one file"):
            load()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"provider": "CUDAExecutionProvider"}, "has no CUDAExecutionProvider"),
        ({"execution": "compiled"}, "no execution 'compiled'"),
    ],
)
def test_what_this_installation_cannot_do_is_refused(
    runtime: OnnxRuntime,
    program: Path,
    onnx_target: Target,
    fields: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(RuntimeUnavailableError, match=message):
        runtime.load(program, dataclasses.replace(onnx_target, **fields))


@pytest.mark.skipif(
    "AzureExecutionProvider" not in onnxruntime.get_available_providers(),
    reason="needs a provider that takes no nodes",
)
class TestFallback:
    """The Azure provider of the CPU package takes no node of an ordinary model."""

    def test_a_provider_that_hands_its_nodes_to_another_is_refused(
        self, runtime: OnnxRuntime, program: Path, tmp_path: Path, onnx_target: Target
    ) -> None:
        target = dataclasses.replace(onnx_target, provider="AzureExecutionProvider")
        with pytest.raises(RuntimeUnavailableError, match="set allow_fallback"):
            runtime.load(program, target)
        with pytest.raises(LatlasError, match="set allow_fallback"):
            runtime.load_profiled(program, target, tmp_path)

    def test_it_is_accepted_on_request(
        self, runtime: OnnxRuntime, program: Path, tmp_path: Path, onnx_target: Target
    ) -> None:
        target = dataclasses.replace(
            onnx_target, provider="AzureExecutionProvider", allow_fallback=True
        )
        runtime.load(program, target).run()
        session = runtime.load_profiled(program, target, tmp_path)
        session.run()
        assert session.node_series(1)
