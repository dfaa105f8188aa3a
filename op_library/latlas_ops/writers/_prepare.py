"""What every model writer does first: lower the network and settle its weights."""

from __future__ import annotations

import numpy as np

from latlas_ops.errors import InvalidInputError
from latlas_ops.graph import Graph
from latlas_ops.lowering import lower
from latlas_ops.network import Network
from latlas_ops.weights import Weights, check_weights, random_weights


def prepare(
    network: Network, weights: Weights | None, seed: int, batch: int = 1
) -> tuple[Graph, Weights]:
    """The primitive graph of a network and weights that fit it, random ones where None are given.

    Raises:
        InvalidInputError: an op is not float32, the weights do not fit, `batch` is not positive.
    """
    if batch < 1:
        raise InvalidInputError(f"batch must be at least 1, not {batch}")
    for position, op in enumerate(network.ops):
        if op.dtype != "float32":
            raise InvalidInputError(
                f"op {position} ({op.kind}) is {op.dtype}: models are written in float32"
            )
    graph = lower(network)
    if weights is None:
        return graph, random_weights(graph, np.random.default_rng(seed))
    check_weights(graph, weights)
    return graph, weights
