"""What the tests of the op library share: a space small enough to enumerate, one op per case."""

from collections.abc import Callable, Mapping

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from latlas_ops import OpSpec
from latlas_ops.spaces.mobile import MobileSpace, Stage

EXAMPLES = {
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
    "deep-stem": OpSpec.of("deep_stem", (3, 17, 14), mid_channels=8, out_channels=16),
    "deep-stem-plain": OpSpec.of(
        "deep_stem", (3, 16, 16), mid_channels=8, out_channels=16, residual=False
    ),
    "reduction-block": OpSpec.of("reduction_block", (6, 8, 10), out_channels=12),
    "classifier": OpSpec.of("classifier", (8, 4, 6), classes=5),
    "classifier-norm": OpSpec.of("classifier", (8, 4, 4), classes=5, norm=True, activation="relu"),
}


@pytest.fixture(params=list(EXAMPLES.values()), ids=list(EXAMPLES))
def example_op(request: pytest.FixtureRequest) -> OpSpec:
    """Every kind, with odd sizes, strides, groups and every activation among them."""
    op: OpSpec = request.param
    return op


@pytest.fixture(scope="session")
def examples() -> Mapping[str, OpSpec]:
    """All of `example_op` at once, by name."""
    return EXAMPLES


@pytest.fixture(scope="session")
def tiny_space() -> MobileSpace:
    """A space with every sort of gene, and 8192 combinations of choices."""
    return MobileSpace(
        name="tiny",
        version=3,
        in_channels=1,
        classes=4,
        resolutions=(12, 17),
        stem_channels=8,
        stem_stride=2,
        stages=(Stage(16, 1, "relu"), Stage(32, 2, squeeze_excite=True)),
        depths=(1, 2),
        kernels=(3, 5),
        expansions=(2, 3),
        widths=(0.5, 1.0),
        head_channels=24,
    )


RunOnnx = Callable[..., NDArray[np.float32]]


@pytest.fixture(scope="session")
def run_onnx() -> RunOnnx:
    """Runs a model on one thread: `run_onnx(model_bytes, images, optimise=True)`."""

    def run(
        model_bytes: bytes, images: NDArray[np.float32], *, optimise: bool = True
    ) -> NDArray[np.float32]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
        )
        session = onnxruntime.InferenceSession(
            model_bytes, options, providers=["CPUExecutionProvider"]
        )
        output: NDArray[np.float32] = session.run(["output"], {"input": images})[0]
        return output

    return run
