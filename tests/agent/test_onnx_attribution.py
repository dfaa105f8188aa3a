from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from latlas_agent.runtimes.onnx_attribution import Anchor, Originals, anchor_nodes
from latlas_agent.runtimes.onnx_graph import OnnxGraph, OnnxNode, read_graph
from latlas_ops.graph import INPUT_TENSOR
from latlas_ops.lowering import lower
from latlas_ops.network import Network
from latlas_ops.writers.onnx_writer import write_onnx

LEVELS = {
    "disabled": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def graph(*nodes: tuple[str, str, list[str], list[str]]) -> OnnxGraph:
    """A graph of nodes (name, operator, inputs, outputs)."""
    return OnnxGraph(
        tuple(OnnxNode(name, op, tuple(ins), tuple(outs)) for name, op, ins, outs in nodes), False
    )


ORIGINAL = graph(
    ("conv", "Conv", ["x"], ["t1"]),
    ("act", "HardSwish", ["t1"], ["t2"]),
    ("pool", "GlobalAveragePool", ["t2"], ["t3"]),
)


def anchors(*nodes: tuple[str, str, list[str], list[str]]) -> list[tuple[str, str]]:
    found = anchor_nodes(Originals.of(ORIGINAL), graph(*nodes))
    return [(anchor.label, anchor.how) for anchor in found]


def test_a_node_belongs_to_the_tensor_that_it_computes() -> None:
    assert anchors(("", "FusedConv", ["x"], ["t2"])) == [("t2", "output")]


@pytest.mark.parametrize(
    "name", ["t1_nchwc", "t1_nchwc_token_7", "t1_token_3_nchwc", "conv_nchwc", "conv"]
)
def test_a_node_in_blocked_layout_belongs_to_what_it_is_named_after(name: str) -> None:
    assert anchors((name, "Conv", ["x"], ["reorder_token_3"])) == [("t1", "name")]


def test_a_node_that_was_put_in_belongs_to_its_consumer() -> None:
    assert anchors(
        ("", "HardSigmoid", ["t1"], ["inlined"]), ("", "Mul", ["t1", "inlined"], ["t2"])
    ) == [("t2", "consumer"), ("t2", "output")]


def test_the_nearest_consumer_counts() -> None:
    found = anchors(
        ("ReorderInput", "ReorderInput", ["x"], ["r1"]),
        ("", "Unknown", ["r1"], ["r2"]),
        ("t3_nchwc", "Conv", ["r2"], ["r3"]),
        ("t1_nchwc", "Conv", ["r1"], ["r4"]),
    )
    assert found[0] == ("t1", "consumer")
    assert found[1] == ("t3", "consumer")


def test_a_node_that_nobody_consumes_belongs_to_its_producer() -> None:
    assert anchors(
        ("t1_nchwc", "Conv", ["x"], ["r1"]), ("ReorderOutput", "ReorderOutput", ["r1"], ["odd"])
    ) == [("t1", "name"), ("t1", "producer")]


def test_a_node_without_any_relation_has_no_anchor() -> None:
    assert anchors(("n", "Shape", ["x"], ["s"])) == [("", "none")]


def test_a_name_that_two_nodes_share_says_nothing() -> None:
    original = graph(("twin", "Conv", ["x"], ["t1"]), ("twin", "Conv", ["t1"], ["t2"]))
    assert Originals.of(original).by_name("twin_nchwc") == ""


def test_a_tensor_comes_before_a_node_of_the_same_name() -> None:
    original = graph(("b", "Conv", ["x"], ["a"]), ("a", "Conv", ["a"], ["b"]))
    assert Originals.of(original).by_name("a_nchwc") == "a"


class ProfiledModel:
    """A model run once by onnxruntime, with the graph and the kernels of that very session."""

    def __init__(self, data: bytes, level: str, folder: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = LEVELS[level]
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "profile")
        options.optimized_model_filepath = str(folder / "optimised.onnx")
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        inputs = {i.name: np.zeros(i.shape, dtype=np.float32) for i in session.get_inputs()}
        session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
        self.kernels = [e for e in events if e["name"].endswith("_kernel_time")]
        optimised = read_graph((folder / "optimised.onnx").read_bytes())
        self.nodes = optimised.nodes
        self.anchors: tuple[Anchor, ...] = anchor_nodes(Originals.of(read_graph(data)), optimised)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("space", ["digits", "ofa-mobilenetv3"])
def test_every_node_of_the_spaces_is_anchored_and_no_op_stays_without(
    networks: Callable[..., list[Network]], tmp_path: Path, space: str, level: str
) -> None:
    for network in networks(space, 2):
        program = write_onnx(network)
        profiled = ProfiledModel(program.model_bytes, level, tmp_path)
        positions = Counter(program.tensor_positions[anchor.label] for anchor in profiled.anchors)
        assert set(positions) == set(range(len(network.ops)))


@pytest.mark.parametrize("level", LEVELS)
def test_a_kernel_gives_a_tensor_of_the_shape_that_its_anchor_has(
    networks: Callable[..., list[Network]], tmp_path: Path, level: str
) -> None:
    """Independent of names: blocked layouts round channels up to a multiple of at most 16."""
    for network in networks("digits", 3):
        lowered = lower(network)
        shapes = {node.output: node.shape for node in lowered.nodes}
        shapes[INPUT_TENSOR] = lowered.input_shape
        profiled = ProfiledModel(write_onnx(network).model_bytes, level, tmp_path)
        assert len(profiled.kernels) == len(profiled.nodes)
        for kernel, node, anchor in zip(
            profiled.kernels, profiled.nodes, profiled.anchors, strict=True
        ):
            assert kernel["args"]["op_name"] == node.op_type
            if anchor.how not in ("output", "name"):
                continue
            (dimensions,) = kernel["args"]["output_type_shape"][0].values()
            channels, *sides = shapes[anchor.label]
            assert dimensions[2:] == sides, node
            assert channels <= dimensions[1] <= math.ceil(channels / 16) * 16, node


def test_names_are_not_needed(networks: Callable[..., list[Network]], tmp_path: Path) -> None:
    (network,) = networks("digits", 1)
    program = write_onnx(network)
    model = onnx.load_from_string(program.model_bytes)
    for node in model.graph.node:
        node.name = ""
    for level in LEVELS:
        profiled = ProfiledModel(model.SerializeToString(), level, tmp_path)
        positions = {program.tensor_positions[anchor.label] for anchor in profiled.anchors}
        assert positions == set(range(len(network.ops)))
