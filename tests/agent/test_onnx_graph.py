from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from latlas_agent.runtimes.onnx_graph import read_graph
from latlas_ops.errors import CorruptProgramError
from latlas_ops.network import Network
from latlas_ops.writers.onnx_writer import write_onnx


def model(*nodes: onnx.NodeProto, initializers: tuple[onnx.TensorProto, ...] = ()) -> bytes:
    """A model that need not be runnable."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(list(nodes), "g", [value], [value], list(initializers))
    return helper.make_model(graph).SerializeToString()


def external(name: str) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return tensor


@pytest.mark.parametrize("space", ["digits", "ofa-mobilenetv3"])
def test_it_reads_the_graph_that_the_reference_parser_reads(
    networks: Callable[..., list[Network]], space: str
) -> None:
    (network,) = networks(space, 1)
    data = write_onnx(network).model_bytes
    expected = onnx.load_from_string(data).graph.node
    found = read_graph(data).nodes
    assert [(n.name, n.op_type, list(n.inputs), list(n.outputs)) for n in found] == [
        (n.name, n.op_type, list(n.input), list(n.output)) for n in expected
    ]


def test_absent_tensors_and_names_are_empty() -> None:
    (node,) = read_graph(model(helper.make_node("Clip", ["x", "", "hi"], ["y"]))).nodes
    assert node.name == ""
    assert node.inputs == ("x", "", "hi")


def test_a_self_contained_model_has_no_external_data() -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], np.ones(2, dtype=np.float32))
    node = helper.make_node("Constant", [], ["c"], value=weight)
    assert not read_graph(model(node, initializers=(weight,))).has_external_data


def test_external_data_is_found_wherever_it_hides() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=external("c"))
    inner = helper.make_graph([constant], "inner", [], [])
    sparse = onnx.SparseTensorProto(values=external("s"), dims=[1])
    hidden = [
        model(initializers=(external("w"),)),
        model(constant),
        model(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)),
        model(helper.make_node("Constant", [], ["c"], sparse_value=sparse)),
    ]
    assert [read_graph(data).has_external_data for data in hidden] == [True] * len(hidden)


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff" * 100, bytes(100), b"\x3a\xff\x01ab"])
def test_anything_else_is_not_a_model(data: bytes) -> None:
    with pytest.raises(CorruptProgramError, match="not an ONNX model"):
        read_graph(data)


def test_no_prefix_of_a_model_makes_it_stumble() -> None:
    data = model(helper.make_node("Relu", ["x"], ["y"], name="n"))
    assert len(read_graph(data).nodes) == 1
    for end in range(len(data)):
        try:
            read_graph(data[:end])
        except CorruptProgramError:
            continue
