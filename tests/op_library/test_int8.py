"""Int8 programs: close to the float ones, the same for the same network, refused with a reason."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from latlas_ops import Network, OpSpec, get_space
from latlas_ops.errors import InvalidInputError
from latlas_ops.writers.calibration import calibration_batches, drawn_inputs
from latlas_ops.writers.onnx_int8 import int8_positions, quantise_onnx
from latlas_ops.writers.onnx_writer import OnnxProgram, write_onnx
from latlas_ops.writers.tflite_int8 import quantise_tflite
from latlas_ops.writers.tflite_writer import write_tflite

needs_litert = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_quantizer") is None,
    reason="ai-edge-quantizer is not installed",
)

RunOnnx = Callable[..., NDArray[np.float32]]
LEAST_DB = 20.0
"""Signal to noise of int8 against float32; what is measured is 24 to 37 dB."""


def digits() -> Network:
    space = get_space("digits")
    return space.network(space.archs(space.extremes())[1])


NETWORKS = {
    "conv": Network.chain([OpSpec.of("conv", (8, 16, 16), out_channels=16, kernel=3)]),
    "mbconv": Network.chain(
        [
            OpSpec.of(
                "mbconv",
                (16, 12, 12),
                out_channels=16,
                expanded_channels=48,
                kernel=5,
                se_channels=8,
                activation="hswish",
            )
        ]
    ),
    "linear": Network.chain([OpSpec.of("linear", (64,), out_features=10)]),
    "digits": digits(),
}


@pytest.fixture(params=list(NETWORKS.values()), ids=list(NETWORKS))
def network(request: pytest.FixtureRequest) -> Network:
    chosen: Network = request.param
    return chosen


def signal_to_noise_db(wanted: NDArray[Any], found: NDArray[Any]) -> float:
    noise = wanted.astype(np.float64) - found
    return float(10 * np.log10(np.square(wanted, dtype=np.float64).sum() / np.square(noise).sum()))


def unseen(network: Network, batch: int = 1) -> NDArray[np.float32]:
    """Inputs that nothing was calibrated on."""
    rng = np.random.default_rng(99)
    return rng.standard_normal((batch, *network.input_shape), dtype=np.float32)


def channels_last(array: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(array, 1, -1) if array.ndim == 4 else array


def run_tflite(model: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Output for float inputs, by LiteRT's own kernels on one thread; int8 is converted."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    session = interpreter.Interpreter(
        model_content=model,
        num_threads=1,
        experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    session.allocate_tensors()
    (given,), (wanted,) = session.get_input_details(), session.get_output_details()
    values = channels_last(images)
    if given["dtype"] == np.int8:
        scale, zero_point = given["quantization"]
        values = np.clip(np.rint(values / scale) + zero_point, -128, 127).astype(np.int8)
    session.set_tensor(given["index"], values)
    session.invoke()
    output = session.get_tensor(wanted["index"])
    if wanted["dtype"] == np.int8:
        scale, zero_point = wanted["quantization"]
        output = (output.astype(np.float32) - zero_point) * np.float32(scale)
    return output


def test_an_onnx_program_in_int8_computes_nearly_the_same(
    network: Network, run_onnx: RunOnnx
) -> None:
    program = write_onnx(network)
    model = quantise_onnx(program.model_bytes, drawn_inputs(network.input_shape))
    images = unseen(network)
    wanted, found = run_onnx(program.model_bytes, images), run_onnx(model, images)
    assert signal_to_noise_db(wanted, found) > LEAST_DB
    assert len(model) < len(program.model_bytes) or len(program.model_bytes) < 50_000


@needs_litert
def test_a_tflite_program_in_int8_computes_nearly_the_same(network: Network) -> None:
    program = write_tflite(network)
    images = channels_last(drawn_inputs(network.input_shape))
    model = quantise_tflite(program.model_bytes, images)
    wanted, found = (run_tflite(one, unseen(network)) for one in (program.model_bytes, model))
    assert signal_to_noise_db(wanted, found) > LEAST_DB


def test_every_kind_can_be_quantised(example_op: OpSpec, run_onnx: RunOnnx) -> None:
    network = Network.chain([example_op])
    program = write_onnx(network)
    model = quantise_onnx(program.model_bytes, drawn_inputs(network.input_shape, 4))
    written = {name for node in onnx.load_from_string(model).graph.node for name in node.output}
    positions = int8_positions(model, program.tensor_positions)
    assert positions == dict.fromkeys(written, 0)
    assert np.isfinite(run_onnx(model, unseen(network))).all()


def test_masked_attention_stays_float_whatever_its_nodes_are_called() -> None:
    shape, sizes = (5, 12), {"heads": 2, "cross_heads": 4, "qkv_features": 8, "ffn_features": 20}
    network = Network.chain([OpSpec.of("decoder_layer", shape, shape, **sizes)])
    named = onnx.load_from_string(write_onnx(network).model_bytes)
    unnamed = onnx.load_from_string(write_onnx(network).model_bytes)
    for node in unnamed.graph.node:
        node.name = ""

    def quantised(model: onnx.ModelProto) -> int:
        made = quantise_onnx(model.SerializeToString(), drawn_inputs(network.input_shape, 4))
        nodes = onnx.load_from_string(made).graph.node
        sums = {node.output[0] for node in nodes if node.op_type == "Add"}
        of_sums = [node for node in nodes if node.op_type == "Softmax" and sums & set(node.input)]
        assert len(of_sums) == 1  # that of the self-attention; the other's input is quantised
        return sum(node.op_type == "QuantizeLinear" for node in nodes)

    assert quantised(unnamed) == quantised(named) > 0


@needs_litert
def test_every_kind_can_be_quantised_for_tflite(example_op: OpSpec) -> None:
    network = Network.chain([example_op])
    images = channels_last(drawn_inputs(network.input_shape, 4))
    model = quantise_tflite(write_tflite(network).model_bytes, images)
    assert np.isfinite(run_tflite(model, unseen(network))).all()


def test_every_tensor_of_a_quantised_network_belongs_to_an_op() -> None:
    program = write_onnx(digits())
    model = quantise_onnx(program.model_bytes, drawn_inputs(digits().input_shape))
    positions = int8_positions(model, program.tensor_positions)
    nodes = onnx.load_from_string(model).graph.node
    assert {name for node in nodes for name in node.output} == set(positions)
    for node in nodes:
        (output,) = node.output
        if output in program.tensor_positions:
            assert positions[output] == program.tensor_positions[output]
    readers = {name: node.output[0] for node in reversed(nodes) for name in node.input}
    writers = {node.output[0]: node for node in nodes}
    for node in nodes:
        if node.op_type == "DequantizeLinear" and node.output[0] in readers:
            assert positions[node.output[0]] == positions[readers[node.output[0]]]
        if node.op_type == "QuantizeLinear" and node.input[0] in writers:
            assert positions[node.output[0]] == positions[node.input[0]]
    assert set(positions.values()) == set(range(len(digits().ops)))


def test_equal_networks_give_equal_bytes_whatever_the_process() -> None:
    code = (
        "import hashlib; from latlas_ops import Network, OpSpec\n"
        "from latlas_ops.writers.calibration import drawn_inputs\n"
        "from latlas_ops.writers.onnx_int8 import quantise_onnx\n"
        "from latlas_ops.writers.onnx_writer import write_onnx\n"
        "n = Network.chain([OpSpec.of('conv', (8, 16, 16), out_channels=16, kernel=3)])\n"
        "m = quantise_onnx(write_onnx(n).model_bytes, drawn_inputs(n.input_shape))\n"
        "print(hashlib.sha256(m).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_a_program_of_a_larger_batch_is_calibrated_in_batches(run_onnx: RunOnnx) -> None:
    network = NETWORKS["mbconv"]
    program = write_onnx(network, batch=3)
    model = quantise_onnx(program.model_bytes, drawn_inputs(network.input_shape, 8))
    images = unseen(network, 3)
    wanted, found = run_onnx(program.model_bytes, images), run_onnx(model, images)
    assert signal_to_noise_db(wanted, found) > LEAST_DB
    batches = list(calibration_batches(np.arange(8.0)[:, None], (3, 1)))
    np.testing.assert_array_equal(np.concatenate(batches)[:, 0], [*range(8), 0])


def test_calibration_decides_the_ranges(run_onnx: RunOnnx) -> None:
    """Inputs of the right kind matter: ten times as small, and what comes is cut off."""
    program = write_onnx(NETWORKS["mbconv"])
    drawn = drawn_inputs(NETWORKS["mbconv"].input_shape)
    images = unseen(NETWORKS["mbconv"])
    wanted = run_onnx(program.model_bytes, images)
    right, wrong = (
        signal_to_noise_db(wanted, run_onnx(quantise_onnx(program.model_bytes, inputs), images))
        for inputs in (drawn, drawn / 10)
    )
    assert wrong < LEAST_DB / 2 < right


@pytest.mark.parametrize("quantise", [quantise_onnx, quantise_tflite])
def test_what_does_not_fit_is_refused(quantise: Callable[..., bytes]) -> None:
    if quantise is quantise_tflite:
        pytest.importorskip("ai_edge_quantizer")
        model = write_tflite(NETWORKS["linear"]).model_bytes
    else:
        model = write_onnx(NETWORKS["linear"]).model_bytes
    with pytest.raises(InvalidInputError, match="inputs have the shape 4x63, the model takes n x"):
        quantise(model, np.zeros((4, 63), dtype=np.float32))
    with pytest.raises(InvalidInputError, match="without inputs"):
        quantise(model, np.zeros((0, 64), dtype=np.float32))
    with pytest.raises(InvalidInputError, match="finite"):
        quantise(model, np.full((1, 64), np.nan, dtype=np.float32))
    with pytest.raises(InvalidInputError, match=r"not an? \w+ model that can be quantised"):
        quantise(b"no model at all", np.zeros((4, 64), dtype=np.float32))


def test_of_the_axes_only_the_batch_may_be_free(run_onnx: RunOnnx) -> None:
    network = NETWORKS["conv"]
    model = onnx.load_from_string(write_onnx(network).model_bytes)
    del model.graph.value_info[:]
    for entry in (*model.graph.input, *model.graph.output):
        entry.type.tensor_type.shape.dim[0].dim_param = "batch"
    quantised = quantise_onnx(model.SerializeToString(), drawn_inputs(network.input_shape))
    assert len(run_onnx(quantised, unseen(network, 5))) == 5
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(InvalidInputError, match="'input' has free axes beside the batch"):
        quantise_onnx(model.SerializeToString(), drawn_inputs(network.input_shape))


def test_a_quantised_program_is_still_a_program() -> None:
    """Inputs, outputs and format are those of the float program."""
    program: OnnxProgram = write_onnx(NETWORKS["linear"])
    model = onnx.load_from_string(
        quantise_onnx(program.model_bytes, drawn_inputs(NETWORKS["linear"].input_shape))
    )
    onnx.checker.check_model(model, full_check=True)
    assert [entry.name for entry in model.graph.input] == ["input"]
    assert [entry.name for entry in model.graph.output] == ["output"]
    assert not [entry for entry in model.metadata_props if "pre_process" in entry.key]
