import sys

import pytest

from latlas_ops import Network, OpSpec
from latlas_ops.errors import InvalidInputError, MissingDependencyError
from latlas_ops.graph import INPUT_TENSOR, Graph, GraphBuilder, Node
from latlas_ops.lowering import lower
from latlas_ops.writers._tflite_plan import (
    fuse_activations,
    padding_scheme,
    reordered_features,
    tensor_shapes,
)
from latlas_ops.writers.tflite_writer import write_tflite

IMAGE = (4, 8, 8)


def builder(shape: tuple[int, ...] = IMAGE) -> GraphBuilder:
    graph = GraphBuilder(shapes={INPUT_TENSOR: shape})
    graph.begin(0, "digest")
    return graph


def conv_node(length: int, kernel: int, stride: int, dilation: int = 1) -> Node:
    graph = builder((4, length, length))
    graph.conv("conv", INPUT_TENSOR, 4, kernel=kernel, stride=stride, dilation=dilation)
    return graph.nodes[-1]


def fused(graph: Graph) -> list[tuple[str, str]]:
    return [(step.node.primitive, step.activation) for step in fuse_activations(graph)]


@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_the_only_reader_of_a_convolution_is_fused_into_it(activation: str) -> None:
    op = OpSpec.of("conv", IMAGE, out_channels=4, kernel=3, activation=activation)
    (step,) = fuse_activations(lower(Network.chain([op])))
    assert (step.node.primitive, step.activation, step.output) == ("conv", activation, "output")


@pytest.mark.parametrize("activation", ["hswish", "hsigmoid"])
def test_activations_that_no_operator_of_tflite_fuses_stay(activation: str) -> None:
    op = OpSpec.of("conv", IMAGE, out_channels=4, kernel=3, activation=activation)
    assert fused(lower(Network.chain([op]))) == [("conv", "none"), (activation, "none")]


def test_an_activation_beside_another_reader_stays() -> None:
    conv = OpSpec.of("conv", IMAGE, out_channels=4, kernel=3)
    network = Network(
        (conv, OpSpec.of("activation", IMAGE), OpSpec.of("add", IMAGE, IMAGE)),
        ((-1,), (0,), (0, 1)),
    )
    assert fused(lower(network)) == [("conv", "none"), ("relu", "none"), ("add", "none")]


def test_an_activation_of_the_input_or_of_a_concatenation_stays() -> None:
    network = Network.chain(
        [
            OpSpec.of("activation", IMAGE),
            OpSpec.of("concat", IMAGE, IMAGE),
            OpSpec.of("activation", (8, 8, 8)),
        ]
    )
    assert fused(lower(network)) == [("relu", "none"), ("concat", "none"), ("relu", "none")]


def test_an_activation_of_the_next_op_is_fused_and_the_node_stays_with_its_op() -> None:
    network = Network.chain([OpSpec.of("add", IMAGE, IMAGE), OpSpec.of("activation", IMAGE)])
    (step,) = fuse_activations(lower(network))
    assert (step.node.position, step.activation, step.output) == (0, "relu", "output")


@pytest.mark.parametrize(
    ("length", "kernel", "stride", "dilation", "scheme"),
    [
        (8, 1, 1, 1, "valid"),
        (8, 1, 2, 1, "valid"),
        (8, 3, 1, 1, "same"),
        (8, 5, 1, 2, "same"),
        (9, 3, 2, 1, "same"),
        (8, 3, 2, 1, "explicit"),  # SAME would pad none before and one behind
        (8, 7, 2, 1, "explicit"),
        (8, 5, 2, 2, "explicit"),
        (7, 2, 2, 1, "explicit"),
        (8, 2, 1, 1, "explicit"),  # torch's output is one pixel larger than the image
    ],
)
def test_same_is_used_only_where_it_pads_as_torch_does(
    length: int, kernel: int, stride: int, dilation: int, scheme: str
) -> None:
    node = conv_node(length, kernel, stride, dilation)
    assert padding_scheme(node, (length, length)) == scheme


def test_one_axis_that_differs_makes_padding_explicit() -> None:
    graph = builder((4, 9, 8))
    graph.conv("conv", INPUT_TENSOR, 4, kernel=3, stride=2)
    assert padding_scheme(graph.nodes[-1], (9, 8)) == "explicit"


def test_features_keep_their_order_where_only_linear_layers_read_them() -> None:
    graph = builder()
    graph.linear("linear", graph.flatten("flatten", INPUT_TENSOR), 3)
    done = graph.finish()
    assert reordered_features(done, tensor_shapes(done)) == {"p000/digest/flatten": IMAGE}


def test_features_that_others_read_are_put_into_the_order_of_torch() -> None:
    graph = builder()
    graph.activation("act", graph.flatten("flatten", INPUT_TENSOR), "relu")
    done = graph.finish()
    assert reordered_features(done, tensor_shapes(done)) == {}


def test_a_flattened_vector_has_one_order() -> None:
    graph = builder((4, 1, 1))
    graph.linear("linear", graph.flatten("flatten", INPUT_TENSOR), 3)
    done = graph.finish()
    assert reordered_features(done, tensor_shapes(done)) == {}


def test_without_litert_the_extra_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("_tflite_nodes", "_tflite_file"):
        monkeypatch.delitem(sys.modules, f"latlas_ops.writers.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "latlas\[litert\]"'):
        write_tflite(Network.chain([OpSpec.of("activation", IMAGE)]))


def test_a_batch_of_nothing_is_refused() -> None:
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    with pytest.raises(InvalidInputError, match="batch must be at least 1, not 0"):
        write_tflite(Network.chain([OpSpec.of("activation", IMAGE)]), batch=0)
