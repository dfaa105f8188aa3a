"""Examples of every kind of op: small, with odd sizes, strides, groups and every activation.

What is to hold for every kind is checked on these: that writers and runtimes agree
(`bench/agreement.py`), costs, weights. A new kind gets one or more entries here; a test asks for
them.
"""

from __future__ import annotations

from collections.abc import Mapping

from latlas_ops.opspec import OpSpec

EXAMPLES: Mapping[str, OpSpec] = {
    "conv": OpSpec.of("conv", (3, 9, 9), out_channels=8, kernel=3),
    "conv-grouped": OpSpec.of(
        "conv", (8, 7, 9), out_channels=12, kernel=5, stride=2, groups=4, activation="relu6"
    ),
    "conv-even-kernel": OpSpec.of("conv", (4, 7, 7), out_channels=4, kernel=2, stride=2),
    "conv-large-kernel": OpSpec.of("conv", (2, 2, 3), out_channels=3, kernel=7, activation="relu"),
    "depthwise": OpSpec.of("depthwise", (16, 10, 10), kernel=3, activation="hswish"),
    "depthwise-stride": OpSpec.of("depthwise", (8, 11, 7), kernel=7, stride=2),
    "mbconv": OpSpec.of(
        "mbconv", (8, 9, 9), out_channels=8, expanded_channels=24, kernel=3, skip=True
    ),
    "mbconv-se": OpSpec.of(
        "mbconv",
        (8, 9, 11),
        out_channels=16,
        expanded_channels=48,
        kernel=5,
        stride=2,
        activation="hswish",
        se_channels=16,
    ),
    "mbconv-no-expansion": OpSpec.of(
        "mbconv",
        (16, 8, 8),
        out_channels=16,
        expanded_channels=16,
        expand=False,
        kernel=3,
        activation="relu6",
        skip=True,
    ),
    "pool-max": OpSpec.of("pool", (4, 9, 7), mode="max", kernel=3, stride=2),
    "pool-avg": OpSpec.of("pool", (4, 9, 7), mode="avg", kernel=3, stride=2),
    "pool-avg-even": OpSpec.of("pool", (4, 8, 8), mode="avg", kernel=2, stride=2),
    "pool-global": OpSpec.of("pool", (4, 9, 7), mode="global_avg"),
    "linear": OpSpec.of("linear", (33,), out_features=7),
    "linear-hsigmoid": OpSpec.of("linear", (16,), out_features=5, activation="hsigmoid"),
    "stem": OpSpec.of("stem", (3, 15, 15), out_channels=16),
    "stem-plain": OpSpec.of("stem", (1, 8, 8), out_channels=8, separable=False, activation="relu"),
    "head": OpSpec.of("head", (16, 5, 5), expanded_channels=32, classes=10),
    "head-features": OpSpec.of(
        "head", (16, 4, 4), expanded_channels=32, feature_channels=48, classes=10
    ),
    "linear-gelu": OpSpec.of("linear", (16,), out_features=5, activation="gelu"),
    "linear-tokens": OpSpec.of("linear", (5, 12), out_features=7, activation="relu"),
    "layer-norm": OpSpec.of("layer_norm", (5, 12)),
    "softmax": OpSpec.of("softmax", (5, 12)),
    "attention": OpSpec.of("attention", (5, 12), heads=2, qkv_features=8),
    "cross-attention": OpSpec.of("cross_attention", (5, 12), (5, 12), heads=3, qkv_features=6),
    "feed-forward": OpSpec.of("feed_forward", (5, 12), ffn_features=20),
    "encoder-layer-pre": OpSpec.of(
        "encoder_layer", (7, 16), heads=4, qkv_features=24, ffn_features=20
    ),
    "encoder-layer-post": OpSpec.of(
        "encoder_layer",
        (6, 16),
        heads=2,
        qkv_features=16,
        ffn_features=32,
        norm="post",
        activation="relu",
        first=True,
    ),
    "decoder-layer-pre": OpSpec.of(
        "decoder_layer", (5, 12), (5, 12), heads=2, cross_heads=4, qkv_features=8, ffn_features=20
    ),
    "decoder-layer-post": OpSpec.of(
        "decoder_layer",
        (6, 8),
        (6, 8),
        heads=1,
        cross_heads=2,
        qkv_features=8,
        ffn_features=12,
        norm="post",
    ),
    "decoder-layer-of-three-memories": OpSpec.of(
        "decoder_layer",
        *[(6, 8)] * 4,
        heads=2,
        cross_heads=1,
        qkv_features=12,
        ffn_features=12,
        norm="post",
        activation="relu",
        first=True,
    ),
    "decoder-layer-unmasked": OpSpec.of(
        "decoder_layer",
        (5, 12),
        (5, 12),
        heads=2,
        cross_heads=4,
        causal=False,
        qkv_features=8,
        ffn_features=20,
    ),
    "slice": OpSpec.of("slice", (7, 12), start=2, length=4, features=9),
    "slice-all": OpSpec.of("slice", (5, 6), length=5, features=6),
    "activation": OpSpec.of("activation", (4, 5, 7)),
    "activation-gelu-tokens": OpSpec.of("activation", (5, 12), activation="gelu"),
    "add-tokens": OpSpec.of("add", (5, 12), (5, 12)),
    "zero-tokens": OpSpec.of("zero", (5, 12)),
    "add": OpSpec.of("add", (4, 5, 7), (4, 5, 7)),
    "add-four": OpSpec.of("add", *[(4, 5, 7)] * 4),
    "concat": OpSpec.of("concat", *[(3, 5, 7)] * 3),
    "zero": OpSpec.of("zero", (4, 5, 7)),
    "conv-add": OpSpec.of("conv_add", (8, 7, 9), (8, 7, 9), out_channels=8, kernel=3),
    "sep-conv": OpSpec.of("sep_conv", (8, 9, 7), out_channels=12, kernel=5),
    "sep-conv-stride": OpSpec.of("sep_conv", (8, 9, 7), out_channels=8, kernel=3, stride=2),
    "dil-conv": OpSpec.of("dil_conv", (8, 9, 7), out_channels=12, kernel=3),
    "dil-conv-stride": OpSpec.of("dil_conv", (8, 10, 6), out_channels=8, kernel=5, stride=2),
    "dil-conv-wide": OpSpec.of("dil_conv", (4, 3, 5), out_channels=4, kernel=3, dilation=4),
    "factorized-reduce": OpSpec.of("factorized_reduce", (6, 8, 10), out_channels=8),
    "factorized-reduce-plain": OpSpec.of(
        "factorized_reduce", (6, 2, 2), out_channels=2, activation="none"
    ),
    "bottleneck": OpSpec.of("bottleneck", (16, 7, 9), out_channels=16, mid_channels=4),
    "bottleneck-project": OpSpec.of(
        "bottleneck", (8, 6, 7), out_channels=16, mid_channels=4, project=True
    ),
    "bottleneck-stride": OpSpec.of(
        "bottleneck", (8, 8, 6), out_channels=16, mid_channels=4, stride=2, project=True
    ),
    "grouped-mbconv": OpSpec.of(
        "grouped_mbconv", (8, 7, 9), out_channels=12, expanded_channels=24, kernel=5, stride=2
    ),
    "grouped-mbconv-no-expansion": OpSpec.of(
        "grouped_mbconv",
        (12, 6, 8),
        out_channels=12,
        expanded_channels=12,
        expand=False,
        kernel=3,
        groups=3,
        activation="relu6",
        skip=True,
    ),
    "deep-stem": OpSpec.of("deep_stem", (3, 17, 14), mid_channels=8, out_channels=16),
    "deep-stem-plain": OpSpec.of(
        "deep_stem", (3, 16, 16), mid_channels=8, out_channels=16, residual=False
    ),
    "reduction-block": OpSpec.of("reduction_block", (6, 8, 10), out_channels=12),
    "classifier": OpSpec.of("classifier", (8, 4, 6), classes=5),
    "classifier-norm": OpSpec.of("classifier", (8, 4, 4), classes=5, norm=True, activation="relu"),
    "graph-image": OpSpec.of(
        "graph",
        (4, 9, 7),
        graph='[["conv",[0],{"kernel":3,"out_channels":6,"padding":0,"stride":2}],["silu",[1],{}],'
        '["global_avg_pool",[2],{}],["flatten",[3],{}],["linear",[4],{"out_features":6}],'
        '["sigmoid",[5],{}],["unflatten",[6],{}],["mul",[2,7],{}],["tanh",[8],{}],["mul",[9,2],{}]]',
    ),
    "graph-tokens": OpSpec.of(
        "graph",
        (4, 5, 3),
        graph='[["tokens",[0],{}],["layer_norm",[1],{"epsilon":1000000}],["silu",[2],{}],'
        '["token_mean",[3],{}]]',
    ),
}
"""By name, which begins with that of the kind."""
