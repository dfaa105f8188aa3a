"""Ops that say themselves what they consist of: descriptions come over the wire and are checked."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from latlas_ops import OpSpec
from latlas_ops.errors import InvalidInputError
from latlas_ops.graph import PRIMITIVES
from latlas_ops.graph_kind import _PRIMITIVES, Step, describe, steps_of

CONV = Step("conv", (0,), {"kernel": 3, "out_channels": 4, "padding": 1, "stride": 1})
RELU = Step("relu", (1,))


def graph(text: str, *inputs: Sequence[int]) -> OpSpec:
    return OpSpec.of("graph", *(inputs or ((3, 8, 8),)), graph=text)


def test_a_description_says_steps_without_defaults_and_reads_back() -> None:
    text = describe([CONV, RELU])
    assert text == '[["conv",[0],{"kernel":3,"out_channels":4,"padding":1}],["relu",[1],{}]]'
    assert describe(steps_of(text, 1)) == text
    assert graph(text).outputs == ((4, 8, 8),)


def test_a_description_holds_for_every_size_of_the_input() -> None:
    text = describe([CONV, RELU])
    assert graph(text, (7, 20, 10)).outputs == ((4, 20, 10),)


def test_a_long_description_is_shown_by_its_digest() -> None:
    op = graph(describe([CONV, RELU]))
    assert str(op).startswith("graph(3x8x8; graph=#")
    assert len(str(op)) < 40


def test_every_primitive_but_one_can_stand_in_a_description() -> None:
    assert set(PRIMITIVES) - set(_PRIMITIVES) == {"crop"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not the description of a graph"),
        ("{}", "not the canonical description"),
        ("[]", "of 1 to 10000 steps"),
        ("[[]]", "not the description"),
        ('[["relu",[0]]]', "not the canonical"),
        ('[["relu", [0], {}]]', "not the canonical"),
        ('[["nonsense",[0],{}]]', "not the description"),
        ('[["relu",[1],{}]]', r"step 0 \(relu\) reads 1, which is not before it"),
        ('[["relu",[-1],{}]]', "reads -1"),
        ('[["relu",["a"],{}]]', "reads 'a'"),
        ('[["relu",[true],{}]]', "reads True"),
        ('[["relu",[0,0],{}]]', "reads 1 tensors"),
        ('[["add",[0],{}]]', "reads 2 tensors"),
        ('[["concat",[0],{}]]', "reads 2 or more tensors"),
        ('[["relu",[0],{"x":1}]]', r"has no \['x'\]"),
        ('[["linear",[0],{}]]', r"needs \['out_features'\]"),
        ('[["flatten",[0],{}],["linear",[1],{"out_features":0}]]', "out_features=0"),
        ('[["flatten",[0],{}],["linear",[1],{"out_features":1.5}]]', "out_features=1.5"),
        ('[["flatten",[0],{}],["linear",[1],{"out_features":9999999999999}]]', "to 10995"),
        ('[["relu",[0],{}],["relu",[0],{}]]', "nobody reads step 0"),
        ('[["linear",[0],{"out_features":3}]]', r"linear0 cannot read a tensor \(3, 8, 8\)"),
        ('[["flatten",[0],{}],["add",[0,1],{}]]', "cannot add"),
        ('[["flatten",[0],{}],["mul",[0,1],{}]]', "cannot multiply"),
        ('[["conv",[0],{"kernel":9,"out_channels":4,"padding":0}]]', "nothing is left"),
    ],
)
def test_a_malformed_description_is_refused_by_step(text: str, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        graph(text)


def test_an_input_that_nobody_reads_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="nobody reads input 1"):
        graph('[["relu",[0],{}]]', (3, 8, 8), (3, 8, 8))


def test_deep_json_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="not the description"):
        graph("[" * 100_000)


def test_causal_attention_has_one_spelling() -> None:
    def attention(causal: object) -> str:
        return json.dumps([["attention", [0, 0, 0], {"causal": causal, "heads": 2}]])

    text = attention(1).replace(" ", "")
    assert graph(text, (5, 8)).outputs == ((5, 8),)
    with pytest.raises(InvalidInputError, match="causal=2"):
        graph(attention(2).replace(" ", ""), (5, 8))
