"""Transformers: shapes, costs, and that layers are what they are called."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from latlas_ops import Network, OpSpec, get_space
from latlas_ops.costs import op_cost
from latlas_ops.errors import InvalidInputError
from latlas_ops.lowering import lower
from latlas_ops.network import NETWORK_INPUT
from latlas_ops.weights import random_weights
from latlas_ops.writers.torch_writer import torch_module

LENGTH, FEATURES, HEADS, HIDDEN = 7, 16, 4, 24


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_an_encoder_layer_is_torch_s_own(norm: str) -> None:
    op = OpSpec.of(
        "encoder_layer",
        (LENGTH, FEATURES),
        heads=HEADS,
        qkv_features=FEATURES,
        ffn_features=HIDDEN,
        norm=norm,
        activation="gelu",
    )
    weights = random_weights(lower(Network.chain([op])), np.random.default_rng(1))
    own = torch_module(Network.chain([op]), weights)
    theirs = nn.TransformerEncoderLayer(
        FEATURES, HEADS, HIDDEN, 0.0, "gelu", batch_first=True, norm_first=norm == "pre"
    ).eval()
    given = {name.removeprefix("0."): torch.from_numpy(array) for name, array in weights.items()}
    projections = ("query", "key", "value")
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([given[f"{p}.weight"] for p in projections]),
            "self_attn.in_proj_bias": torch.cat([given[f"{p}.bias"] for p in projections]),
            **{
                f"{name}.{role}": given[f"{ours}.{role}"]
                for name, ours in (
                    ("self_attn.out_proj", "out"),
                    ("linear1", "ffn1"),
                    ("linear2", "ffn2"),
                    ("norm1", "norm1"),
                    ("norm2", "norm2"),
                )
                for role in ("weight", "bias")
            },
        }
    )
    tokens = torch.randn(2, LENGTH, FEATURES, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(own(tokens), theirs(tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_decoder_layer_is_torch_s_own(norm: str, causal: bool) -> None:
    source = 5
    whole = (LENGTH + source, FEATURES)
    network = Network(
        (
            OpSpec.of("slice", whole, length=LENGTH, features=FEATURES),
            OpSpec.of("slice", whole, start=LENGTH, length=source, features=FEATURES),
            OpSpec.of(
                "decoder_layer",
                (LENGTH, FEATURES),
                (source, FEATURES),
                heads=HEADS,
                cross_heads=HEADS,
                causal=causal,
                qkv_features=FEATURES,
                ffn_features=HIDDEN,
                norm=norm,
                activation="relu",
            ),
        ),
        ((NETWORK_INPUT,), (NETWORK_INPUT,), (0, 1)),
    )
    weights = random_weights(lower(network), np.random.default_rng(1))
    own = torch_module(network, weights)
    theirs = nn.TransformerDecoderLayer(
        FEATURES, HEADS, HIDDEN, 0.0, "relu", batch_first=True, norm_first=norm == "pre"
    ).eval()
    given = {name.removeprefix("2."): torch.from_numpy(array) for name, array in weights.items()}
    plain = {"linear1": "ffn1", "linear2": "ffn2", **{f"norm{i}": f"norm{i}" for i in (1, 2, 3)}}
    state = {
        f"{name}.{role}": given[f"{ours}.{role}"]
        for name, ours in plain.items()
        for role in ("weight", "bias")
    }
    for name, ours in (("self_attn", "self"), ("multihead_attn", "cross")):
        for role in ("weight", "bias"):
            projections = [given[f"{ours}_{part}.{role}"] for part in ("query", "key", "value")]
            state[f"{name}.in_proj_{role}"] = torch.cat(projections)
            state[f"{name}.out_proj.{role}"] = given[f"{ours}_out.{role}"]
    theirs.load_state_dict(state)
    tokens = torch.randn(2, *whole, generator=torch.Generator().manual_seed(0))
    mask = nn.Transformer.generate_square_subsequent_mask(LENGTH) if causal else None
    with torch.inference_mode():
        expected = theirs(tokens[:, :LENGTH], tokens[:, LENGTH:], tgt_mask=mask)
        output = own(tokens)
    assert (output - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_several_memories_are_one_behind_another() -> None:
    attributes: dict[str, Any] = {
        "heads": 2,
        "cross_heads": 2,
        "qkv_features": 8,
        "ffn_features": 8,
    }
    two = OpSpec.of("decoder_layer", (5, 12), (3, 20), (4, 20), **attributes)
    one = OpSpec.of("decoder_layer", (5, 12), (7, 20), **attributes)
    assert two.outputs == one.outputs == ((5, 12),)
    assert op_cost(two).macs == op_cost(one).macs
    assert op_cost(two).parameters == op_cost(one).parameters


def test_macs_count_projections_scores_and_mixing() -> None:
    length, features, width = 5, 12, 8
    op = OpSpec.of("attention", (length, features), heads=2, qkv_features=width)
    projections = 4 * length * features * width
    assert op_cost(op).macs == projections + 2 * length * length * width
    weights = 3 * (features * width + width) + width * features + features
    assert op_cost(op).parameters == weights


def test_attention_to_a_longer_sequence_costs_its_length() -> None:
    op = OpSpec.of("cross_attention", (5, 12), (9, 20), heads=2, qkv_features=8)
    assert op.outputs == ((5, 12),)
    projections = 5 * 12 * 8 * 2 + 2 * 9 * 20 * 8
    assert op_cost(op).macs == projections + 2 * 5 * 9 * 8


@pytest.mark.parametrize(
    ("kind", "shapes", "attributes", "message"),
    [
        ("attention", [(5, 12)], {"heads": 3, "qkv_features": 8}, "3 heads do not divide"),
        ("layer_norm", [(4, 5, 7)], {}, "takes inputs with"),
        ("cross_attention", [(5, 12)], {"heads": 2, "qkv_features": 8}, "takes inputs with"),
        ("linear", [(4, 5, 7)], {"out_features": 3}, "takes inputs with"),
        ("slice", [(5, 12)], {"start": 3, "length": 3, "features": 12}, "3 tokens from 3 on"),
        ("slice", [(5, 12)], {"length": 5, "features": 13}, "of 13 features, are more than"),
        (
            "decoder_layer",
            [(5, 12), (3, 20), (3, 21)],
            {"heads": 2, "cross_heads": 2, "qkv_features": 8, "ffn_features": 8},
            "memory: .* of different size",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    kind: str, shapes: list[tuple[int, ...]], attributes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        OpSpec.of(kind, *shapes, **attributes)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_first_layer_is_an_entry_of_its_own(norm: str) -> None:
    space = get_space(f"encoder-{norm}-norm")
    assert space.count().distinct == 2 * sum(9**depth for depth in range(2, 7))
    assert len(space.slot_entries.ops) == 2 * 9 * 2 + 2
    smallest, largest = (space.network(arch) for arch in space.archs(space.extremes()))
    assert (len(smallest.ops), len(largest.ops)) == (3, 7)
    first = [op.attribute("first") for op in largest.ops[:-1]]
    assert first == [True] + [False] * 5
