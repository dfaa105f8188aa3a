"""Kinds of op that transformers are made of (Vaswani et al., NeurIPS 2017).

A sequence has the shape `(length, features)`. Layers come in two orders: *post-norm* as published
(section 3.1) and *pre-norm* (Xiong et al., ICML 2020, figure 1). Dropout is not there: it does
nothing when a network is deployed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from latlas_ops.graph import GraphBuilder
from latlas_ops.kind_schema import Attribute, Kind
from latlas_ops.opspec import OpSpec

PRE_NORM, POST_NORM = "pre", "post"


def _lower_layer_norm(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    return graph.layer_norm("norm", inputs[0])


def _lower_softmax(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    return graph.softmax("softmax", inputs[0])


def _lower_attention(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    return _attention(op, graph, "", inputs[0], inputs[-1], op.integer("heads"))


def _lower_feed_forward(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    return _feed_forward(op, graph, inputs[0])


def _lower_encoder_layer(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """Self-attention and feed-forward, each with its residual and norm (figure 1, left)."""
    tensor = inputs[0]
    if op.attribute("norm") == PRE_NORM:
        normed = graph.layer_norm("norm1", tensor)
        attended = _attention(op, graph, "", normed, normed, op.integer("heads"))
        tensor = graph.add("skip1", attended, tensor)
        hidden = _feed_forward(op, graph, graph.layer_norm("norm2", tensor))
        return graph.add("skip2", hidden, tensor)
    attended = _attention(op, graph, "", tensor, tensor, op.integer("heads"))
    tensor = graph.layer_norm("norm1", graph.add("skip1", attended, tensor))
    hidden = _feed_forward(op, graph, tensor)
    return graph.layer_norm("norm2", graph.add("skip2", hidden, tensor))


def _lower_decoder_layer(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    """Self-attention, attention to the other inputs, feed-forward (figure 1, right).

    Self-attention is masked, as it is where all tokens are decoded in one pass; `causal` says so.
    Keys and values of the attention to other inputs come from the tokens of all of them, one
    behind another.
    """
    tensor, *memories = inputs
    memory = memories[0] if len(memories) == 1 else graph.concat("memory", memories)
    heads, cross_heads = op.integer("heads"), op.integer("cross_heads")
    causal = bool(op.attribute("causal"))
    if op.attribute("norm") == PRE_NORM:
        normed = graph.layer_norm("norm1", tensor)
        attended = _attention(op, graph, "self_", normed, normed, heads, causal=causal)
        tensor = graph.add("skip1", attended, tensor)
        normed = graph.layer_norm("norm2", tensor)
        attended = _attention(op, graph, "cross_", normed, memory, cross_heads)
        tensor = graph.add("skip2", attended, tensor)
        hidden = _feed_forward(op, graph, graph.layer_norm("norm3", tensor))
        return graph.add("skip3", hidden, tensor)
    attended = _attention(op, graph, "self_", tensor, tensor, heads, causal=causal)
    tensor = graph.layer_norm("norm1", graph.add("skip1", attended, tensor))
    attended = _attention(op, graph, "cross_", tensor, memory, cross_heads)
    tensor = graph.layer_norm("norm2", graph.add("skip2", attended, tensor))
    hidden = _feed_forward(op, graph, tensor)
    return graph.layer_norm("norm3", graph.add("skip3", hidden, tensor))


def _lower_slice(op: OpSpec, graph: GraphBuilder, inputs: Sequence[str]) -> str:
    start, length = op.integer("start"), op.integer("length")
    return graph.slice("slice", inputs[0], start, length, op.integer("features"))


def _attention(
    op: OpSpec,
    graph: GraphBuilder,
    part: str,
    tensor: str,
    memory: str,
    heads: int,
    *,
    causal: bool = False,
) -> str:
    """Multi-head attention of `tensor` to `memory` (section 3.2.2)."""
    width = op.integer("qkv_features")
    query = graph.linear(f"{part}query", tensor, width)
    key = graph.linear(f"{part}key", memory, width)
    value = graph.linear(f"{part}value", memory, width)
    mixed = graph.attention(f"{part}attention", query, key, value, heads, causal=causal)
    return graph.linear(f"{part}out", mixed, graph.shape(tensor)[1])


def _feed_forward(op: OpSpec, graph: GraphBuilder, tensor: str) -> str:
    """Two linear layers with an activation between them (section 3.3)."""
    features = graph.shape(tensor)[1]
    hidden = graph.linear("ffn1", tensor, op.integer("ffn_features"))
    hidden = graph.activation("ffn_act", hidden, str(op.attribute("activation")))
    return graph.linear("ffn2", hidden, features)


_ATTENTION = {"heads": Attribute(int), "qkv_features": Attribute(int)}
_FEED_FORWARD = {"ffn_features": Attribute(int), "activation": Attribute.activation("gelu")}
_NORM = {"norm": Attribute(str, PRE_NORM, choices=(PRE_NORM, POST_NORM))}
# Runtimes fuse a layer that reads the network's input differently from one that reads another
# layer's norm, so that the two are different entries of a table.
_FIRST = {"first": Attribute(bool, False)}

SEQUENCE_KINDS: Mapping[str, Kind] = {
    "layer_norm": Kind({}, (2,), _lower_layer_norm),
    "softmax": Kind({}, (2,), _lower_softmax),
    "attention": Kind(_ATTENTION, (2,), _lower_attention),
    "cross_attention": Kind(_ATTENTION, (2, 2), _lower_attention),
    "feed_forward": Kind(_FEED_FORWARD, (2,), _lower_feed_forward),
    "encoder_layer": Kind(
        {**_ATTENTION, **_FEED_FORWARD, **_NORM, **_FIRST}, (2,), _lower_encoder_layer
    ),
    "decoder_layer": Kind(
        {
            **_ATTENTION,
            "cross_heads": Attribute(int),
            "causal": Attribute(bool, True),
            **_FEED_FORWARD,
            **_NORM,
            **_FIRST,
        },
        (2, 2),
        _lower_decoder_layer,
        variadic=True,
    ),
    "slice": Kind(
        {
            "start": Attribute(int, 0, minimum=0),
            "length": Attribute(int),
            "features": Attribute(int),
        },
        (2,),
        _lower_slice,
    ),
}
