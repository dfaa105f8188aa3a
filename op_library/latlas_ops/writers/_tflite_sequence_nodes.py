"""How TFLite writes what transformers are made of, and what moves tensors about.

Imports ai-edge-litert: load it by `tflite_writer`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from latlas_ops.graph import MASKED
from latlas_ops.writers._tflite_file import record
from latlas_ops.writers._tflite_plan import Step

if TYPE_CHECKING:
    from latlas_ops.writers._tflite_nodes import _Model

MASKING = "masked"
"""How the parts of an op are called that add the mask of causal attention and read the sum."""


def layer_norm(model: _Model, step: Step) -> None:
    """Mean and variance over the features, in the operators that converters write."""
    node = step.node
    (tensor,) = node.inputs
    whole = model.layout(node.shape)
    axis = model.integers("last_axis", -1)
    keeping = record(schema.ReducerOptionsT, keepDims=True)
    one_each = (*whole[:-1], 1)
    mean = model.add(step, "MEAN", (tensor, axis), keeping, part="mean", shape=one_each)
    centred = model.add(
        step, "SUB", (tensor, mean), record(schema.SubOptionsT), part="centred", shape=whole
    )
    squares = model.add(
        step, "MUL", (centred, centred), record(schema.MulOptionsT), part="squares", shape=whole
    )
    variance = model.add(step, "MEAN", (squares, axis), keeping, part="variance", shape=one_each)
    raised = model.add(
        step,
        "ADD",
        (
            variance,
            model.scalar("_".join(("epsilon", *map(str, node.attributes.values()))), node.epsilon),
        ),
        record(schema.AddOptionsT),
        part="raised",
        shape=one_each,
    )
    inverse = model.add(step, "RSQRT", (raised,), part="inverse", shape=one_each)
    weight, bias = model.parameters(node, model.weights(node)[0])
    scaled = model.add(
        step, "MUL", (centred, inverse), record(schema.MulOptionsT), part="normed", shape=whole
    )
    scaled = model.add(
        step, "MUL", (scaled, weight), record(schema.MulOptionsT), part="scaled", shape=whole
    )
    model.add(step, "ADD", (scaled, bias), record(schema.AddOptionsT))


def attention(model: _Model, step: Step) -> None:
    """Heads split, scored, mixed and merged."""
    node = step.node
    batch, length, width = model.layout(node.shape)
    heads, source = node.attributes["heads"], node.attributes["source_length"]
    each = width // heads
    order = model.integers("heads_first", 0, 2, 1, 3)

    def moved(tensor: str, part: str, shape: tuple[int, ...]) -> str:
        options = record(schema.TransposeOptionsT)
        return model.add(step, "TRANSPOSE", (tensor, order), options, part=part, shape=shape)

    def reshaped(tensor: str, part: str, *shape: int) -> str:
        wanted = model.integers("shape_" + "x".join(map(str, shape)), *shape)
        options = record(schema.ReshapeOptionsT, newShape=list(shape))
        return model.add(step, "RESHAPE", (tensor, wanted), options, part=part, shape=shape)

    def product(left: str, right: str, part: str, shape: tuple[int, ...], turned: bool) -> str:
        options = record(schema.BatchMatMulOptionsT, adjY=turned)
        return model.add(step, "BATCH_MATMUL", (left, right), options, part=part, shape=shape)

    split = []
    for name, tensor in zip(("query", "key", "value"), node.inputs, strict=True):
        tokens = length if name == "query" else source
        parts = reshaped(tensor, f"{name}_split", batch, tokens, heads, each)
        split.append(moved(parts, f"{name}_heads", (batch, heads, tokens, each)))
    query, key, value = split
    square = (batch, heads, length, source)
    scores = product(query, key, "scores", square, turned=True)
    scale = model.scalar(f"attention_scale_{each}", 1 / math.sqrt(each))
    scaled = model.add(
        step, "MUL", (scores, scale), record(schema.MulOptionsT), part="scaled", shape=square
    )
    to_shares = "shares"
    if "causal" in node.attributes:
        to_shares = f"{MASKING}_shares"
        mask = np.triu(np.full((length, source), MASKED, dtype=np.float32), 1)
        inputs = (scaled, model.file.constant(f"causal_mask_{length}", mask))
        scaled = model.add(
            step, "ADD", inputs, record(schema.AddOptionsT), part=MASKING, shape=square
        )
    softmax = record(schema.SoftmaxOptionsT, beta=1.0)
    shares = model.add(step, "SOFTMAX", (scaled,), softmax, part=to_shares, shape=square)
    mixed = product(shares, value, "mixed", (batch, heads, length, each), turned=False)
    merged = moved(mixed, "merged", (batch, length, heads, each))
    reshaped(merged, "", batch, length, width)


def shuffle(model: _Model, step: Step) -> None:
    """Groups split, exchanged with the channels in them, and merged, in four axes at most.

    More axes than that are beyond what delegates for GPUs take.
    """
    node = step.node
    batch, height, width, channels = whole = model.layout(node.shape)
    groups = node.attributes["groups"]
    split = (batch, height * width, groups, channels // groups)
    dealt = (*split[:2], split[3], split[2])

    def reshaped(tensor: str, part: str, shape: tuple[int, ...]) -> str:
        wanted = model.integers("shape_" + "x".join(map(str, shape)), *shape)
        options = record(schema.ReshapeOptionsT, newShape=list(shape))
        return model.add(step, "RESHAPE", (tensor, wanted), options, part=part, shape=shape)

    parts = reshaped(node.inputs[0], "split", split)
    order = model.integers("groups_last", 0, 1, 3, 2)
    options = record(schema.TransposeOptionsT)
    swapped = model.add(step, "TRANSPOSE", (parts, order), options, part="dealt", shape=dealt)
    reshaped(swapped, "", whole)


def sliced(model: _Model, step: Step) -> None:
    """Some tokens of a sequence and the first of their features."""
    start, shape = step.node.attributes["start"], model.layout(step.node.shape)
    begin = model.integers(f"slice_begin_{start}", 0, start, 0)
    size = model.integers("slice_size_" + "x".join(map(str, shape)), *shape)
    model.add(step, "SLICE", (*step.node.inputs, begin, size), record(schema.SliceOptionsT))
