"""Transformer encoders: depth, width and, per layer, heads and the size of the feed-forward.

The genes are those that HAT (Wang et al., ACL 2020, section 3.1) searches in its encoders:
embedding size, number of layers, and per layer the hidden size of the feed-forward and the number
of heads; the width of queries, keys and values is fixed, as there. Sizes are smaller, for networks
of milliseconds on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from latlas_ops.opspec import OpSpec
from latlas_ops.space import Gene, SearchSpace, Slot


@dataclass(frozen=True, eq=False)
class EncoderSpace(SearchSpace):
    """Encoders of one order of norm.

    Attributes:
        name, version: what the space is called.
        norm: `pre` or `post`.
        length: tokens in a sequence.
        features: embedding sizes to choose from.
        depths: numbers of layers.
        heads: heads per layer.
        ffn_features: hidden sizes of the feed-forward.
        qkv_features: width of queries, keys and values.
        classes: outputs per token.
    """

    name: str
    version: int
    norm: str
    length: int = 64
    features: tuple[int, ...] = (192, 256)
    depths: tuple[int, ...] = (2, 3, 4, 5, 6)
    heads: tuple[int, ...] = (2, 4, 8)
    ffn_features: tuple[int, ...] = (256, 512, 1024)
    qkv_features: int = 256
    classes: int = 64

    @cached_property
    def genes(self) -> tuple[Gene, ...]:  # type: ignore[override]
        """Embedding size, depth, then heads and feed-forward of every layer."""
        found = [Gene("features", self.features), Gene("depth", self.depths)]
        for layer in range(self.depths[-1]):
            least = next(index for index, depth in enumerate(self.depths) if depth > layer)
            found += [
                Gene(f"layer{layer}.heads", self.heads, 1, least),
                Gene(f"layer{layer}.ffn", self.ffn_features, 1, least),
            ]
        return tuple(found)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:  # type: ignore[override]
        """One per layer, and the classifier of every token."""
        layers = [
            Slot(f"layer{layer}", (0, 1, 2 + 2 * layer, 3 + 2 * layer))
            for layer in range(self.depths[-1])
        ]
        return (*layers, Slot("classifier", (0,)))

    @property
    def resolution_gene(self) -> None:
        """Sequences have one length."""
        return None

    def slot_op(self, slot: int, choices: Sequence[int]) -> OpSpec | None:
        """See `SearchSpace.slot_op`."""
        sequence = (self.length, self.features[choices[0]])
        if slot == len(self.slots) - 1:
            return OpSpec.of("linear", sequence, out_features=self.classes)
        _, depth, heads, ffn = choices
        if self.depths[depth] <= slot:
            return None
        return OpSpec.of(
            "encoder_layer",
            sequence,
            heads=self.heads[heads],
            qkv_features=self.qkv_features,
            ffn_features=self.ffn_features[ffn],
            norm=self.norm,
            first=slot == 0,
        )
