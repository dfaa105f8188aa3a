"""OFA-ResNet50 (Once-for-All, Cai et al., ICLR 2020; the authors' released supernet and its code).

ResNet50-D (He et al., CVPR 2019) with elastic depth, expansion and width. Stages have 2 to 4, 2 to
4, 4 to 6 and 2 to 4 layers (ResNet50: 3, 4, 6, 3). Inside, a layer has a fifth, a quarter or 35 %
of its output's channels. The two widths of the stem and that of every stage are chosen apart. The
middle convolution of the stem, which here has a shortcut, may be left out.

Genes may differ and mean the same network: 65 % and 80 % of the stem's inner 32 channels both round
to 24.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from latlas_ops.opspec import OpSpec
from latlas_ops.space import Gene, SearchSpace, Slot
from latlas_ops.spaces.layers import feature_sides, make_divisible

_STEM_CHANNELS = 64
_STEM_DEPTHS = (2, 3)
_STAGE_CHANNELS = (256, 512, 1024, 2048)
_STRIDES = (1, 2, 2, 2)
_INNER, _OUTER, _FIRST_STAGE = 2, 3, 4  # genes: the stem's two widths, and where stages begin


@dataclass(frozen=True, eq=False)
class OfaResNetSpace(SearchSpace):
    """A stem, four stages of bottlenecks, a classifier.

    Genes, in order: `resolution`; `stem.depth`, the number of its convolutions; `stem.inner_width`
    and `stem.width`; per stage `stage<i>.width` and `stage<i>.depth`; per layer
    `stage<i>.layer<j>.expansion`.

    Attributes:
        name, version: what the space is called.
        resolutions: sides of the images, multiples of 32: shortcuts pool 2×2 pixels.
        depths: layers per stage.
        expansions: channels inside of a bottleneck, per channel of its output.
        widths: multipliers of ResNet50's channels.
        in_channels, classes: channels of the images, outputs of the classifier.
    """

    name: str
    version: int
    resolutions: tuple[int, ...] = (128, 160, 192, 224)
    depths: tuple[tuple[int, ...], ...] = ((2, 3, 4), (2, 3, 4), (4, 5, 6), (2, 3, 4))
    expansions: tuple[float, ...] = (0.2, 0.25, 0.35)
    widths: tuple[float, ...] = (0.65, 0.8, 1.0)
    in_channels: int = 3
    classes: int = 1000

    @cached_property
    def _layers(self) -> tuple[tuple[int, int], ...]:
        """Stage and place in it, per layer."""
        return tuple(
            (stage, layer)
            for stage, depths in enumerate(self.depths)
            for layer in range(max(depths))
        )

    @cached_property
    def genes(self) -> tuple[Gene, ...]:  # type: ignore[override]
        """Resolution, stem, width and depth of every stage, expansion of every layer."""
        found = [
            Gene("resolution", self.resolutions),
            Gene("stem.depth", _STEM_DEPTHS),
            Gene("stem.inner_width", self.widths),
            Gene("stem.width", self.widths),
        ]
        for stage, depths in enumerate(self.depths):
            found += [Gene(f"stage{stage}.width", self.widths), Gene(f"stage{stage}.depth", depths)]
        for stage, layer in self._layers:
            least = next(i for i, depth in enumerate(self.depths[stage]) if depth > layer)
            found.append(
                Gene(
                    f"stage{stage}.layer{layer}.expansion",
                    self.expansions,
                    parent=self._depth_gene(stage),
                    least_parent_choice=least,
                )
            )
        return tuple(found)

    def _width_gene(self, stage: int) -> int:
        """The gene of a stage's width; before the first stage that of the stem."""
        return _OUTER if stage < 0 else _FIRST_STAGE + 2 * stage

    def _depth_gene(self, stage: int) -> int:
        return self._width_gene(stage) + 1

    @cached_property
    def slots(self) -> tuple[Slot, ...]:  # type: ignore[override]
        """The stem, every possible layer, the classifier."""
        first_expansion = _FIRST_STAGE + 2 * len(self.depths)
        layers = []
        for index, (stage, layer) in enumerate(self._layers):
            before = (self._width_gene(stage - 1),) if layer == 0 else ()
            genes = (0, self._depth_gene(stage), *before, self._width_gene(stage))
            layers.append(Slot(f"stage{stage}.layer{layer}", (*genes, first_expansion + index)))
        last = Slot("classifier", (0, self._width_gene(len(self.depths) - 1)))
        return (Slot("stem", (0, 1, _INNER, _OUTER)), *layers, last)

    @property
    def resolution_gene(self) -> int:
        """Gene 0 is the input resolution."""
        return 0

    def _channels(self, stage: int, width: int) -> int:
        """Output channels of a stage, or of the stem before the first, at a width choice."""
        full = _STEM_CHANNELS if stage < 0 else _STAGE_CHANNELS[stage]
        return make_divisible(full * self.widths[width])

    def slot_op(self, slot: int, choices: Sequence[int]) -> OpSpec | None:
        """See `SearchSpace.slot_op`."""
        values = dict(zip(self.slots[slot].genes, choices, strict=True))
        resolution = self.resolutions[values[0]]
        if slot == 0:
            return OpSpec.of(
                "deep_stem",
                (self.in_channels, resolution, resolution),
                mid_channels=make_divisible(self._channels(-1, values[_INNER]) // 2),
                out_channels=self._channels(-1, values[_OUTER]),
                residual=_STEM_DEPTHS[values[1]] == max(_STEM_DEPTHS),
            )
        sides = feature_sides(resolution, (2, 2, *_STRIDES))[1:]
        if slot == len(self.slots) - 1:
            stage = len(self.depths) - 1
            channels = self._channels(stage, values[self._width_gene(stage)])
            return OpSpec.of("classifier", (channels, sides[-1], sides[-1]), classes=self.classes)
        stage, layer = self._layers[slot - 1]
        if self.depths[stage][values[self._depth_gene(stage)]] <= layer:
            return None
        before = stage - 1 if layer == 0 else stage
        in_channels = self._channels(before, values[self._width_gene(before)])
        out_channels = self._channels(stage, values[self._width_gene(stage)])
        side = sides[stage if layer == 0 else stage + 1]
        return OpSpec.of(
            "bottleneck",
            (in_channels, side, side),
            out_channels=out_channels,
            mid_channels=make_divisible(round(out_channels * self.expansions[choices[-1]])),
            stride=_STRIDES[stage] if layer == 0 else 1,
            project=layer == 0,
        )
