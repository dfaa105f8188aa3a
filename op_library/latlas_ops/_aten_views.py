"""How shapes and parts of tensors are translated, and attention, which is mostly these.

Reshaping and reordering make no steps of their own: they are remembered, and what reads them knows
the few forms that have a primitive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from latlas_ops._aten import Arguments, Handler, Translator, Value
from latlas_ops._trace import Scores, Tensor, Viewed

_SEQUENCE = 3
"""Number of axes, batch included."""


def _reshape(of: Translator, node: Any, given: Arguments) -> Value:
    return of.reshaped(of.value(node.args[0]), of.shape_of(node))


def _permuted(of: Translator, node: Any, order: list[int]) -> Value:
    value = of.value(node.args[0])
    if isinstance(value, Tensor):
        value = Viewed(value, value.shape, tuple(range(len(value.shape))))
    if not isinstance(value, Viewed):
        raise of.refuse("there is no primitive that reorders this")
    return _plain(Viewed(value.base, value.sizes, tuple(value.axes[axis] for axis in order)))


def _plain(view: Viewed) -> Tensor | Viewed:
    """The base itself where a view has come back to it."""
    return view.base if view.in_order and view.sizes == view.base.shape else view


def _transpose(of: Translator, node: Any, given: Arguments) -> Value:
    order = list(range(len(of.shape_of(node))))
    one, two = given["dim0"], given["dim1"]
    order[one], order[two] = order[two], order[one]
    return _permuted(of, node, order)


def _permute(of: Translator, node: Any, given: Arguments) -> Value:
    rank = len(of.shape_of(node))
    return _permuted(of, node, [axis % rank for axis in given["dims"]])


def _chunks(of: Translator, node: Any, given: Arguments) -> Value:
    """Parts of what a linear layer gives, each a linear layer of its own."""
    tensor = of.tensor(node.args[0])
    axis = given["dim"] % len(tensor.shape)
    sizes = [int(one.shape[axis]) for one in node.meta["val"]]
    if axis != len(tensor.shape) - 1:
        raise of.refuse("there is no primitive that splits another axis than the last")
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return tuple(
        of.slice_of_linear(tensor, end - size, end) for end, size in zip(ends, sizes, strict=True)
    )


def _selected(of: Translator, node: Any, dim: int, index: int) -> Value:
    """One of queries, keys and values that one linear layer gives together."""
    value = of.value(node.args[0])
    if not isinstance(value, Viewed):
        raise of.refuse("there is no primitive that picks a part of a tensor")
    axis = value.axes[dim % len(value.axes)]
    width = math.prod(value.sizes[axis + 1 :])
    if value.sizes[:axis] != value.base.shape[:-1]:
        raise of.refuse("there is no primitive that picks a part of another axis than the last")
    part = of.slice_of_linear(value.base, index * width, (index + 1) * width)
    sizes = (*value.sizes[:axis], *value.sizes[axis + 1 :])
    kept = [one for one in value.axes if one != axis]
    return _plain(Viewed(part, sizes, tuple(one - (one > axis) for one in kept)))


def _slice(of: Translator, node: Any, given: Arguments) -> Value:
    """Some of the tokens of a sequence."""
    shape = of.shape_of(node.args[0])
    axis = given["dim"] % len(shape)
    start, stop = given["start"] or 0, given["end"]
    start = max(start + shape[axis], 0) if start < 0 else start
    if of.shape_of(node) == shape:
        return of.value(node.args[0])
    if len(shape) != _SEQUENCE or axis != 1 or given["step"] != 1 or stop is None:
        raise of.refuse(f"there is no slice of axis {axis} of {shape}, only that of tokens")
    length = of.shape_of(node)[1]
    attributes = {"start": start, "length": length}
    return of.step("slice", (of.tensor(node.args[0]),), of.shape_of(node), attributes)


def _select(of: Translator, node: Any, given: Arguments) -> Value:
    value = of.value(node.args[0])
    if isinstance(value, Tensor) and len(value.shape) == _SEQUENCE and given["dim"] == 1:
        index = given["index"] % value.shape[1]
        shape = (value.shape[0], 1, value.shape[2])
        token = of.step("slice", (value,), shape, {"start": index, "length": 1})
        return of.step("token_mean", (token,), of.shape_of(node))
    size = of.shape_of(node.args[0])[given["dim"]]
    return _selected(of, node, given["dim"], given["index"] % size)


def _unbind(of: Translator, node: Any, given: Arguments) -> Value:
    size = of.shape_of(node.args[0])[given["dim"]]
    return tuple(_selected(of, node, given["dim"], index) for index in range(size))


# -- attention -------------------------------------------------------------------------------------


def _heads(of: Translator, value: Value, axes: tuple[int, ...]) -> Viewed:
    """A sequence `(n, length, width)` seen as heads, `(n, length, heads, width of a head)`."""
    if (
        not isinstance(value, Viewed)
        or len(value.base.shape) != _SEQUENCE
        or len(value.sizes) != 4
        or value.sizes[:2] != value.base.shape[:2]
        or value.axes != axes
    ):
        raise of.refuse("there is no product but that of queries, keys and values in heads")
    return value


def _attended(
    of: Translator, query: Viewed, key: Viewed, value: Viewed, causal: bool = False
) -> Value:
    """The result of attention, seen as heads."""
    sources = (query.base, key.base, value.base)
    attributes = {"heads": query.sizes[2], **({"causal": 1} if causal else {})}
    mixed = of.step("attention", sources, query.base.shape, attributes)
    return Viewed(mixed, query.sizes, (0, 2, 1, 3))


def _matmul(of: Translator, node: Any, given: Arguments) -> Value:
    """Queries by keys, or shares by values."""
    left, right = of.value(node.args[0]), of.value(node.args[1])
    if not isinstance(left, Scores):
        return Scores(_heads(of, left, (0, 2, 1, 3)), _heads(of, right, (0, 2, 3, 1)))
    if not left.shares or not math.isclose(left.scale, left.query.sizes[3] ** -0.5):
        raise of.refuse("there is no attention but softmax(q k / sqrt(width of a head)) v")
    return _attended(of, left.query, left.key, _heads(of, right, (0, 2, 1, 3)))


def _sdpa(of: Translator, node: Any, given: Arguments) -> Value:
    if given["attn_mask"] is not None or given["dropout_p"]:
        raise of.refuse("there is no attention with dropout or a mask but is_causal")
    query, key, value = (
        _heads(of, of.value(given[name]), (0, 2, 1, 3)) for name in ("query", "key", "value")
    )
    scale = given["scale"]
    if scale is not None and not math.isclose(scale, query.sizes[3] ** -0.5):
        raise of.refuse("there is no attention with another scale than 1 / sqrt(width of a head)")
    return _attended(of, query, key, value, given["is_causal"])


VIEW_HANDLERS: Mapping[str, Handler] = {
    f"aten::{name}": handler
    for names, handler in (
        ("flatten view reshape unsqueeze squeeze unflatten _unsafe_view", _reshape),
        ("transpose", _transpose),
        ("permute", _permute),
        ("chunk split split_with_sizes", _chunks),
        ("select", _select),
        ("slice", _slice),
        ("unbind", _unbind),
        ("matmul", _matmul),
        ("scaled_dot_product_attention", _sdpa),
    )
    for name in names.split()
}
"""By name of the operator."""
