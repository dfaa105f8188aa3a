"""The one network walk: ops and wiring in, primitive graph out."""

from __future__ import annotations

from latlas_ops.graph import INPUT_TENSOR, Graph, GraphBuilder
from latlas_ops.kinds import KINDS
from latlas_ops.network import NETWORK_INPUT, Network


def lower(network: Network) -> Graph:
    """The primitive graph of a network; every node knows the position of its op.

    Raises:
        InvalidInputError: an op's attributes do not fit its input shape.
    """
    builder = GraphBuilder(shapes={INPUT_TENSOR: network.input_shape})
    outputs: list[str] = []
    for position, (op, sources) in enumerate(zip(network.ops, network.wiring, strict=True)):
        builder.begin(position, op.digest)
        tensors = [
            INPUT_TENSOR if source == NETWORK_INPUT else outputs[source] for source in sources
        ]
        outputs.append(KINDS[op.kind].lower(op, builder, tensors))
    return builder.finish()
