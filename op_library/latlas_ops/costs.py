"""What ops, networks and architectures cost on paper: MACs, parameters, memory.

Counted on the primitive graph, so that costs speak of the same nodes that the model writers write.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from latlas_ops.graph import ACTIVATIONS, INPUT_TENSOR, Node, tensor_releases
from latlas_ops.kinds import op_input_names, op_nodes
from latlas_ops.lowering import lower
from latlas_ops.network import NETWORK_INPUT, Network
from latlas_ops.opspec import OpSpec
from latlas_ops.space import ArchBatch, SearchSpace

_ITEM_BYTES = {"float32": 4, "float16": 2, "int8": 1}
_INT8_BIAS_BYTES = 4
_IN_PLACE = (*ACTIVATIONS[1:], "add", "mul", "flatten", "unflatten", "zero")


@dataclass(frozen=True)
class Cost:
    """Cost of one op or network at batch 1.

    Attributes:
        macs: multiply-accumulates of convolutions, linear layers and attention; other nodes count
            nothing.
        parameters: number of weights, biases included, batch norm folded.
        weight_bytes: their size in the ops' dtypes; biases of int8 ops are stored as int32.
        activation_bytes: peak size of the tensors that are alive at one time. A tensor lives from
            the node that writes it (the input: from the start) to the last node that reads it.
            An element-wise node writes over an input that dies there, as runtimes do. What a node
            needs while it computes, such as the scores of attention, is not counted.
    """

    macs: int
    parameters: int
    weight_bytes: int
    activation_bytes: int


@dataclass(frozen=True, eq=False)
class BatchCosts:
    """Costs of `n_archs` architectures, every array `(n_archs,)` int64; fields as in `Cost`.

    Attributes:
        macs: see `Cost.macs`.
        parameters: see `Cost.parameters`.
        weight_bytes: see `Cost.weight_bytes`.
    """

    macs: NDArray[np.int64]
    parameters: NDArray[np.int64]
    weight_bytes: NDArray[np.int64]


def op_cost(op: OpSpec) -> Cost:
    """Cost of one op or block on its own, each of its inputs a tensor of its own."""
    item = _ITEM_BYTES[op.dtype]
    inputs = {
        name: math.prod(shape) * item
        for name, shape in zip(op_input_names(op), op.inputs, strict=True)
    }
    return _cost(op_nodes(op), [op.dtype], inputs)


def network_cost(network: Network) -> Cost:
    """Cost of a network; its activations are those of the whole, not the sum over ops."""
    graph = lower(network)
    first_reader = next(
        op
        for op, sources in zip(network.ops, network.wiring, strict=True)
        if NETWORK_INPUT in sources
    )
    inputs = {INPUT_TENSOR: math.prod(graph.input_shape) * _ITEM_BYTES[first_reader.dtype]}
    return _cost(graph.nodes, [op.dtype for op in network.ops], inputs)


def space_costs(batch: ArchBatch) -> BatchCosts:
    """Costs of many architectures of one space, gathered from the costs of its ops.

    Equal to `network_cost` of every architecture.
    """
    entries = batch.space.entry_indices(batch)
    costs = _entry_costs(batch.space)
    macs, parameters, weight_bytes = (costs[:, i][entries].sum(axis=1) for i in range(3))
    return BatchCosts(macs, parameters, weight_bytes)


@lru_cache(maxsize=16)
def _entry_costs(space: SearchSpace) -> NDArray[np.int64]:
    """Macs, parameters and weight bytes per distinct op, `(n_entries + 1, 3)`.

    Row `INACTIVE` is an empty slot.
    """
    costs = [op_cost(op) for op in space.slot_entries.ops]
    rows = [(cost.macs, cost.parameters, cost.weight_bytes) for cost in costs]
    return np.array([*rows, (0, 0, 0)], dtype=np.int64)


def _cost(nodes: Sequence[Node], dtypes: Sequence[str], input_bytes: Mapping[str, int]) -> Cost:
    """Cost of nodes, given the dtype of the op at each position and the tensors they start from."""
    return Cost(
        macs=sum(_macs(node) for node in nodes),
        parameters=sum(math.prod(one.shape) for node in nodes for one in node.parameters),
        weight_bytes=sum(_weight_bytes(node, dtypes[node.position]) for node in nodes),
        activation_bytes=_peak_activation_bytes(nodes, dtypes, input_bytes),
    )


def _macs(node: Node) -> int:
    if node.primitive == "conv":
        return math.prod(node.parameters[0].shape) * math.prod(node.shape[1:])
    if node.primitive == "linear":
        return math.prod(node.parameters[0].shape) * math.prod(node.shape[:-1])
    if node.primitive == "attention":
        return 2 * math.prod(node.shape) * node.attributes["source_length"]
    return 0


def _weight_bytes(node: Node, dtype: str) -> int:
    if not node.parameters:
        return 0
    weight, bias = (math.prod(parameter.shape) for parameter in node.parameters)
    item = _ITEM_BYTES[dtype]
    return weight * item + bias * (_INT8_BIAS_BYTES if dtype == "int8" else item)


def _peak_activation_bytes(
    nodes: Sequence[Node], dtypes: Sequence[str], input_bytes: Mapping[str, int]
) -> int:
    size = dict(input_bytes)
    alive = peak = sum(size.values())
    for node, dying in zip(nodes, tensor_releases(nodes), strict=True):
        item = _ITEM_BYTES[dtypes[node.position]]
        size[node.output] = written = math.prod(node.shape) * item
        reused = node.primitive in _IN_PLACE and any(
            tensor in dying and size[tensor] == written for tensor in node.inputs
        )
        alive += written
        peak = max(peak, alive - written if reused else alive)
        alive -= sum(size[tensor] for tensor in dying)
    return peak
