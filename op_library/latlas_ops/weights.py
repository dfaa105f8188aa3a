"""Weights of a primitive graph: what they must look like, and random ones that behave well."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from latlas_ops.errors import InvalidInputError
from latlas_ops.graph import INPUT_TENSOR, Graph, Node

Weights = Mapping[str, NDArray[np.float32]]
"""Parameter name → float32 array of the parameter's shape."""

_BIAS_STD = 0.1
_NORM_STD = 0.1

_BLOCK = 4093
"""Random numbers that all weights are made of. Prime, so that the filters of a layer begin at
different places of the block and do not resemble each other; and 16 KB, so that the window of a
compressor (32 KB) sees the repetition."""

_ACTIVATION_GAINS: Mapping[str, float] = {
    "relu": 0.5,
    "relu6": 0.5,
    "hswish": 0.3316,
    "hsigmoid": 0.2776,
    "gelu": 0.4252,
    "sigmoid": 0.2934,
    "silu": 0.3558,
    "tanh": 0.3943,
}
"""Second moment of an activation's output where its input is standard normal."""


def random_weights(graph: Graph, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Random weights that keep the scale of the signal through any depth.

    Every convolution and linear layer answers with unit variance to an input that is itself of
    unit variance (and to zeros with its bias): He et al. (ICCV 2015, section 2.2), with the second
    moment of each tensor followed through activations, gates and sums instead of the constant 2 of
    plain ReLU networks. Biases are small and not zero, so that no tensor is trivially zero; the
    scales of a layer norm are near 1.

    All weights repeat one block of random numbers, each tensor from a place of its own. What a
    network takes does not depend on their values, but a network of 30 MB then travels to a board,
    and lies in a database, in half a megabyte.

    Args:
        graph: the primitive graph.
        rng: the source of randomness; equal generators give equal weights.

    Returns:
        One float32 array per parameter of the graph, in execution order.
    """
    moments = {INPUT_TENSOR: 1.0}
    channels = {INPUT_TENSOR: graph.input_shape[0]}
    block = rng.standard_normal(_BLOCK, dtype=np.float32)
    weights: dict[str, NDArray[np.float32]] = {}
    for node in graph.nodes:
        inputs = [moments[tensor] for tensor in node.inputs]
        if node.parameters:
            weight, bias = node.parameters
            fan_in = math.prod(weight.shape[1:])
            scale = np.float32(1.0 / math.sqrt(fan_in * (inputs[0] or 1.0)))
            rolled = np.roll(block, -int(rng.integers(_BLOCK)))
            drawn = np.resize(rolled, weight.shape)
            if node.primitive == "layer_norm":
                weights[weight.name] = 1 + drawn * np.float32(_NORM_STD)
            else:
                weights[weight.name] = drawn * scale
            weights[bias.name] = rng.standard_normal(bias.shape, dtype=np.float32) * np.float32(
                _BIAS_STD
            )
        channels[node.output] = node.shape[0]
        moments[node.output] = _second_moment(node, inputs, [channels[t] for t in node.inputs])
    return weights


def _second_moment(node: Node, inputs: list[float], channels: list[int]) -> float:
    """Estimated mean square of a node's output from those of its inputs, with their channels.

    Pooling and attention are taken to keep it; averaging really shrinks it somewhat, the same in
    every network.
    """
    if node.parameters:
        return 1.0 + _BIAS_STD**2
    if node.primitive in _ACTIVATION_GAINS:
        return inputs[0] * _ACTIVATION_GAINS[node.primitive]
    if node.primitive == "add":
        return sum(inputs)
    if node.primitive == "concat":
        return sum(m * c for m, c in zip(inputs, channels, strict=True)) / sum(channels)
    if node.primitive == "zero":
        return 0.0
    if node.primitive == "attention":
        return inputs[-1]  # the values'
    return math.prod(inputs)


def check_weights(graph: Graph, weights: Weights) -> None:
    """Checks that `weights` holds exactly the parameters of `graph`.

    Raises:
        InvalidInputError: a tensor is missing, surplus, mis-shaped or not float32; it is named.
    """
    shapes = {parameter.name: parameter.shape for parameter in graph.parameters()}
    for name, shape in shapes.items():
        if name not in weights:
            raise InvalidInputError(f"weight {name!r} of shape {shape} is missing")
        if weights[name].shape != shape:
            raise InvalidInputError(
                f"weight {name!r} has shape {weights[name].shape}, the network needs {shape}"
            )
        if weights[name].dtype != np.float32:
            raise InvalidInputError(
                f"weight {name!r} is {weights[name].dtype}, the network needs float32"
            )
    surplus = sorted(set(weights) - set(shapes))
    if surplus:
        raise InvalidInputError(f"weight {surplus[0]!r} belongs to no op of the network")
