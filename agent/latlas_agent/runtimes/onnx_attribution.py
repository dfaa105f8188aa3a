"""Which tensor of a program each node of onnxruntime's optimised graph belongs to.

onnxruntime runs another graph than the one in the file: activations are fused into convolutions,
function operators are spelled out, layout conversions are put in. Each of its nodes is anchored
to a tensor of the original model, in this order:

1. *output*: an output of the node is a tensor of the original model;
2. *name*: the node is named after one. The NCHWc transformer, which runs at level `all`, gives
   every tensor a name of its own and calls the node that computes `x` in blocked layout `x_nchwc`;
3. *consumer*: the nearest node downstream that has an anchor (layout conversions, first parts of
   a function);
4. *producer*: the nearest upstream.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from latlas_agent.runtimes.onnx_graph import OnnxGraph, OnnxNode

_GIVEN_SUFFIXES = re.compile(r"(_token_\d+)?(_nchwc)?(_token_\d+)?$")

How = Literal["output", "name", "consumer", "producer", "none"]


@dataclass(frozen=True)
class Anchor:
    """The original tensor that a node belongs to, empty if none, and how it was found."""

    label: str
    how: How


_NOWHERE = Anchor("", "none")


@dataclass(frozen=True)
class Originals:
    """What the original model calls things: its computed tensors, and its nodes' first ones."""

    tensors: frozenset[str]
    tensor_of_node: Mapping[str, str]

    @classmethod
    def of(cls, original: OnnxGraph) -> Originals:
        """The names in a model; names that two nodes share say nothing and are left out."""
        named: dict[str, str] = {}
        shared: set[str] = set()
        for node in original.nodes:
            if node.name in named:
                shared.add(node.name)
            if node.name and node.outputs:
                named[node.name] = node.outputs[0]
        return cls(
            tensors=frozenset(
                tensor for node in original.nodes for tensor in node.outputs if tensor
            ),
            tensor_of_node={
                name: tensor for name, tensor in named.items() if name not in shared and tensor
            },
        )

    def by_name(self, node_name: str) -> str:
        """The tensor that the optimiser named a node after; empty if none."""
        base = _GIVEN_SUFFIXES.sub("", node_name)
        for name in (node_name, base):
            if name in self.tensors:
                return name
        for name in (node_name, base):
            if name in self.tensor_of_node:
                return self.tensor_of_node[name]
        return ""


def anchor_nodes(originals: Originals, optimised: OnnxGraph) -> tuple[Anchor, ...]:
    """One anchor per node of the optimised graph, in its order.

    Args:
        originals: names in the model as it was given.
        optimised: the graph that the runtime made of it.
    """
    nodes = optimised.nodes
    anchors = [_direct(originals, node) for node in nodes]
    producer_of = {
        tensor: index for index, node in enumerate(nodes) for tensor in node.outputs if tensor
    }
    producers = [
        tuple(producer_of[tensor] for tensor in node.inputs if tensor in producer_of)
        for node in nodes
    ]
    consumers: list[list[int]] = [[] for _ in nodes]
    for index, sources in enumerate(producers):
        for source in sources:
            consumers[source].append(index)
    _spread(anchors, consumers, reversed_order=True, how="consumer")
    _spread(anchors, producers, reversed_order=False, how="producer")
    return tuple(anchors)


def _direct(originals: Originals, node: OnnxNode) -> Anchor:
    for tensor in node.outputs:
        if tensor in originals.tensors:
            return Anchor(tensor, "output")
    label = originals.by_name(node.name)
    return Anchor(label, "name") if label else _NOWHERE


def _spread(
    anchors: list[Anchor], neighbours: Sequence[Sequence[int]], *, reversed_order: bool, how: How
) -> None:
    """Gives nodes without an anchor that of the nearest neighbour; changes `anchors` in place.

    Nodes are in topological order, so one pass sees every neighbour before it is needed.
    """
    distance = [0 if anchor.label else None for anchor in anchors]
    order = range(len(anchors))
    for index in reversed(order) if reversed_order else order:
        if anchors[index].label:
            continue
        reachable = [
            (steps, neighbour)
            for neighbour in neighbours[index]
            if (steps := distance[neighbour]) is not None
        ]
        if reachable:
            steps, nearest = min(reachable)
            anchors[index] = Anchor(anchors[nearest].label, how)
            distance[index] = steps + 1
