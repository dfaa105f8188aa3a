"""What primitive each operator of an exported torch graph is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from latlas_ops._aten import Arguments, Handler, Translator, Value
from latlas_ops._aten_views import VIEW_HANDLERS
from latlas_ops._trace import BatchNorm, Scores, Tensor, Viewed, conv_or_linear, layer_norm
from latlas_ops.graph import EPSILON, EPSILON_UNIT

_IMAGE, _SEQUENCE, _VECTOR = 4, 3, 2
"""Numbers of axes, batch included."""


def _same(of: Translator, node: Any, given: Arguments) -> Value:
    return of.value(node.args[0])


def _dropout(of: Translator, node: Any, given: Arguments) -> Value:
    if given["train"]:
        raise of.refuse("it drops at random in evaluation, too")
    return of.value(given["input"])


def _activation(kind: str) -> Handler:
    def handle(of: Translator, node: Any, given: Arguments) -> Value:
        tensor = of.tensor(node.args[0])
        return of.step(kind, (tensor,), tensor.shape)

    return handle


def _clamp(of: Translator, node: Any, given: Arguments) -> Value:
    """Between 0 and 6, or from 0 on."""
    low = given.get("min", given.get("min_val"))
    high = given.get("max", given.get("max_val"))
    kinds = {(0, 6): "relu6", (0, None): "relu"}
    if (low, high) not in kinds:
        raise of.refuse(f"there is no primitive that limits to {low} and {high}, only to 0 and 6")
    tensor = of.tensor(node.args[0])
    return of.step(kinds[low, high], (tensor,), tensor.shape)


def _gelu(of: Translator, node: Any, given: Arguments) -> Value:
    if given["approximate"] != "none":
        raise of.refuse("there is no primitive for its approximation by tanh, only for the exact")
    return _activation("gelu")(of, node, given)


def _square(of: Translator, what: str, value: Any) -> int:
    """One number for both axes of an image."""
    sizes = list(value) if isinstance(value, list | tuple) else [value]
    if len(set(sizes)) != 1:
        raise of.refuse(f"there is no primitive with a {what} of {sizes}, only of equal sides")
    return int(sizes[0])


def _conv2d(of: Translator, node: Any, given: Arguments) -> Value:
    tensor = of.tensor(given["input"])
    weight = given["weight"]
    out_channels, _, *kernel = of.shape_of(weight)
    if len(kernel) != 2 or given.get("transposed"):
        raise of.refuse("there is no primitive for convolutions but those of images")
    name, bias = of.weight(weight), of.weight(given["bias"])
    assert name is not None
    side = _square(of, "kernel", kernel)
    stride = _square(of, "stride", given["stride"])
    dilation = _square(of, "dilation", given["dilation"])
    padding = given["padding"]
    if isinstance(padding, str):
        if padding == "same" and side % 2 == 0:
            raise of.refuse("there is no primitive that pads an even kernel to the same size")
        padding = dilation * (side // 2) if padding == "same" else 0
    attributes = {
        "out_channels": out_channels,
        "kernel": side,
        "stride": stride,
        "padding": _square(of, "padding", padding),
        "groups": int(given["groups"]),
        "dilation": dilation,
    }
    recipe = conv_or_linear(name, bias)
    return of.step("conv", (tensor,), of.shape_of(node), attributes, recipe)


def _linear(of: Translator, node: Any, given: Arguments) -> Value:
    tensor = of.tensor(given["input"])
    if len(tensor.shape) not in (_VECTOR, _SEQUENCE):
        raise of.refuse(f"there is no linear layer for a tensor {tensor.shape}")
    name, bias = of.weight(given["weight"]), of.weight(given["bias"])
    assert name is not None
    return of.linear(tensor, name, bias, of.shape_of(given["weight"])[0])


def _batch_norm(of: Translator, node: Any, given: Arguments) -> Value:
    mean, variance = given["running_mean"], given["running_var"]
    if given.get("training") or mean is None:
        raise of.refuse("it keeps no statistics, so that it cannot be folded away")
    tensor = of.tensor(given["input"])
    mean_name, variance_name = of.weight(mean), of.weight(variance)
    assert mean_name is not None
    assert variance_name is not None
    norm = BatchNorm(
        channels=tensor.shape[1],
        weight=of.weight(given["weight"]),
        bias=of.weight(given["bias"]),
        mean=mean_name,
        variance=variance_name,
        epsilon=given["eps"],
    )
    step, recipe = of.step_of(tensor) or (None, None)
    foldable = step is not None and (
        step.primitive == "conv" or (step.primitive == "linear" and len(tensor.shape) == _VECTOR)
    )
    if foldable and step is not None and recipe is not None and of.reads_alone(tensor):
        sources = [Tensor(ref, ()) for ref in step.sources]
        return of.step(step.primitive, sources, tensor.shape, step.attributes, norm.folded(recipe))
    if len(tensor.shape) != _IMAGE:
        raise of.refuse("there is no batch norm but that of an image or after a linear layer")
    channels = tensor.shape[1]
    attributes = {"out_channels": channels, "kernel": 1, "padding": 0, "groups": channels}
    return of.step("conv", (tensor,), tensor.shape, attributes, norm.alone())


def _layer_norm(of: Translator, node: Any, given: Arguments) -> Value:
    tensor = of.tensor(given["input"])
    if len(tensor.shape) != _SEQUENCE or len(given["normalized_shape"]) != 1:
        raise of.refuse("there is no layer norm but that of the tokens of a sequence")
    recipe = layer_norm(tensor.shape[-1], of.weight(given["weight"]), of.weight(given["bias"]))
    epsilon = round(given["eps"] / EPSILON_UNIT)
    if epsilon < 1:
        raise of.refuse(f"there is no layer norm with an epsilon of {given['eps']}")
    attributes = {} if given["eps"] == EPSILON else {"epsilon": epsilon}
    return of.step("layer_norm", (tensor,), tensor.shape, attributes, recipe)


def _before_softmax(of: Translator, scores: Scores) -> Scores:
    """Scores of attention that no softmax has turned into shares yet."""
    if scores.shares:
        raise of.refuse("there is no primitive that changes the shares of attention")
    return scores


def _softmax(of: Translator, node: Any, given: Arguments) -> Value:
    value = of.value(node.args[0])
    rank = len(of.shape_of(node))
    if given["dim"] not in (-1, rank - 1):
        raise of.refuse("there is no softmax but that over the last axis")
    if isinstance(value, Scores):
        return replace(_before_softmax(of, value), shares=True)
    tensor = of.tensor(node.args[0])
    if len(tensor.shape) not in (_VECTOR, _SEQUENCE):
        raise of.refuse(f"there is no softmax of a tensor {tensor.shape}")
    return of.step("softmax", (tensor,), tensor.shape)


# -- pooling ---------------------------------------------------------------------------------------


def _window(of: Translator, node: Any, given: Arguments, primitive: str) -> Value:
    tensor = of.tensor(node.args[0])
    kernel = _square(of, "kernel", given["kernel_size"])
    stride = _square(of, "stride", given["stride"]) if given["stride"] else kernel
    padding = _square(of, "padding", given["padding"])
    if _square(of, "dilation", given.get("dilation", 1)) != 1:
        raise of.refuse("there is no dilated pooling")
    shape = of.shape_of(node)
    size = tuple((length + 2 * padding - kernel) // stride + 1 for length in tensor.shape[2:])
    if shape[2:] != size:
        raise of.refuse("there is no pooling that rounds up (ceil_mode)")
    attributes = {"kernel": kernel, "stride": stride, "padding": padding}
    return of.step(primitive, (tensor,), shape, attributes)


def _max_pool2d(of: Translator, node: Any, given: Arguments) -> Value:
    return _window(of, node, given, "max_pool")


def _avg_pool2d(of: Translator, node: Any, given: Arguments) -> Value:
    padded = _square(of, "padding", given["padding"]) > 0
    if (padded and given["count_include_pad"]) or given["divisor_override"] is not None:
        raise of.refuse("there is no mean that counts the padding (count_include_pad=False has)")
    return _window(of, node, given, "avg_pool")


def _adaptive_avg_pool2d(of: Translator, node: Any, given: Arguments) -> Value:
    tensor = of.tensor(node.args[0])
    *_, height, width = tensor.shape
    rows, columns = of.shape_of(node)[2:]
    if (rows, columns) == (1, 1):
        return of.step("global_avg_pool", (tensor,), of.shape_of(node))
    if (rows, columns) == (height, width):
        return tensor
    if height % rows or width % columns or height // rows != width // columns:
        raise of.refuse(f"there is no pooling of {height}x{width} to {rows}x{columns}")
    kernel = height // rows
    attributes = {"kernel": kernel, "stride": kernel, "padding": 0}
    return of.step("avg_pool", (tensor,), of.shape_of(node), attributes)


def _mean(of: Translator, node: Any, given: Arguments) -> Value:
    value = of.value(node.args[0])
    shape = of.shape_of(node.args[0])
    axes = tuple(sorted(axis % len(shape) for axis in given["dim"] or range(len(shape))))
    if (
        isinstance(value, Viewed)
        and value.in_order
        and len(value.base.shape) == _IMAGE
        and value.sizes[:2] == value.base.shape[:2]
        and len(shape) == _SEQUENCE
        and axes == (2,)
    ):
        tensor = value.base
    else:
        tensor = of.tensor(node.args[0])
        if len(shape) == _SEQUENCE and axes == (1,) and not given["keepdim"]:
            return of.step("token_mean", (tensor,), of.shape_of(node))
        if len(shape) != _IMAGE or axes != (2, 3):
            raise of.refuse(f"there is no mean of a tensor {shape} over the axes {axes}")
    pooled = of.step("global_avg_pool", (tensor,), (*tensor.shape[:2], 1, 1))
    return of.reshaped(pooled, of.shape_of(node))


# -- sums and products -----------------------------------------------------------------------------


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _add(of: Translator, node: Any, given: Arguments) -> Value:
    if given.get("alpha", 1) != 1:
        raise of.refuse("there is no sum with a factor")
    if _is_number(given["other"]) and given["other"] == 0:
        return of.value(given["self"])
    left, right = of.tensor(given["self"]), of.tensor(given["other"])
    if left.shape != right.shape:
        raise of.refuse(f"there is no sum of {left.shape} and {right.shape}")
    return of.step("add", (left, right), left.shape)


def _mul(of: Translator, node: Any, given: Arguments) -> Value:
    value, other = of.value(given["self"]), given["other"]
    if _is_number(other):
        if isinstance(value, Scores):
            return replace(_before_softmax(of, value), scale=value.scale * other)
        if other == 1:
            return value
        if other == 0:
            return _zeros(of, node, given)
    left, right = of.tensor(given["self"]), of.tensor(other)
    if left.shape[2:] == (1, 1):
        left, right = right, left
    of_channels = len(left.shape) == _IMAGE and right.shape == (*left.shape[:2], 1, 1)
    if right.shape != left.shape and not of_channels:
        raise of.refuse(f"there is no product of {left.shape} and {right.shape}")
    return of.step("mul", (left, right), left.shape)


def _div(of: Translator, node: Any, given: Arguments) -> Value:
    value, other = of.value(given["self"]), given["other"]
    if isinstance(value, Scores) and _is_number(other):
        return replace(_before_softmax(of, value), scale=value.scale / other)
    raise of.refuse("there is no quotient, but for the scores of attention")


def _zeros(of: Translator, node: Any, given: Arguments) -> Value:
    tensor = of.tensor(node.args[0])
    return of.step("zero", (tensor,), tensor.shape)


def _cat(of: Translator, node: Any, given: Arguments) -> Value:
    tensors = [of.tensor(one) for one in given["tensors"]]
    shape = of.shape_of(node)
    if len(tensors) == 1:
        return tensors[0]
    if len(shape) not in (_IMAGE, _SEQUENCE) or given["dim"] % len(shape) != 1:
        raise of.refuse("there is no concatenation but that of channels or of tokens")
    return of.step("concat", tensors, shape)


_OPERATORS: Mapping[str, Handler] = {
    f"aten::{name}": handler
    for names, handler in (
        ("alias clone contiguous detach lift_fresh_copy", _same),
        ("dropout feature_dropout", _dropout),
        *((name, _activation(name)) for name in ("relu", "relu6", "sigmoid", "silu", "tanh")),
        ("hardswish", _activation("hswish")),
        ("hardsigmoid", _activation("hsigmoid")),
        ("hardtanh clamp clamp_min", _clamp),
        ("gelu", _gelu),
        ("conv2d convolution", _conv2d),
        ("linear", _linear),
        ("batch_norm", _batch_norm),
        ("layer_norm", _layer_norm),
        ("softmax", _softmax),
        ("max_pool2d", _max_pool2d),
        ("avg_pool2d", _avg_pool2d),
        ("adaptive_avg_pool2d", _adaptive_avg_pool2d),
        ("mean", _mean),
        ("add", _add),
        ("mul", _mul),
        ("div", _div),
        ("zeros_like", _zeros),
        ("cat concat concatenate", _cat),
    )
    for name in names.split()
}

HANDLERS: Mapping[str, Handler] = {**_OPERATORS, **VIEW_HANDLERS}
"""By name of the operator; what works in place has the same name and an underscore."""
