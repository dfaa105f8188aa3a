"""The primitives of `latlas_ops.graph` as torch functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from latlas_nas.depthwise import depthwise
from latlas_ops.errors import InvalidInputError
from latlas_ops.graph import Node


def convolve(
    node: Node, tensor: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """A `conv` node: `(n, c, h, w)` to `(n, out, h', w')`, in channels-last memory.

    The result is made channels-last explicitly: an image of one channel is contiguous in either
    layout, and torch would otherwise carry the slower one through the whole network.
    """
    attributes = node.attributes
    stride, groups = attributes["stride"], attributes["groups"]
    if groups > 1 and attributes["kernel"] > 3 and bias is None and weight.requires_grad:
        result = depthwise(tensor, weight, stride)
    else:
        result = F.conv2d(tensor, weight, bias, stride, attributes["padding"], 1, groups)
    return result.contiguous(memory_format=torch.channels_last)


def apply(node: Node, inputs: Sequence[torch.Tensor], inplace: bool) -> torch.Tensor:
    """A node without parameters.

    Args:
        node: any primitive but `conv` and `linear`.
        inputs: its input tensors, each with a batch axis.
        inplace: whether an activation may overwrite its input.
    """
    tensor = inputs[0]
    attributes = node.attributes
    match node.primitive:
        case "relu":
            return F.relu(tensor, inplace)
        case "relu6":
            return F.relu6(tensor, inplace)
        case "hswish":
            return F.hardswish(tensor, inplace)
        case "hsigmoid":
            return F.hardsigmoid(tensor, inplace)
        case "max_pool":
            return F.max_pool2d(
                tensor, attributes["kernel"], attributes["stride"], attributes["padding"]
            )
        case "avg_pool":
            return F.avg_pool2d(
                tensor,
                attributes["kernel"],
                attributes["stride"],
                attributes["padding"],
                count_include_pad=False,
            )
        case "global_avg_pool":
            return tensor.mean((2, 3), keepdim=True)
        case "flatten":
            return tensor.flatten(1)
        case "add":
            return tensor + inputs[1]
        case "mul":
            return tensor * inputs[1]
    raise InvalidInputError(f"{node.name}: no torch function for the primitive {node.primitive!r}")
