from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from latlas_ops import SPACE_NAMES, Network, OpSpec, get_space
from latlas_ops.errors import InvalidInputError
from latlas_ops.graph import INPUT_TENSOR, Graph, GraphBuilder
from latlas_ops.lowering import lower
from latlas_ops.space import ArchBatch
from latlas_ops.weights import random_weights
from latlas_ops.writers._torch_module import NetworkModule
from latlas_ops.writers.tflite_writer import write_tflite

schema = pytest.importorskip(
    "ai_edge_litert.schema_py_generated", reason="ai-edge-litert is not installed"
)
interpreter = pytest.importorskip(
    "ai_edge_litert.interpreter", reason="ai-edge-litert is not installed"
)

from latlas_ops.writers import _tflite_nodes  # noqa: E402 (needs ai-edge-litert)

KERNELS = {
    "xnnpack": interpreter.OpResolverType.AUTO,
    "built-in": interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}
TOLERANCE = 2e-6

NETWORK = Network.chain(
    [
        OpSpec.of("stem", (3, 16, 16), out_channels=8),
        OpSpec.of(
            "mbconv", (8, 8, 8), out_channels=8, expanded_channels=16, kernel=3, se_channels=8
        ),
        OpSpec.of("head", (8, 8, 8), expanded_channels=16, classes=4),
    ]
)


@pytest.fixture(params=list(KERNELS))
def kernels(request: pytest.FixtureRequest) -> str:
    """LiteRT's own kernels, and XNNPACK's, which it takes where it can."""
    name: str = request.param
    return name


def run(model_bytes: bytes, images: NDArray[np.float32], kernels: str) -> NDArray[np.float32]:
    """The output on one thread; images go in and come back as `(n, c, h, w)`."""
    model = interpreter.Interpreter(
        model_content=model_bytes, num_threads=1, experimental_op_resolver_type=KERNELS[kernels]
    )
    model.allocate_tensors()
    (given,), (wanted,) = model.get_input_details(), model.get_output_details()
    assert (given["name"], wanted["name"]) == ("input", "output")
    model.set_tensor(given["index"], np.moveaxis(images, 1, -1) if images.ndim == 4 else images)
    model.invoke()
    output: NDArray[np.float32] = model.get_tensor(wanted["index"])
    return np.moveaxis(output, -1, 1) if output.ndim == 4 else output


def error(graph: Graph, kernels: str, *, batch: int = 1) -> float:
    """Largest difference from torch on the same weights, over torch's largest output."""
    rng = np.random.default_rng(0)
    weights = random_weights(graph, rng)
    images = rng.standard_normal((batch, *graph.input_shape), dtype=np.float32)
    with torch.inference_mode():
        expected = NetworkModule(graph, weights)(torch.from_numpy(images)).numpy()
    model_bytes, _ = _tflite_nodes.build(graph, weights, batch, "test")
    output = run(model_bytes, images, kernels)
    assert output.shape == expected.shape
    largest = np.abs(expected).max()
    difference = np.abs(output - expected).max()
    return float(difference / largest) if largest else float(difference)


def read(model_bytes: bytes) -> Any:
    """The model as objects of the schema."""
    return schema.ModelT.InitFromPackedBuf(model_bytes)


def operators(model_bytes: bytes) -> list[tuple[str, Any]]:
    """Builtin operator and options of every node."""
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if name[0].isupper()}
    model = read(model_bytes)
    return [
        (names[model.operatorCodes[node.opcodeIndex].builtinCode], node.builtinOptions)
        for node in model.subgraphs[0].operators
    ]


def kinds(network: Network) -> list[str]:
    return [kind for kind, _ in operators(write_tflite(network).model_bytes)]


def test_every_kind_gives_the_same_in_tflite_and_torch(example_op: OpSpec, kernels: str) -> None:
    assert error(lower(Network.chain([example_op])), kernels, batch=2) <= TOLERANCE


@pytest.mark.parametrize("name", SPACE_NAMES)
def test_whole_architectures_give_the_same_in_tflite_and_torch(name: str, kernels: str) -> None:
    # XNNPACK adds the thousand products of a late layer one after another: against torch in double
    # precision it is off by up to 2.2e-6, where LiteRT's own kernels on the same file are not.
    tolerance = {"built-in": TOLERANCE, "xnnpack": 3e-6}[kernels]
    space = get_space(name)
    n_random = 1 if name in ("ofa-resnet50", "hat") else 4  # networks of up to 92 million weights
    genes = np.concatenate(
        [space.extremes().genes, space.sample(n_random, np.random.default_rng(11)).genes]
    )
    if space.resolution_gene is not None:
        genes[:, space.resolution_gene] = 0  # the smallest one
    for arch in space.archs(ArchBatch(space, genes)):
        assert error(lower(space.network(arch)), kernels) <= tolerance


@pytest.mark.parametrize("out_channels", [4, 8])
def test_a_group_per_channel_is_a_depthwise_convolution(out_channels: int, kernels: str) -> None:
    op = OpSpec.of("conv", (4, 7, 7), out_channels=out_channels, kernel=3, groups=4)
    assert kinds(Network.chain([op])) == ["DEPTHWISE_CONV_2D"]
    assert error(lower(Network.chain([op])), kernels) <= TOLERANCE


TRAPS = {
    "conv": OpSpec.of("conv", (3, 8, 8), out_channels=4, kernel=3, stride=2),
    "depthwise": OpSpec.of("depthwise", (4, 8, 8), kernel=5, stride=2),
    "dilated": OpSpec.of("dil_conv", (4, 8, 8), out_channels=4, kernel=3, stride=2),
    "max": OpSpec.of("pool", (4, 8, 8), mode="max", kernel=3, stride=2),
    "avg": OpSpec.of("pool", (4, 8, 8), mode="avg", kernel=3, stride=2),
}


@pytest.mark.parametrize("op", TRAPS.values(), ids=TRAPS)
def test_a_stride_of_two_is_padded_as_torch_pads_it(
    op: OpSpec, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = lower(Network.chain([op]))
    assert error(graph, kernels) <= TOLERANCE
    monkeypatch.setattr(_tflite_nodes, "padding_scheme", lambda node, lengths: "same")
    assert error(graph, kernels) > 0.1  # what TFLite's SAME would have given


def test_padding_costs_a_node_only_where_same_would_differ() -> None:
    assert kinds(Network.chain([TRAPS["conv"]])) == ["PAD", "CONV_2D"]
    op = OpSpec.of("conv", (3, 9, 9), out_channels=4, kernel=3, stride=2)
    assert kinds(Network.chain([op])) == ["CONV_2D"]


def test_max_pooling_pads_with_zeros_only_what_a_relu_wrote(kernels: str) -> None:
    pool = OpSpec.of("pool", (4, 8, 8), mode="max", kernel=3, stride=2)
    assert kinds(Network.chain([pool])) == ["PADV2", "MAX_POOL_2D"]
    network = Network.chain([OpSpec.of("activation", (4, 8, 8)), pool])
    assert kinds(network) == ["RELU", "PAD", "MAX_POOL_2D"]
    assert error(lower(network), kernels) <= TOLERANCE


@pytest.mark.parametrize("activation", ["none", "relu"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (6, 1, 1), (1, 4, 5)])
def test_a_flattened_image_has_its_features_in_the_order_of_torch(
    shape: tuple[int, ...], activation: str, kernels: str
) -> None:
    graph = GraphBuilder(shapes={INPUT_TENSOR: shape})
    graph.begin(0, "digest")
    flat = graph.activation("act", graph.flatten("flatten", INPUT_TENSOR), activation)
    graph.linear("linear", flat, 4)
    assert error(graph.finish(), kernels, batch=2) <= TOLERANCE


def test_activations_are_the_ones_that_converters_write() -> None:
    network = Network.chain(
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
    nodes = operators(write_tflite(network).model_bytes)
    assert [kind for kind, _ in nodes] == [
        *("CONV_2D", "HARD_SWISH", "DEPTHWISE_CONV_2D", "HARD_SWISH"),
        *("MEAN", "CONV_2D", "CONV_2D", "ADD", "MUL", "MUL"),
        *("CONV_2D", "CONV_2D"),
    ]
    fused = {
        index: getattr(node, "fusedActivationFunction", 0) for index, (_, node) in enumerate(nodes)
    }
    types = schema.ActivationFunctionType
    assert {i: kind for i, kind in fused.items() if kind} == {
        5: types.RELU,
        7: types.RELU6,
        11: types.RELU6,
    }


def test_every_tensor_that_a_node_writes_says_which_op_it_belongs_to() -> None:
    program = write_tflite(NETWORK)
    graph = read(program.model_bytes).subgraphs[0]
    names = [graph.tensors[node.outputs[0]].name.decode() for node in graph.operators]
    assert set(names) == set(program.tensor_positions)
    for name in names[:-1]:
        position = program.tensor_positions[name]
        assert name.startswith(f"p{position:03d}/{NETWORK.ops[position].digest}/")
    assert names[-1] == "output"
    assert program.tensor_positions["output"] == 2


def test_a_node_keeps_its_op_when_the_activation_of_the_next_one_is_fused_into_it() -> None:
    image = (4, 6, 6)
    network = Network.chain(
        [
            OpSpec.of("add", image, image),
            OpSpec.of("activation", image),
            OpSpec.of("depthwise", image, kernel=3),
        ]
    )
    program = write_tflite(network)
    assert list(program.tensor_positions.values()) == [0, 2]


def test_tensor_names_are_unique_and_a_signature_names_input_and_output() -> None:
    model_bytes = write_tflite(NETWORK, name="mine").model_bytes
    assert model_bytes[4:8] == b"TFL3"
    model = read(model_bytes)
    (graph,) = model.subgraphs
    names = [tensor.name.decode() for tensor in graph.tensors]
    assert len(set(names)) == len(names)
    assert graph.name == b"mine"
    (signature,) = model.signatureDefs
    assert signature.signatureKey == b"serving_default"
    assert [names[entry.tensorIndex] for entry in signature.inputs] == ["input"]
    assert [names[entry.tensorIndex] for entry in signature.outputs] == ["output"]


def test_input_and_output_have_fixed_shapes_channels_last() -> None:
    network = Network.chain([OpSpec.of("conv", (3, 8, 10), out_channels=5, kernel=3)])
    (graph,) = read(write_tflite(network, batch=3).model_bytes).subgraphs
    shapes = {tensor.name: list(tensor.shape) for tensor in graph.tensors}
    assert (shapes[b"input"], shapes[b"output"]) == ([3, 8, 10, 3], [3, 8, 10, 5])


def test_constants_are_aligned_and_equal_ones_are_stored_once() -> None:
    network = Network.chain([OpSpec.of("linear", (64,), out_features=64)] * 3)
    graph = lower(network)
    one = np.arange(64 * 64, dtype=np.float32).reshape(64, 64)
    weights = {
        parameter.name: one if len(parameter.shape) == 2 else one[0]
        for parameter in graph.parameters()
    }
    model_bytes = write_tflite(network, weights).model_bytes
    assert len(model_bytes) < 2 * one.nbytes
    assert model_bytes.count(one.tobytes()) == 1
    assert model_bytes.index(one.tobytes()) % 16 == 0


def test_weights_beyond_what_a_flatbuffer_holds_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flatbuffers = pytest.importorskip("flatbuffers")
    monkeypatch.setattr(flatbuffers.Builder, "MAX_BUFFER_SIZE", 4096)
    with pytest.raises(InvalidInputError, match="a TFLite model holds less than 2"):
        write_tflite(NETWORK)
