"""Translation networks of HAT: an encoder, and a decoder that attends to the encoder's last layers.

Wang et al., ACL 2020, section 3.1; the choices are those of the authors' WMT'14 En-De supernet
(`configs/wmt14.en-de/supertransformer/space0.yml`): six encoder layers and one to six decoder
layers, layer norms after the sums, ReLU, queries, keys and values 512 wide in all. A decoder layer
attends to the last one, two or three encoder layers, whose outputs stand one behind another in its
keys and values, the last layer's first, as in the authors' code: to 30, 60 or 90 tokens.

What is computed is one pass over 30 source and 30 target tokens, all of the target known and
masked, as in training or when a translation is scored. HAT's own figures are of decoding one token
after another, 30 passes over one token each, so that its decoders take far longer than these.

The input `(source + target length, widest embedding)` is embedded tokens, those of the source
first; looking them up is not part of the network. A narrower embedding is the first features of
the widest one, as in the supernet, so that the networks begin with two `slice` ops.

First layers are no entries of their own here, as they are in `latlas_ops.spaces.encoder`: what
runtimes fuse differently are some reshapes, which is little in layers of this size, and the first
decoder layer alone would take six times as many networks to measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from latlas_ops.errors import InvalidInputError
from latlas_ops.network import NETWORK_INPUT
from latlas_ops.opspec import OpSpec
from latlas_ops.space import INACTIVE, ArchBatch, Gene, SearchSpace, Slot

HAT_FEATURES = (
    "encoder_embed_dim",
    "encoder_layer_num",
    "encoder_ffn_embed_dim_avg",
    "encoder_self_attention_heads_avg",
    "decoder_embed_dim",
    "decoder_layer_num",
    "decoder_ffn_embed_dim_avg",
    "decoder_self_attention_heads_avg",
    "decoder_ende_attention_heads_avg",
    "decoder_arbitrary_ende_attn_avg",
)
"""What HAT's predictor of latency reads, by the names and in the order of its datasets."""

_ENCODER_FEATURES, _DECODER_FEATURES, _DEPTH = range(3)
_FIRST_LAYER_GENE = 3
_ENCODER_FAMILIES = ("heads", "ffn")
_DECODER_FAMILIES = ("heads", "cross_heads", "ffn", "attended")


@dataclass(frozen=True, eq=False)
class HatSpace(SearchSpace):
    """Translation networks.

    Attributes:
        name, version: what the space is called.
        source_length, target_length: tokens of the two sentences.
        encoder_features, decoder_features: embedding sizes to choose from.
        encoder_depth: layers of the encoder, always as many.
        decoder_depths: numbers of layers of the decoder.
        heads: heads of every attention of a layer.
        ffn_features: hidden sizes of the feed-forward.
        attended: how many of the last encoder layers a decoder layer attends to.
        qkv_features: width of queries, keys and values.
        vocabulary: outputs per target token, of a linear layer with a bias, which HAT's lacks.

    Raises:
        InvalidInputError: a decoder layer could attend to more layers than the encoder has.
    """

    name: str
    version: int
    source_length: int = 30
    target_length: int = 30
    encoder_features: tuple[int, ...] = (512, 640)
    decoder_features: tuple[int, ...] = (512, 640)
    encoder_depth: int = 6
    decoder_depths: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    heads: tuple[int, ...] = (4, 8)
    ffn_features: tuple[int, ...] = (1024, 2048, 3072)
    attended: tuple[int, ...] = (1, 2, 3)
    qkv_features: int = 512
    vocabulary: int = 32768

    def __post_init__(self) -> None:
        if max(self.attended) > self.encoder_depth:
            raise InvalidInputError(
                f"space {self.name!r}: a decoder layer cannot attend to {max(self.attended)} of "
                f"{self.encoder_depth} encoder layers"
            )

    @cached_property
    def genes(self) -> tuple[Gene, ...]:  # type: ignore[override]
        """Both embedding sizes, the decoder's depth, then the genes of every layer."""
        found = [
            Gene("encoder.features", self.encoder_features),
            Gene("decoder.features", self.decoder_features),
            Gene("decoder.depth", self.decoder_depths),
        ]
        choices = {
            "heads": self.heads,
            "cross_heads": self.heads,
            "ffn": self.ffn_features,
            "attended": self.attended,
        }
        for layer in range(self.encoder_depth):
            found += [
                Gene(f"encoder.layer{layer}.{family}", choices[family])
                for family in _ENCODER_FAMILIES
            ]
        for layer in range(self.decoder_depths[-1]):
            least = next(i for i, depth in enumerate(self.decoder_depths) if depth > layer)
            found += [
                Gene(f"decoder.layer{layer}.{family}", choices[family], _DEPTH, least)
                for family in _DECODER_FAMILIES
            ]
        return tuple(found)

    def _encoder_gene(self, layer: int, family: str) -> int:
        place = layer * len(_ENCODER_FAMILIES) + _ENCODER_FAMILIES.index(family)
        return _FIRST_LAYER_GENE + place

    def _decoder_gene(self, layer: int, family: str) -> int:
        place = layer * len(_DECODER_FAMILIES) + _DECODER_FAMILIES.index(family)
        return self._encoder_gene(self.encoder_depth, _ENCODER_FAMILIES[0]) + place

    @cached_property
    def slots(self) -> tuple[Slot, ...]:  # type: ignore[override]
        """Source tokens, encoder layers, target tokens, decoder layers, the vocabulary."""
        encoder = [
            Slot(
                f"encoder.layer{layer}",
                (_ENCODER_FEATURES, *(self._encoder_gene(layer, one) for one in _ENCODER_FAMILIES)),
            )
            for layer in range(self.encoder_depth)
        ]
        common = (_ENCODER_FEATURES, _DECODER_FEATURES, _DEPTH)
        decoder = [
            Slot(
                f"decoder.layer{layer}",
                (*common, *(self._decoder_gene(layer, one) for one in _DECODER_FAMILIES)),
            )
            for layer in range(self.decoder_depths[-1])
        ]
        return (
            Slot("source", (_ENCODER_FEATURES,)),
            *encoder,
            Slot("target", (_DECODER_FEATURES,)),
            *decoder,
            Slot("classifier", (_DECODER_FEATURES,)),
        )

    @property
    def resolution_gene(self) -> None:
        """Sequences have one length."""
        return None

    @property
    def _target_slot(self) -> int:
        return 1 + self.encoder_depth

    def slot_sources(self, slot: int, genes: Sequence[int]) -> Sequence[int]:
        """See `SearchSpace.slot_sources`: a decoder layer also reads encoder layers, last first."""
        if slot in (0, self._target_slot):
            return (NETWORK_INPUT,)
        layer = slot - self._target_slot - 1
        is_decoder_layer = 0 <= layer < self.decoder_depths[-1]
        choice = genes[self._decoder_gene(layer, "attended")] if is_decoder_layer else INACTIVE
        if choice == INACTIVE:
            return (slot - 1,)
        last = self.encoder_depth  # the slot of the last encoder layer
        return (slot - 1, *range(last, last - self.attended[choice], -1))

    def slot_op(self, slot: int, choices: Sequence[int]) -> OpSpec | None:
        """See `SearchSpace.slot_op`."""
        if slot == 0:
            return self._slice(0, self.source_length, self.encoder_features[choices[0]])
        if slot == self._target_slot:
            features = self.decoder_features[choices[0]]
            return self._slice(self.source_length, self.target_length, features)
        if slot == len(self.slots) - 1:
            sequence = (self.target_length, self.decoder_features[choices[0]])
            return OpSpec.of("linear", sequence, out_features=self.vocabulary)
        if slot < self._target_slot:
            features, heads, ffn = choices
            return OpSpec.of(
                "encoder_layer",
                (self.source_length, self.encoder_features[features]),
                heads=self.heads[heads],
                qkv_features=self.qkv_features,
                ffn_features=self.ffn_features[ffn],
                activation="relu",
                norm="post",
            )
        layer = slot - self._target_slot - 1
        encoder_features, features, depth, heads, cross_heads, ffn, attended = choices
        if self.decoder_depths[depth] <= layer:
            return None
        memory = (self.source_length, self.encoder_features[encoder_features])
        return OpSpec.of(
            "decoder_layer",
            (self.target_length, self.decoder_features[features]),
            *[memory] * self.attended[attended],
            heads=self.heads[heads],
            cross_heads=self.heads[cross_heads],
            qkv_features=self.qkv_features,
            ffn_features=self.ffn_features[ffn],
            activation="relu",
            norm="post",
        )

    def _slice(self, start: int, length: int, features: int) -> OpSpec:
        whole = (
            self.source_length + self.target_length,
            max(*self.encoder_features, *self.decoder_features),
        )
        return OpSpec.of("slice", whole, start=start, length=length, features=features)

    def features(self, batch: ArchBatch) -> NDArray[np.float64]:
        """HAT's ten features of architectures, `(n_archs, 10)`, in the order of `HAT_FEATURES`.

        Embedding sizes and hidden sizes are in features, depths in layers; means are over the
        layers that are there.

        Raises:
            SpaceMismatchError: the architectures belong to another space or version.
        """
        self.require_same(batch.space)
        genes = batch.genes.astype(np.intp)

        def chosen(choices: Sequence[int], gene: int) -> NDArray[np.float64]:
            return np.asarray(choices, dtype=np.float64)[genes[:, gene]]

        def mean(choices: Sequence[int], indices: Sequence[int]) -> NDArray[np.float64]:
            picked = genes[:, indices]
            there = picked != INACTIVE
            values = np.where(there, np.asarray(choices, dtype=np.float64)[picked], 0.0)
            return np.asarray(values.sum(axis=1) / there.sum(axis=1))

        def encoder(choices: Sequence[int], family: str) -> NDArray[np.float64]:
            layers = range(self.encoder_depth)
            return mean(choices, [self._encoder_gene(layer, family) for layer in layers])

        def decoder(choices: Sequence[int], family: str) -> NDArray[np.float64]:
            layers = range(self.decoder_depths[-1])
            return mean(choices, [self._decoder_gene(layer, family) for layer in layers])

        columns = (
            chosen(self.encoder_features, _ENCODER_FEATURES),
            np.full(len(batch), float(self.encoder_depth)),
            encoder(self.ffn_features, "ffn"),
            encoder(self.heads, "heads"),
            chosen(self.decoder_features, _DECODER_FEATURES),
            chosen(self.decoder_depths, _DEPTH),
            decoder(self.ffn_features, "ffn"),
            decoder(self.heads, "heads"),
            decoder(self.heads, "cross_heads"),
            decoder(self.attended, "attended"),
        )
        return np.stack(columns, axis=1)


def hat_features(batch: ArchBatch) -> NDArray[np.float64]:
    """HAT's ten features of architectures of a `HatSpace`, `(n_archs, 10)`; see its `features`.

    Raises:
        InvalidInputError: the space is no `HatSpace`.
    """
    if not isinstance(batch.space, HatSpace):
        raise InvalidInputError(f"space {batch.space.name!r} does not have HAT's features")
    return batch.space.features(batch)
