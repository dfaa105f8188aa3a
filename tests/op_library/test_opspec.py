import json
from typing import Any

import numpy as np
import pytest

from latlas_ops import OpSpec, get_space
from latlas_ops.errors import InvalidInputError


def test_a_key_leads_back_to_the_op(example_op: OpSpec) -> None:
    again = OpSpec.from_key(example_op.key)
    assert again == example_op
    assert again.key == example_op.key
    assert hash(again) == hash(example_op)


def test_no_two_ops_of_a_space_share_key_or_digest() -> None:
    ops = get_space("ofa-mobilenetv3").slot_entries.ops
    assert len({op.key for op in ops}) == len(ops)
    assert len({op.digest for op in ops}) == len(ops)


def test_the_key_does_not_depend_on_how_the_op_was_written() -> None:
    short = OpSpec.of("conv", [3, 8, 8], out_channels=4, kernel=1)
    long = OpSpec.of(
        "conv",
        np.array([3, 8, 8]),
        kernel=1,
        stride=1,
        groups=1,
        activation="none",
        out_channels=4,
    )
    assert short == long
    assert short.key == long.key


def test_the_key_is_stable_between_versions() -> None:
    op = OpSpec.of("linear", (4,), out_features=2)
    assert op.key == (
        '{"attributes":{"activation":"none","out_features":2},"dtype":"float32",'
        '"inputs":[[4]],"kind":"linear"}'
    )
    assert op.digest == "9a50d563db5d"


def test_dtype_is_part_of_what_an_op_is() -> None:
    single = OpSpec.of("linear", (4,), out_features=2)
    half = OpSpec.of("linear", (4,), out_features=2, dtype="float16")
    assert single != half
    assert OpSpec.from_key(half.key).dtype == "float16"


def test_attributes_are_read_by_name() -> None:
    op = OpSpec.of("conv", (3, 8, 8), out_channels=4, kernel=1, activation="relu")
    assert op.attribute("activation") == "relu"
    assert op.integer("stride") == 1
    assert str(op).startswith("conv(3x8x8; activation=relu")


@pytest.mark.parametrize(
    ("kind", "shape", "attributes", "message"),
    [
        ("convolution", (3, 8, 8), {}, "unknown op kind 'convolution'; known: conv"),
        ("conv", (3, 8, 8), {"kernel": 3}, "conv needs the attribute 'out_channels'"),
        (
            "conv",
            (3, 8, 8),
            {"out_channels": 4, "kernel": 3, "dilation": 2},
            "conv has no attribute 'dilation'; it has out_channels, kernel",
        ),
        ("conv", (3, 8, 8), {"out_channels": "4", "kernel": 3}, "out_channels must be int"),
        ("conv", (3, 8, 8), {"out_channels": True, "kernel": 3}, "out_channels must be int"),
        ("conv", (3, 8, 8), {"out_channels": 4, "kernel": 0}, "kernel=0 is less than 1"),
        (
            "conv",
            (3, 8, 8),
            {"out_channels": 4, "kernel": 1, "activation": "swish"},
            "activation='swish' is not one of none, relu",
        ),
        (
            "mbconv",
            (8, 8, 8),
            {"out_channels": 8, "expanded_channels": 16, "kernel": 3, "skip": 1},
            "skip must be bool, not 1",
        ),
        ("conv", (8, 8), {"out_channels": 4, "kernel": 3}, "conv takes inputs with 3 axes"),
        ("conv", (3, 0, 8), {"out_channels": 4, "kernel": 3}, "must be positive"),
        ("conv", (3, 8.5, 8), {"out_channels": 4, "kernel": 3}, "sequences of integers"),
        ("conv", "388", {"out_channels": 4, "kernel": 3}, "sequences of integers"),
        ("linear", (4,), {"out_features": 2, "dtype": "int4"}, "dtype 'int4' is not one of"),
        (
            "conv",
            (3, 8, 8),
            {"out_channels": 4, "kernel": 3, "groups": 2},
            "2 groups do not divide 3 into 4 channels",
        ),
        (
            "mbconv",
            (8, 8, 8),
            {"out_channels": 16, "expanded_channels": 16, "kernel": 3, "skip": True},
            "cannot add (16, 8, 8) and (8, 8, 8)",
        ),
        (
            "mbconv",
            (8, 8, 8),
            {"out_channels": 8, "expanded_channels": 4, "expand": False, "kernel": 3},
            "expanded_channels=4 must equal the input's 8 channels",
        ),
        (
            "pool",
            (8, 8, 8),
            {"mode": "global_avg", "kernel": 3},
            "global_avg covers the whole image",
        ),
    ],
)
def test_a_bad_op_is_refused_in_one_line(
    kind: str, shape: Any, attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        OpSpec.of(kind, shape, **attributes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "conv-3-8-8",
        "[]",
        "[" * 100_000,
        '{"kind":"linear"}',
        '{"attributes":{},"dtype":"float32","inputs":5,"kind":"linear"}',
        '{"attributes":[],"dtype":"float32","inputs":[[4]],"kind":"linear"}',
        '{"attributes":{"kind":"x"},"dtype":"float32","inputs":[[4]],"kind":"linear"}',
        '{"attributes":{"out_features":2},"dtype":"float32","inputs":[[4.0]],"kind":"linear"}',
        '{"attributes":{"out_features":2},"dtype":[],"inputs":[[4]],"kind":"linear"}',
        '{"attributes":{"out_features":2},"dtype":"float32","inputs":[[4]],"kind":[]}',
    ],
)
def test_a_text_that_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidInputError):
        OpSpec.from_key(key)


def test_the_message_about_a_bad_key_stays_short() -> None:
    with pytest.raises(InvalidInputError, match="not an op key") as caught:
        OpSpec.from_key(json.dumps("x" * 10_000))
    assert len(str(caught.value)) < 300
