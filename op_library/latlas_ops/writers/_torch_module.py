"""The primitive graph as `torch.nn.Module`s. Imports torch: load it through `torch_writer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn

from latlas_ops.graph import INPUT_TENSOR, OUTPUT_TENSOR, Graph, Node
from latlas_ops.weights import Weights


class Add(nn.Module):
    """Element-wise sum."""

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        """Sum of two tensors `(n, c, h, w)`."""
        return left + right


class Mul(nn.Module):
    """Element-wise product."""

    def forward(self, tensor: Tensor, scale: Tensor) -> Tensor:
        """Product of `(n, c, h, w)` with a scale per channel `(n, c, 1, 1)`, or of equal shapes."""
        return tensor * scale


class Concat(nn.Module):
    """Channels, or tokens, behind one another."""

    def forward(self, *tensors: Tensor) -> Tensor:
        """Tensors `(n, c_i, h, w)` as one `(n, sum of c_i, h, w)`; sequences likewise."""
        return torch.cat(tensors, dim=1)


class Crop(nn.Module):
    """All but the first row and column."""

    def forward(self, tensor: Tensor) -> Tensor:
        """`(n, c, h, w)` → `(n, c, h - 1, w - 1)`."""
        return tensor[:, :, 1:, 1:]


class Shuffle(nn.Module):
    """Channels dealt out over groups."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self._groups = groups

    def forward(self, tensor: Tensor) -> Tensor:
        """The first channel of every group of `(n, c, h, w)`, then the second, and so on."""
        n, channels, height, width = tensor.shape
        split = tensor.reshape(n, self._groups, channels // self._groups, height, width)
        return split.transpose(1, 2).reshape(n, channels, height, width)


class Slice(nn.Module):
    """Some tokens of a sequence and the first of their features."""

    def __init__(self, start: int, length: int, features: int) -> None:
        super().__init__()
        self._rows, self._features = slice(start, start + length), features

    def forward(self, tensor: Tensor) -> Tensor:
        """`(n, source, width)` → `(n, length, features)`."""
        return tensor[:, self._rows, : self._features]


class Zero(nn.Module):
    """Zeros in the shape of the input."""

    def forward(self, tensor: Tensor) -> Tensor:
        """The tensor `(n, c, h, w)` less itself."""
        return tensor - tensor


class Tokens(nn.Module):
    """The pixels of an image as a sequence."""

    def forward(self, tensor: Tensor) -> Tensor:
        """`(n, c, h, w)` → `(n, h * w, c)`."""
        return tensor.flatten(2).transpose(1, 2)


class TokenMean(nn.Module):
    """Mean over the tokens of a sequence."""

    def forward(self, tensor: Tensor) -> Tensor:
        """`(n, length, features)` → `(n, features)`."""
        return tensor.mean(1)


class Attention(nn.Module):
    """Scaled dot-product attention in heads."""

    def __init__(self, heads: int, causal: bool) -> None:
        super().__init__()
        self._heads, self._causal = heads, causal

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`(n, length, width)` and twice `(n, source, width)` → `(n, length, width)`."""
        mixed = nn.functional.scaled_dot_product_attention(
            self._split(query), self._split(key), self._split(value), is_causal=self._causal
        )
        return mixed.transpose(1, 2).flatten(2)

    def _split(self, tensor: Tensor) -> Tensor:
        n, length, width = tensor.shape
        heads = tensor.view(n, length, self._heads, width // self._heads)
        return heads.transpose(1, 2)


class OpModule(nn.Module):
    """One op: its nodes as children, each named by its part, for example `depthwise`.

    Attributes:
        name: position and digest of the op, `p<position>/<digest>`.
        sources: names of the graph's tensors that `forward` takes.
        result: name of the tensor that it returns.
    """

    def __init__(self, nodes: Sequence[Node], dying: Sequence[Sequence[str]]) -> None:
        """The nodes of the op, and per node the tensors that nobody reads after it."""
        super().__init__()
        written = {node.output for node in nodes}
        read = dict.fromkeys(tensor for node in nodes for tensor in node.inputs)
        self.sources = tuple(tensor for tensor in read if tensor not in written)
        self.name = nodes[0].name.rpartition("/")[0]
        self.result = nodes[-1].output
        self._steps: list[tuple[nn.Module, Sequence[str], str, Sequence[str]]] = []
        for node, last in zip(nodes, dying, strict=True):
            module = _MODULES[node.primitive](node)
            self.add_module(node.name.rpartition("/")[2], module)
            self._steps.append((module, node.inputs, node.output, tuple(last)))

    def forward(self, *inputs: Tensor) -> Tensor:
        """The op's output for the tensors named in `sources`."""
        tensors = dict(zip(self.sources, inputs, strict=True))
        for module, read, written, dying in self._steps:
            tensors[written] = module(*[tensors[name] for name in read])
            for name in dying:
                del tensors[name]
        return tensors[self.result]


class NetworkModule(nn.Module):
    """A network: one `OpModule` per op, named by position; see `torch_writer.torch_module`.

    Attributes:
        ops: the ops by position, to hang hooks on.
    """

    def __init__(self, graph: Graph, weights: Weights) -> None:
        super().__init__()
        self.ops: list[OpModule] = []
        self._dying: list[tuple[str, ...]] = []
        steps = zip(graph.nodes, graph.releases(), strict=True)
        for position, group in groupby(steps, key=lambda step: step[0].position):
            nodes, dying = zip(*group, strict=True)
            op = OpModule(nodes, dying)
            self.add_module(str(position), op)
            self.ops.append(op)
            self._dying.append(tuple(n for names in dying for n in names if n in op.sources))
        state = {name: torch.tensor(weights[name]) for name in weights}
        self.load_state_dict(state, assign=True)

    def forward(self, images: Tensor, after_op: Callable[[], None] | None = None) -> Tensor:
        """The network's output for a batch of its inputs, `(n, c, h, w)`.

        `after_op` is called after every op, for who wants to know how long each takes.
        """
        tensors = {INPUT_TENSOR: images}
        for op, dying in zip(self.ops, self._dying, strict=True):
            tensors[op.result] = op(*[tensors[name] for name in op.sources])
            for name in dying:
                del tensors[name]
            if after_op is not None:
                after_op()
        return tensors[OUTPUT_TENSOR]


def _conv(node: Node) -> nn.Module:
    out_channels, in_channels, kernel, _ = node.parameters[0].shape
    groups = node.attributes["groups"]
    return nn.Conv2d(
        in_channels * groups,
        out_channels,
        kernel,
        stride=node.attributes["stride"],
        padding=node.attributes["padding"],
        groups=groups,
        dilation=node.attributes.get("dilation", 1),
        device="meta",
    )


def _linear(node: Node) -> nn.Module:
    out_features, in_features = node.parameters[0].shape
    return nn.Linear(in_features, out_features, device="meta")


def _layer_norm(node: Node) -> nn.Module:
    return nn.LayerNorm(node.parameters[0].shape, eps=node.epsilon, device="meta")


def _max_pool(node: Node) -> nn.Module:
    kernel, stride, padding = (node.attributes[key] for key in ("kernel", "stride", "padding"))
    return nn.MaxPool2d(kernel, stride, padding)


def _avg_pool(node: Node) -> nn.Module:
    kernel, stride, padding = (node.attributes[key] for key in ("kernel", "stride", "padding"))
    return nn.AvgPool2d(kernel, stride, padding, count_include_pad=False)


# Convolutions, linear layers and norms are built without storage, so that no random number is drawn
# from torch's global generator; `NetworkModule` then hands them their weights.
_MODULES: Mapping[str, Callable[[Node], nn.Module]] = {
    "conv": _conv,
    "linear": _linear,
    "relu": lambda node: nn.ReLU(),
    "relu6": lambda node: nn.ReLU6(),
    "hswish": lambda node: nn.Hardswish(),
    "hsigmoid": lambda node: nn.Hardsigmoid(),
    "gelu": lambda node: nn.GELU(),
    "sigmoid": lambda node: nn.Sigmoid(),
    "silu": lambda node: nn.SiLU(),
    "tanh": lambda node: nn.Tanh(),
    "max_pool": _max_pool,
    "avg_pool": _avg_pool,
    "global_avg_pool": lambda node: nn.AdaptiveAvgPool2d(1),
    "flatten": lambda node: nn.Flatten(),
    "add": lambda node: Add(),
    "mul": lambda node: Mul(),
    "concat": lambda node: Concat(),
    "crop": lambda node: Crop(),
    "shuffle": lambda node: Shuffle(node.attributes["groups"]),
    "slice": lambda node: Slice(node.attributes["start"], *node.shape),
    "zero": lambda node: Zero(),
    "layer_norm": _layer_norm,
    "softmax": lambda node: nn.Softmax(-1),
    "attention": lambda node: Attention(node.attributes["heads"], "causal" in node.attributes),
    "unflatten": lambda node: nn.Unflatten(1, node.shape),
    "tokens": lambda node: Tokens(),
    "token_mean": lambda node: TokenMean(),
}
