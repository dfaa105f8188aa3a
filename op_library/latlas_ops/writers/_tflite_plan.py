"""What a TFLite model makes of a primitive graph, decided before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from latlas_ops.graph import INPUT_TENSOR, Graph, Node
from latlas_ops.opspec import Shape

_FUSING = frozenset({"conv", "linear", "add", "mul", "max_pool", "avg_pool"})
_FUSED = frozenset({"relu", "relu6"})


@dataclass(frozen=True)
class Step:
    """A node with the activation that was fused into it.

    Attributes:
        node: the node; what is written for it belongs to the node's position.
        activation: `none`, `relu` or `relu6`.
        output: the tensor it writes, which is that of the activation where there is one.
    """

    node: Node
    activation: str
    output: str


def fuse_activations(graph: Graph) -> tuple[Step, ...]:
    """The nodes of a graph in execution order, less the activations that nodes before them do.

    An activation is fused where it is the only reader of a node that can do it, as converters do.
    """
    reads = Counter(tensor for node in graph.nodes for tensor in node.inputs)
    producers = {node.output: node for node in graph.nodes}
    fused: dict[str, Node] = {}
    for node in graph.nodes:
        producer = producers.get(node.inputs[0])
        if (
            node.primitive in _FUSED
            and producer is not None
            and producer.primitive in _FUSING
            and reads[producer.output] == 1
        ):
            fused[producer.name] = node
    gone = {node.name for node in fused.values()}
    return tuple(
        Step(node, fused[node.name].primitive, fused[node.name].output)
        if node.name in fused
        else Step(node, "none", node.output)
        for node in graph.nodes
        if node.name not in gone
    )


def tensor_shapes(graph: Graph) -> dict[str, Shape]:
    """Shape of every tensor without the batch axis, channels first."""
    return {INPUT_TENSOR: graph.input_shape, **{node.output: node.shape for node in graph.nodes}}


def reordered_features(graph: Graph, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """Flattened images whose features may keep TFLite's order: tensor → shape `(c, h, w)`.

    A flattened NHWC image has its features in another order than a flattened NCHW one. Where only
    linear layers read them, their weights are written in that order and nothing moves at run time.
    """
    flattened = {
        node.output: shapes[node.inputs[0]] for node in graph.nodes if node.primitive == "flatten"
    }
    readers: dict[str, set[str]] = {tensor: set() for tensor in flattened}
    for node in graph.nodes:
        for tensor in flattened.keys() & set(node.inputs):
            readers[tensor].add(node.primitive)
    return {
        tensor: shape
        for tensor, shape in flattened.items()
        if order_matters(shape) and readers[tensor] == {"linear"}
    }


def order_matters(shape: Shape) -> bool:
    """Whether flattening an image `(c, h, w)` gives another order in NHWC than in NCHW."""
    channels, height, width = shape
    return channels > 1 and height * width > 1


def padding_scheme(node: Node, lengths: tuple[int, ...]) -> str:
    """How a window of a node is padded as torch pads it: `valid`, `same` or `explicit`.

    TFLite's SAME puts the odd pixel of padding behind the image, where torch pads both sides alike:
    at stride 2 the two differ for images of even size.

    Args:
        node: a convolution or pooling.
        lengths: height and width of its input.
    """
    padding, stride = node.attributes["padding"], node.attributes["stride"]
    if padding == 0:
        return "valid"
    reach = node.attributes.get("dilation", 1) * (node.attributes["kernel"] - 1) + 1
    for length, size in zip(lengths, node.shape[1:], strict=True):
        missing = max((size - 1) * stride + reach - length, 0)
        if size != -(-length // stride) or missing // 2 != padding:
            return "explicit"
    return "same"
