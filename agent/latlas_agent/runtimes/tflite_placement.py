"""Which nodes of a TFLite graph a delegate left to the plain kernels. Pure.

An interpreter that hands nodes to a delegate keeps them in its list, appends one node per piece
that was handed over, and executes those instead. The list does not say which nodes a piece stands
for, but its tensors do: everything between the inputs and the outputs of the piece.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class TfliteNode:
    """A node as the interpreter lists it: operator and indices of its tensors."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def left_over(
    own: Sequence[TfliteNode], pieces: Sequence[TfliteNode], results: Collection[int]
) -> tuple[TfliteNode, ...]:
    """The model's nodes that no piece stands for, in order.

    A node whose outputs nobody reads cannot be told from one that was handed over, and is passed
    over.

    Args:
        own: the nodes of the model.
        pieces: the nodes that delegates appended.
        results: tensors that the model returns.
    """
    producer = {tensor: index for index, node in enumerate(own) for tensor in node.outputs}
    taken: set[int] = set()
    for piece in pieces:
        inputs = set(piece.inputs)
        wanted = list(piece.outputs)
        while wanted:
            tensor = wanted.pop()
            index = producer.get(tensor)
            if tensor in inputs or index is None or index in taken:
                continue
            taken.add(index)
            wanted.extend(own[index].inputs)
    read = {tensor for node in own for tensor in node.inputs} | set(results)
    return tuple(
        node
        for index, node in enumerate(own)
        if index not in taken and not read.isdisjoint(node.outputs)
    )
