from collections.abc import Mapping

import numpy as np
import onnx

from latlas_ops import Network, OpSpec, get_space
from latlas_ops.graph import INPUT_TENSOR, OUTPUT_TENSOR, PRIMITIVES
from latlas_ops.kinds import KINDS
from latlas_ops.lowering import lower
from latlas_ops.writers.onnx_writer import write_onnx


def test_the_examples_of_these_tests_cover_every_kind_and_primitive(
    examples: Mapping[str, OpSpec],
) -> None:
    graphs = [lower(Network.chain([op])) for op in examples.values()]
    assert {op.kind for op in examples.values()} == set(KINDS)
    assert {node.primitive for graph in graphs for node in graph.nodes} == set(PRIMITIVES)


def parts(op: OpSpec) -> list[str]:
    return [node.name.rpartition("/")[2] for node in lower(Network.chain([op])).nodes]


def test_an_mbconv_with_everything_is_expand_depthwise_gate_project_skip() -> None:
    op = OpSpec.of(
        "mbconv",
        (8, 6, 6),
        out_channels=8,
        expanded_channels=32,
        kernel=5,
        activation="hswish",
        se_channels=8,
        skip=True,
    )
    assert parts(op) == [
        "expand",
        "expand_act",
        "depthwise",
        "depthwise_act",
        "se_pool",
        "se_reduce",
        "se_act",
        "se_expand",
        "se_gate",
        "se_scale",
        "project",
        "skip",
    ]


def test_a_plain_op_has_no_activation_node() -> None:
    assert parts(OpSpec.of("conv", (3, 8, 8), out_channels=4, kernel=3)) == ["conv"]


def test_a_graph_runs_from_input_to_output_and_every_name_carries_position_and_op() -> None:
    space = get_space("digits")
    network = space.network(space.archs(space.extremes())[1])
    graph = lower(network)
    known = {INPUT_TENSOR}
    for node in graph.nodes:
        assert node.primitive in PRIMITIVES
        assert set(node.inputs) <= known
        assert node.output not in known
        assert node.name.startswith(f"p{node.position:03d}/{network.ops[node.position].digest}/")
        known.add(node.output)
    assert graph.nodes[-1].output == OUTPUT_TENSOR
    assert {node.position for node in graph.nodes} == set(range(len(network.ops)))
    assert graph.tensor_positions()[OUTPUT_TENSOR] == len(network.ops) - 1


def test_a_tensor_is_released_after_its_last_reader_and_the_output_never() -> None:
    op = OpSpec.of("mbconv", (8, 6, 6), out_channels=8, expanded_channels=16, kernel=3, skip=True)
    graph = lower(Network.chain([op]))
    released = dict(zip(parts(op), graph.releases(), strict=True))
    assert released["expand"] == ()
    assert set(released["skip"]) == {INPUT_TENSOR, graph.nodes[-2].output}
    assert OUTPUT_TENSOR not in {name for names in graph.releases() for name in names}


def test_shapes_agree_with_those_that_onnx_infers(example_op: OpSpec) -> None:
    network = Network.chain([example_op])
    graph = lower(network)
    model = onnx.load_from_string(write_onnx(network, batch=2).model_bytes)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    shapes = {
        value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim)
        for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    named = {node.output for node in graph.nodes}
    found = {name: shape for name, shape in shapes.items() if name in named}
    assert found == {node.output: (2, *node.shape) for node in graph.nodes}
    assert example_op.outputs == (graph.output_shape,)


def test_parameter_names_are_unique(example_op: OpSpec) -> None:
    graph = lower(Network.chain([example_op]))
    names = [parameter.name for parameter in graph.parameters()]
    assert len(set(names)) == len(names)
    assert all(np.prod(parameter.shape) > 0 for parameter in graph.parameters())
