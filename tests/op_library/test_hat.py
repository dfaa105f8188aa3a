"""HAT's translation networks: sizes, wiring, features, and that they compute what they should."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from latlas_ops import ArchBatch, ArchConfig, Network, get_space
from latlas_ops.costs import network_cost
from latlas_ops.errors import InvalidInputError, SpaceMismatchError
from latlas_ops.lowering import lower
from latlas_ops.network import NETWORK_INPUT
from latlas_ops.spaces.hat import HAT_FEATURES, HatSpace, hat_features
from latlas_ops.weights import Weights, random_weights
from latlas_ops.writers.onnx_writer import write_onnx
from latlas_ops.writers.opgraph import read_opgraph, write_opgraph
from latlas_ops.writers.torch_writer import torch_module

RunOnnx = Callable[..., NDArray[np.float32]]
TOLERANCE = 2e-6

SMALL = HatSpace(
    "small",
    1,
    source_length=5,
    target_length=7,
    encoder_features=(8, 12),
    decoder_features=(8, 12),
    encoder_depth=3,
    decoder_depths=(1, 2),
    heads=(2, 4),
    ffn_features=(16, 20),
    qkv_features=8,
    vocabulary=11,
)


def hat() -> HatSpace:
    space = get_space("hat")
    assert isinstance(space, HatSpace)
    return space


def arch_of(space: HatSpace, values: dict[str, int]) -> ArchConfig:
    """The architecture with these values, the first choice of every other gene."""
    assert set(values) <= {gene.name for gene in space.genes}
    row = [
        gene.choices.index(values[gene.name]) if gene.name in values else 0 for gene in space.genes
    ]
    return space.archs(ArchBatch(space, space.canonical(np.array([row]))))[0]


def network_of(space: HatSpace, **values: int) -> Network:
    return space.network(arch_of(space, {name.replace("__", "."): v for name, v in values.items()}))


# -- size ----------------------------------------------------------------------------------


def test_the_space_has_the_size_that_its_choices_give() -> None:
    count = hat().count()
    encoder, decoder_layer = 2 * (2 * 3) ** 6, 2 * 2 * 3 * 3
    assert count.distinct == encoder * 2 * sum(decoder_layer**depth for depth in range(1, 7))
    # Sampled as HAT samples, layers that are left out included.
    assert count.flat == encoder * 2 * 6 * decoder_layer**6
    assert 1e15 < count.flat < 1e16


def test_it_consists_of_few_ops() -> None:
    slices, classifiers = 2 + 2, 2
    encoder_layers = 2 * 6
    decoder_layers = 2 * 2 * 36
    total = slices + classifiers + encoder_layers + decoder_layers
    assert len(hat().slot_entries.ops) == total == 162


def test_the_transformer_of_vaswani_et_al_is_in_it() -> None:
    values = {f"{part}.layer{i}.heads": 8 for part in ("encoder", "decoder") for i in range(6)}
    values |= {f"{part}.layer{i}.ffn": 2048 for part in ("encoder", "decoder") for i in range(6)}
    values |= {f"decoder.layer{i}.cross_heads": 8 for i in range(6)} | {"decoder.depth": 6}
    space = hat()
    network = space.network(arch_of(space, values))
    theirs = nn.Transformer(
        512, 8, 6, 6, 2048, batch_first=True, device="meta"
    )  # the base model, section 3
    norms_behind_the_last_layers = 2 * 2 * 512
    expected = sum(weight.numel() for weight in theirs.parameters()) - norms_behind_the_last_layers
    classifier = 512 * 32768 + 32768
    assert network_cost(network).parameters - classifier == expected


# -- wiring --------------------------------------------------------------------------------


def test_decoder_layers_read_the_last_encoder_layers() -> None:
    network = network_of(SMALL, decoder__depth=2, decoder__layer1__attended=3)
    assert [op.kind for op in network.ops] == [
        *("slice", *["encoder_layer"] * 3),
        *("slice", *["decoder_layer"] * 2),
        "linear",
    ]
    assert network.wiring == (
        *((NETWORK_INPUT,), (0,), (1,), (2,)),
        *((NETWORK_INPUT,), (4, 3), (5, 3, 2, 1)),
        (6,),
    )
    assert network.input_shape == (5 + 7, 12)
    assert network.ops[-1].outputs == ((7, 11),)


def test_a_layer_that_is_not_there_hands_on_what_it_reads() -> None:
    network = network_of(SMALL, decoder__depth=1, decoder__layer0__attended=2)
    assert network.wiring[-2:] == ((4, 3, 2), (5,))


def test_both_embeddings_are_the_first_features_of_the_widest_one() -> None:
    network = network_of(SMALL, encoder__features=8, decoder__features=12)
    source, target = (op for op in network.ops if op.kind == "slice")
    assert (source.outputs, target.outputs) == (((5, 8),), ((7, 12),))
    assert (source.attribute("start"), target.attribute("start")) == (0, 5)


def test_more_layers_than_the_encoder_has_cannot_be_attended_to() -> None:
    with pytest.raises(InvalidInputError, match="cannot attend to 3 of 2 encoder layers"):
        HatSpace("short", 1, encoder_depth=2)


# -- what is computed ----------------------------------------------------------------------


def tokens_of(space: HatSpace, seed: int = 0) -> NDArray[np.float32]:
    shape = (2, space.source_length + space.target_length, max(space.encoder_features))
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def given(weights: Weights, position: int, part: str, role: str) -> Tensor:
    return torch.from_numpy(weights[f"{position}.{part}.{role}"])


def fill(layer: nn.Module, weights: Weights, position: int, parts: dict[str, str]) -> None:
    """Gives a layer of torch our weights; `parts` maps its names to ours, attention to a prefix."""
    state = {}
    for theirs, ours in parts.items():
        for role in ("weight", "bias"):
            if theirs.endswith("attn"):
                projections = [
                    given(weights, position, f"{ours}{name}", role)
                    for name in ("query", "key", "value")
                ]
                state[f"{theirs}.in_proj_{role}"] = torch.cat(projections)
                state[f"{theirs}.out_proj.{role}"] = given(weights, position, f"{ours}out", role)
            else:
                state[f"{theirs}.{role}"] = given(weights, position, ours, role)
    layer.load_state_dict(state)


COMMON = {"linear1": "ffn1", "linear2": "ffn2", "norm1": "norm1", "norm2": "norm2"}


def test_a_network_computes_what_layers_of_torch_compute_wired_as_hat_wires_them() -> None:
    values = {"decoder.depth": 2, "decoder.layer0.attended": 3, "decoder.layer1.attended": 2}
    network = SMALL.network(arch_of(SMALL, values))
    weights = random_weights(lower(network), np.random.default_rng(1))
    images = torch.from_numpy(tokens_of(SMALL))
    source, target = images[:, :5, :8], images[:, 5:, :8]
    outputs: list[Tensor] = []
    with torch.inference_mode():
        for position in (1, 2, 3):
            layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "relu", batch_first=True).eval()
            fill(layer, weights, position, {**COMMON, "self_attn": ""})
            source = layer(source)
            outputs.insert(0, source)
        mask = nn.Transformer.generate_square_subsequent_mask(7)
        for position, attended in ((5, 3), (6, 2)):
            decoder = nn.TransformerDecoderLayer(8, 2, 16, 0.0, "relu", batch_first=True).eval()
            attention = {"self_attn": "self_", "multihead_attn": "cross_", "norm3": "norm3"}
            fill(decoder, weights, position, {**COMMON, **attention})
            target = decoder(target, torch.cat(outputs[:attended], dim=1), tgt_mask=mask)
        expected = nn.functional.linear(
            target, *(given(weights, 7, "linear", role) for role in ("weight", "bias"))
        )
        output = torch_module(network, weights)(images)
    assert (output - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_a_target_token_sees_those_before_it_only() -> None:
    network = network_of(SMALL, decoder__depth=2)
    module = torch_module(network, seed=3)
    tokens = tokens_of(SMALL)
    changed = tokens.copy()
    changed[:, 5 + 4] += 1  # the fifth token of the target
    with torch.inference_mode():
        before, after = (module(torch.from_numpy(one)).numpy() for one in (tokens, changed))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).all(axis=2).all()


def small_networks() -> list[Network]:
    genes = np.concatenate(
        [SMALL.extremes().genes, SMALL.sample(4, np.random.default_rng(5)).genes]
    )
    return [SMALL.network(arch) for arch in SMALL.archs(ArchBatch(SMALL, genes))]


def reference(network: Network, weights: Weights) -> NDArray[np.float32]:
    with torch.inference_mode():
        output: NDArray[np.float32] = torch_module(network, weights)(
            torch.from_numpy(tokens_of(SMALL))
        ).numpy()
    return output


@pytest.mark.parametrize("network", small_networks(), ids=range(6))
def test_networks_of_two_widths_give_the_same_in_every_writer(
    network: Network, run_onnx: RunOnnx
) -> None:
    weights = random_weights(lower(network), np.random.default_rng(2))
    expected = reference(network, weights)
    limit = TOLERANCE * np.abs(expected).max()
    model = write_onnx(network, weights, batch=2).model_bytes
    for optimise in (False, True):
        output = run_onnx(model, tokens_of(SMALL), optimise=optimise)
        assert np.abs(output - expected).max() <= limit
    again, same = read_opgraph(write_opgraph(network, weights).model_bytes)
    assert again == network
    np.testing.assert_array_equal(reference(again, same), expected)


@pytest.mark.parametrize("network", small_networks(), ids=range(6))
def test_networks_of_two_widths_give_the_same_in_tflite(network: Network) -> None:
    interpreter = pytest.importorskip(
        "ai_edge_litert.interpreter", reason="ai-edge-litert is not installed"
    )
    from latlas_ops.writers.tflite_writer import write_tflite

    weights = random_weights(lower(network), np.random.default_rng(2))
    expected = reference(network, weights)
    model = write_tflite(network, weights, batch=2).model_bytes
    for kernels in ("AUTO", "BUILTIN_WITHOUT_DEFAULT_DELEGATES"):
        runner = interpreter.Interpreter(
            model_content=model,
            num_threads=1,
            experimental_op_resolver_type=getattr(interpreter.OpResolverType, kernels),
        )
        runner.allocate_tensors()
        runner.set_tensor(runner.get_input_details()[0]["index"], tokens_of(SMALL))
        runner.invoke()
        output = runner.get_tensor(runner.get_output_details()[0]["index"])
        assert np.abs(output - expected).max() <= TOLERANCE * np.abs(expected).max()


# -- features ------------------------------------------------------------------------------


def test_features_are_means_over_the_layers_that_are_there() -> None:
    space = hat()
    values = {
        "encoder.features": 640,
        "decoder.depth": 2,
        "encoder.layer0.ffn": 3072,
        "encoder.layer5.heads": 8,
        "decoder.layer0.ffn": 2048,
        "decoder.layer1.heads": 8,
        "decoder.layer0.cross_heads": 8,
        "decoder.layer1.cross_heads": 8,
        "decoder.layer1.attended": 3,
    }
    (row,) = hat_features(space.batch([arch_of(space, values)]))
    assert dict(zip(HAT_FEATURES, row.tolist(), strict=True)) == {
        "encoder_embed_dim": 640,
        "encoder_layer_num": 6,
        "encoder_ffn_embed_dim_avg": pytest.approx((5 * 1024 + 3072) / 6),
        "encoder_self_attention_heads_avg": pytest.approx((5 * 4 + 8) / 6),
        "decoder_embed_dim": 512,
        "decoder_layer_num": 2,
        "decoder_ffn_embed_dim_avg": 1536,
        "decoder_self_attention_heads_avg": 6,
        "decoder_ende_attention_heads_avg": 8,
        "decoder_arbitrary_ende_attn_avg": 2,
    }


def test_other_spaces_do_not_have_the_features() -> None:
    digits = get_space("digits")
    with pytest.raises(InvalidInputError, match="'digits' does not have HAT's features"):
        hat_features(digits.extremes())
    with pytest.raises(SpaceMismatchError):
        hat().features(SMALL.extremes())


@pytest.mark.parametrize("name", ["wmt14ende_cpu_xeon_all", "wmt14ende_gpu_titanxp_all"])
def test_the_networks_that_hat_measured_have_architectures(
    third_party_data: Path, name: str
) -> None:
    """Every row of features of HAT's dataset is that of an architecture, found layer by layer.

    HAT measured a wider space than it searched: also a feed-forward of 512, and two heads.
    """
    path = third_party_data / "hat" / f"{name}.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    with path.open() as file:
        assert tuple(file.readline().split(",")[:10]) == HAT_FEATURES
    measured = np.loadtxt(path, delimiter=",", skiprows=1)[:, :10]
    space = HatSpace("measured", 1, heads=(2, 4, 8), ffn_features=(512, 1024, 2048, 3072))
    archs = []
    for row in measured:
        features = dict(zip(HAT_FEATURES, row.tolist(), strict=True))
        values = {
            "encoder.features": int(features["encoder_embed_dim"]),
            "decoder.features": int(features["decoder_embed_dim"]),
            "decoder.depth": int(features["decoder_layer_num"]),
        }
        for part, family, choices, feature in (
            ("encoder", "ffn", space.ffn_features, "encoder_ffn_embed_dim_avg"),
            ("encoder", "heads", space.heads, "encoder_self_attention_heads_avg"),
            ("decoder", "ffn", space.ffn_features, "decoder_ffn_embed_dim_avg"),
            ("decoder", "heads", space.heads, "decoder_self_attention_heads_avg"),
            ("decoder", "cross_heads", space.heads, "decoder_ende_attention_heads_avg"),
            ("decoder", "attended", space.attended, "decoder_arbitrary_ende_attn_avg"),
        ):
            depth = int(features[f"{part}_layer_num"])
            picked = layers_of_mean(choices, depth, round(features[feature] * depth))
            values |= {f"{part}.layer{i}.{family}": value for i, value in enumerate(picked)}
        archs.append(arch_of(space, values))
    np.testing.assert_allclose(hat_features(space.batch(archs)), measured, rtol=1e-12)


def layers_of_mean(choices: tuple[int, ...], depth: int, total: int) -> list[int]:
    """Choices of `depth` layers that add up to `total`."""
    for value in reversed(choices):
        rest, layers = total - value, depth - 1
        if layers == 0 and rest == 0:
            return [value]
        if layers and layers * choices[0] <= rest <= layers * choices[-1]:
            found = layers_of_mean(choices, layers, rest)
            if found:
                return [value, *found]
    return []
