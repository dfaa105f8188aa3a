import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from latlas_ops import Network, OpSpec
from latlas_ops.errors import MissingDependencyError
from latlas_ops.lowering import lower
from latlas_ops.weights import random_weights
from latlas_ops.writers.onnx_writer import write_onnx

NETWORK = Network.chain(
    [
        OpSpec.of("stem", (3, 16, 16), out_channels=8),
        OpSpec.of("head", (8, 8, 8), expanded_channels=16, classes=4),
    ]
)


def test_a_model_passes_the_checker_of_onnx(example_op: OpSpec) -> None:
    program = write_onnx(Network.chain([example_op]))
    onnx.checker.check_model(program.model_bytes, full_check=True)


def test_a_model_declares_versions_that_onnxruntime_1_17_reads() -> None:
    model = onnx.load_from_string(write_onnx(NETWORK).model_bytes)
    assert model.ir_version <= 9
    assert [(opset.domain, opset.version <= 20) for opset in model.opset_import] == [("", True)]


def test_input_and_output_have_fixed_shapes_and_names() -> None:
    graph = onnx.load_from_string(write_onnx(NETWORK, batch=3, name="mine").model_bytes).graph
    shapes = {
        value.name: [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"input": [3, 3, 16, 16], "output": [3, 4]}
    assert graph.name == "mine"


def test_nodes_and_tensors_say_which_op_they_belong_to() -> None:
    program = write_onnx(NETWORK)
    nodes = onnx.load_from_string(program.model_bytes).graph.node
    for node in nodes:
        position = program.tensor_positions[node.output[0]]
        assert node.name.startswith(f"p{position:03d}/{NETWORK.ops[position].digest}/")
    assert {node.output[0] for node in nodes} == set(program.tensor_positions)
    assert program.tensor_positions["output"] == 1


def test_a_convolution_keeps_its_op_in_its_name_when_onnxruntime_optimises(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        write_onnx(NETWORK).model_bytes, options, providers=["CPUExecutionProvider"]
    )
    nodes = onnx.load(tmp_path / "optimised.onnx").graph.node
    convolutions = [node.name for node in nodes if "Conv" in node.op_type]
    assert [name.split("/")[0] for name in convolutions] == ["p000"] * 3 + ["p001"]


def test_activations_are_the_ones_that_exporters_write() -> None:
    graph = onnx.load_from_string(
        write_onnx(
            Network.chain(
                [
                    OpSpec.of(
                        "mbconv",
                        (8, 8, 8),
                        out_channels=8,
                        expanded_channels=16,
                        kernel=3,
                        activation="hswish",
                        se_channels=8,
                    ),
                    OpSpec.of("conv", (8, 8, 8), out_channels=8, kernel=1, activation="relu6"),
                ]
            )
        ).model_bytes
    ).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("HardSwish") == 2
    assert kinds.count("Clip") == 1
    (gate,) = (node for node in graph.node if node.op_type == "HardSigmoid")
    attributes = {attribute.name: attribute.f for attribute in gate.attribute}
    assert attributes == {"alpha": pytest.approx(1 / 6), "beta": 0.5}


def test_weights_are_stored_as_they_are() -> None:
    weights = random_weights(lower(NETWORK), np.random.default_rng(0))
    model = onnx.load_from_string(write_onnx(NETWORK, weights).model_bytes)
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert stored.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(stored[name], array)


def test_without_onnx_the_extra_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "latlas\[coordinator\]"'):
        write_onnx(NETWORK)
