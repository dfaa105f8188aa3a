"""The primitive graph: what every op lowers to, and what every model writer reads.

An op or block (`latlas_ops.kinds`) lowers to a handful of primitive nodes. Shape inference, costs
and the model writers all walk these nodes, so a kind is described exactly once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import Shape

EPSILON = 1e-5
"""What a layer norm adds to the variance, unless it says otherwise."""

EPSILON_UNIT = 1e-12
"""In which a layer norm says otherwise: its attribute `epsilon` is an integer."""

MASKED = -30000.0
"""What causal attention adds to the score of a token that comes later: finite, also in float16."""

INPUT_TENSOR = "input"
OUTPUT_TENSOR = "output"

ACTIVATIONS = (
    "none",
    "relu",
    "relu6",
    "hswish",
    "hsigmoid",
    "gelu",
    "sigmoid",
    "silu",
    "tanh",
)
PRIMITIVES = (
    "conv",
    "linear",
    "relu",
    "relu6",
    "hswish",
    "hsigmoid",
    "gelu",
    "sigmoid",
    "silu",
    "tanh",
    "max_pool",
    "avg_pool",
    "global_avg_pool",
    "flatten",
    "add",
    "mul",
    "concat",
    "crop",
    "shuffle",
    "slice",
    "zero",
    "layer_norm",
    "softmax",
    "attention",
    "unflatten",
    "tokens",
    "token_mean",
)


@dataclass(frozen=True)
class Parameter:
    """A weight tensor that a node needs; `name` is its key in a weight mapping."""

    name: str
    shape: Shape


@dataclass(frozen=True)
class Node:
    """One primitive. Its output tensor carries the node's name (the last one's is `output`).

    Attributes:
        primitive: one of `PRIMITIVES`.
        name: `p<position>/<digest of the op>/<part>`: a node name carries its subject.
        position: position of the op in the network.
        inputs: names of the input tensors.
        output: name of the output tensor.
        shape: output shape without the batch axis.
        attributes: integers such as `kernel`, `stride`, `padding`, `groups`; a convolution has
            `dilation` only where it is not 1; a layer norm has `epsilon`, in `EPSILON_UNIT`, only
            where it is not `EPSILON`; attention has `heads`, the length of its keys as
            `source_length`, and `causal` only where it is masked.
        parameters: weight first, then bias, where the primitive has them.
    """

    primitive: str
    name: str
    position: int
    inputs: tuple[str, ...]
    output: str
    shape: Shape
    attributes: Mapping[str, int] = field(default_factory=dict)
    parameters: tuple[Parameter, ...] = ()

    @property
    def epsilon(self) -> float:
        """What a layer norm adds to the variance."""
        given = self.attributes.get("epsilon")
        return EPSILON if given is None else given * EPSILON_UNIT


@dataclass(frozen=True)
class Graph:
    """Primitive nodes in execution order, from the tensor `input` to the tensor `output`."""

    input_shape: Shape
    nodes: tuple[Node, ...]

    @property
    def output_shape(self) -> Shape:
        """Shape of the output without the batch axis."""
        return self.nodes[-1].shape

    def parameters(self) -> Iterator[Parameter]:
        """Every weight tensor once, in execution order."""
        for node in self.nodes:
            yield from node.parameters

    def tensor_positions(self) -> dict[str, int]:
        """Which op of the network produced a tensor: output tensor name → position."""
        return {node.output: node.position for node in self.nodes}

    def releases(self) -> tuple[tuple[str, ...], ...]:
        """Per node, the tensors that nobody reads after it; `output` is never among them."""
        return tensor_releases(self.nodes)


def tensor_releases(nodes: Sequence[Node]) -> tuple[tuple[str, ...], ...]:
    """Per node, the tensors that no node reads after it; `OUTPUT_TENSOR` is never among them."""
    last_use: dict[str, int] = {}
    for index, node in enumerate(nodes):
        last_use.update(dict.fromkeys((node.output, *node.inputs), index))
    dying: list[list[str]] = [[] for _ in nodes]
    for tensor, index in last_use.items():
        if tensor != OUTPUT_TENSOR:
            dying[index].append(tensor)
    return tuple(tuple(tensors) for tensors in dying)


@dataclass
class GraphBuilder:
    """Collects the nodes of one op after another; shapes are inferred as nodes are added."""

    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    position: int = 0
    digest: str = ""

    def begin(self, position: int, digest: str) -> None:
        """The nodes that follow belong to the op at `position`."""
        self.position, self.digest = position, digest

    def shape(self, tensor: str) -> Shape:
        """Shape of a tensor that is already there, without the batch axis."""
        return self.shapes[tensor]

    def _add(
        self,
        primitive: str,
        part: str,
        inputs: tuple[str, ...],
        shape: Shape,
        *,
        attributes: Mapping[str, int] | None = None,
        parameters: tuple[Parameter, ...] = (),
    ) -> str:
        name = f"p{self.position:03d}/{self.digest}/{part}"
        if name in self.shapes:
            raise InvalidInputError(f"two nodes of one op are called {part!r}")
        node = Node(
            primitive, name, self.position, inputs, name, shape, dict(attributes or {}), parameters
        )
        self.nodes.append(node)
        self.shapes[name] = shape
        return name

    def _parameter(self, part: str, role: str, shape: Shape) -> Parameter:
        return Parameter(f"{self.position}.{part}.{role}", shape)

    def conv(
        self,
        part: str,
        tensor: str,
        out_channels: int,
        *,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        padding: int | None = None,
    ) -> str:
        """Convolution with bias, padded on every side, by default by `dilation * (kernel // 2)`.

        As torch pads, not as TensorFlow's SAME does.
        """
        channels, height, width = self.shape(tensor)
        if channels % groups or out_channels % groups:
            raise InvalidInputError(
                f"{part}: {groups} groups do not divide {channels} into {out_channels} channels"
            )
        padding = dilation * (kernel // 2) if padding is None else padding
        reach = dilation * (kernel - 1) + 1
        size = ((length + 2 * padding - reach) // stride + 1 for length in (height, width))
        attributes = {"kernel": kernel, "stride": stride, "padding": padding, "groups": groups}
        if dilation != 1:
            attributes["dilation"] = dilation
        weight = self._parameter(part, "weight", (out_channels, channels // groups, kernel, kernel))
        return self._add(
            "conv",
            part,
            (tensor,),
            (out_channels, *size),
            attributes=attributes,
            parameters=(weight, self._parameter(part, "bias", (out_channels,))),
        )

    def linear(self, part: str, tensor: str, out_features: int) -> str:
        """Fully connected layer with bias on a vector `(features,)` or on every token.

        Tokens are the rows of a sequence `(length, features)`.
        """
        *length, features = self.shape(tensor)
        return self._add(
            "linear",
            part,
            (tensor,),
            (*length, out_features),
            parameters=(
                self._parameter(part, "weight", (out_features, features)),
                self._parameter(part, "bias", (out_features,)),
            ),
        )

    def activation(self, part: str, tensor: str, kind: str) -> str:
        """Element-wise activation; `none` adds no node and returns `tensor`."""
        if kind == "none":
            return tensor
        return self._add(kind, part, (tensor,), self.shape(tensor))

    def pool(
        self,
        part: str,
        tensor: str,
        mode: str,
        kernel: int,
        stride: int,
        padding: int | None = None,
    ) -> str:
        """Max or average pooling, padding `kernel // 2` by default; average excludes it."""
        channels, *lengths = self.shape(tensor)
        padding = kernel // 2 if padding is None else padding
        size = ((length + 2 * padding - kernel) // stride + 1 for length in lengths)
        return self._add(
            f"{mode}_pool",
            part,
            (tensor,),
            (channels, *size),
            attributes={"kernel": kernel, "stride": stride, "padding": padding},
        )

    def global_avg_pool(self, part: str, tensor: str) -> str:
        """Mean over height and width: `(c, h, w)` → `(c, 1, 1)`."""
        return self._add("global_avg_pool", part, (tensor,), (self.shape(tensor)[0], 1, 1))

    def flatten(self, part: str, tensor: str) -> str:
        """All axes but the batch into one."""
        return self._add("flatten", part, (tensor,), (math.prod(self.shape(tensor)),))

    def add(self, part: str, left: str, right: str) -> str:
        """Element-wise sum of two tensors of one shape."""
        if self.shape(left) != self.shape(right):
            raise InvalidInputError(
                f"{part}: cannot add {self.shape(left)} and {self.shape(right)}"
            )
        return self._add("add", part, (left, right), self.shape(left))

    def scale(self, part: str, tensor: str, channel_scale: str) -> str:
        """Product of `(c, h, w)` with a scale per channel `(c, 1, 1)`, or of two of one shape."""
        return self._add("mul", part, (tensor, channel_scale), self.shape(tensor))

    def zero(self, part: str, tensor: str) -> str:
        """Zeros in the shape of a tensor: the tensor less itself."""
        return self._add("zero", part, (tensor,), self.shape(tensor))

    def crop(self, part: str, tensor: str) -> str:
        """All but the first row and the first column: `(c, h, w)` → `(c, h - 1, w - 1)`."""
        channels, height, width = self.shape(tensor)
        if min(height, width) < 2:
            raise InvalidInputError(f"{part}: nothing is left of an image of {height}x{width}")
        return self._add("crop", part, (tensor,), (channels, height - 1, width - 1))

    def concat(self, part: str, tensors: Sequence[str]) -> str:
        """Tensors `(c_i, h, w)` behind one another: `(sum of c_i, h, w)`; sequences likewise."""
        shapes = [self.shape(tensor) for tensor in tensors]
        if len({shape[1:] for shape in shapes}) != 1:
            raise InvalidInputError(f"{part}: images or tokens of different size: {shapes}")
        channels = sum(shape[0] for shape in shapes)
        return self._add("concat", part, tuple(tensors), (channels, *shapes[0][1:]))

    def shuffle(self, part: str, tensor: str, groups: int) -> str:
        """Channels of `(c, h, w)` in turn from each group (ShuffleNet, CVPR 2018, section 3.1)."""
        shape = self.shape(tensor)
        if shape[0] % groups:
            raise InvalidInputError(f"{part}: {groups} groups do not divide {shape[0]} channels")
        return self._add("shuffle", part, (tensor,), shape, attributes={"groups": groups})

    def slice(self, part: str, tensor: str, start: int, length: int, features: int) -> str:
        """Tokens `start` to `start + length` of a sequence, and the first of their features."""
        there, width = self.shape(tensor)
        if start + length > there or features > width:
            raise InvalidInputError(
                f"{part}: {length} tokens from {start} on, of {features} features, are more than "
                f"{(there, width)} has"
            )
        return self._add("slice", part, (tensor,), (length, features), attributes={"start": start})

    def layer_norm(self, part: str, tensor: str, epsilon: int | None = None) -> str:
        """Every token to mean 0 and variance 1, then scaled and shifted.

        `epsilon` is added to the variance, in `EPSILON_UNIT`; by default it is `EPSILON`.
        """
        shape = self.shape(tensor)
        parameters = (
            self._parameter(part, "weight", shape[-1:]),
            self._parameter(part, "bias", shape[-1:]),
        )
        attributes = {} if epsilon is None else {"epsilon": epsilon}
        return self._add(
            "layer_norm", part, (tensor,), shape, attributes=attributes, parameters=parameters
        )

    def softmax(self, part: str, tensor: str) -> str:
        """Softmax over the last axis."""
        return self._add("softmax", part, (tensor,), self.shape(tensor))

    def unflatten(self, part: str, tensor: str) -> str:
        """A vector as an image of one pixel: `(features,)` → `(features, 1, 1)`."""
        (features,) = self.shape(tensor)
        return self._add("unflatten", part, (tensor,), (features, 1, 1))

    def tokens(self, part: str, tensor: str) -> str:
        """The pixels of an image as a sequence: `(c, h, w)` → `(h * w, c)`."""
        channels, height, width = self.shape(tensor)
        return self._add("tokens", part, (tensor,), (height * width, channels))

    def token_mean(self, part: str, tensor: str) -> str:
        """Mean over the tokens of a sequence: `(length, features)` → `(features,)`."""
        _, features = self.shape(tensor)
        return self._add("token_mean", part, (tensor,), (features,))

    def attention(
        self, part: str, query: str, key: str, value: str, heads: int, *, causal: bool = False
    ) -> str:
        """Scaled dot-product attention in heads: `softmax(q kᵀ / sqrt(width of a head)) v`.

        Args:
            part: name of the node.
            query: `(length, width)`.
            key, value: `(source length, width)`.
            heads: parts that the width is cut into.
            causal: whether a token attends only to itself and to those before it; there are as
                many keys as queries then.
        """
        (length, width), source = self.shape(query), self.shape(key)
        if width % heads:
            raise InvalidInputError(f"{part}: {heads} heads do not divide a width of {width}")
        if source[1] != width or self.shape(value) != source:
            raise InvalidInputError(
                f"{part}: queries {(length, width)}, keys {source} and values "
                f"{self.shape(value)} do not fit"
            )
        attributes = {"heads": heads, "source_length": source[0]}
        if causal:
            if source[0] != length:
                raise InvalidInputError(
                    f"{part}: causal attention of {length} queries to {source[0]} keys"
                )
            attributes["causal"] = 1
        return self._add(
            "attention", part, (query, key, value), (length, width), attributes=attributes
        )

    def finish(self) -> Graph:
        """The graph; the last node's output tensor is renamed to `output`."""
        *body, last = self.nodes
        return Graph(self.shapes[INPUT_TENSOR], (*body, replace(last, output=OUTPUT_TENSOR)))
