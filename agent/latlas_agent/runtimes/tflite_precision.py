"""In which precision a TFLite program computes, as the types of its tensors tell."""

from __future__ import annotations

import struct
from collections import Counter
from typing import Literal

from latlas_agent.runtimes.tflite_graph import read_tables
from latlas_latency.measurement import Target
from latlas_ops.errors import InvalidInputError, RuntimeUnavailableError

Computation = Literal["float", "integer", "dynamic"]
"""Float; integers throughout; or float activations, rounded as they come, on integer weights."""

_I8, _I32, _U32 = (struct.Struct(code) for code in ("<b", "<i", "<I"))
_FLOATS = frozenset({0, 1})  # float32, float16
_NARROW = frozenset({3, 7, 9, 17})  # uint8, int16, int8, int4
_HEAVY = frozenset({3, 4, 9, 126})  # convolution, depthwise, fully connected, batched product
_DYNAMIC_IS_WRONG = frozenset({"tflite-runtime"})
"""Measured with 2.14, its last release: outputs are off by 20 to 90 %, with LiteRT by 3 %."""


def computations(model: bytes) -> Counter[Computation]:
    """How the convolutions and matrix products of a model compute; its main graph alone.

    Args:
        model: one that `check_tflite` has passed.
    """
    root = read_tables(model)
    codes = [max(code.number(0, _I8), code.number(3, _I32)) for code in root.tables(1)]
    found: Counter[Computation] = Counter()
    for graph in root.tables(2):
        types = [tensor.number(1, _I8) for tensor in graph.tables(0)]
        for operator in graph.tables(3):
            inputs = operator.integers(1)
            if codes[operator.number(0, _U32)] in _HEAVY and len(inputs) > 1:
                found[_computation(types[inputs[0]], types[inputs[1]])] += 1
        break
    return found


def _computation(activations: int, weights: int) -> Computation:
    if activations in _NARROW:
        return "integer"
    return "dynamic" if activations in _FLOATS and weights in _NARROW else "float"


def require_computed_right(model: bytes, target: Target) -> None:
    """Refuses a program that the target's runtime computes wrongly or in another precision.

    Raises:
        InvalidInputError: the target is in int8, and the program computes in float alone.
        RuntimeUnavailableError: the runtime is known to compute such a program wrongly.
    """
    found = computations(model)
    if found["dynamic"] and target.runtime in _DYNAMIC_IS_WRONG:
        raise RuntimeUnavailableError(
            f"{target.runtime} computes dynamic-range int8 wrongly and without a word, and "
            f"{found['dynamic']} nodes of the program are that (float activations, integer "
            "weights): quantise the activations as well, or measure it with litert"
        )
    if target.precision == "int8" and found["float"] and not found["integer"] + found["dynamic"]:
        raise InvalidInputError(
            f"target {target.name!r} is in int8, but no node of the program is quantised: quantise "
            "it first (`latlas quantise`), or measure it on a target in fp32"
        )
