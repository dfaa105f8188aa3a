"""Mobile inverted-residual spaces: Once-for-All MobileNetV3 and its relatives.

Elastic resolution, depth per stage, kernel and expansion per layer (Cai et al., ICLR 2020,
section 4.1), and a width multiplier per stage (the course's variant) or for the whole network
(TinyNAS).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import OpSpec
from latlas_ops.space import Gene, SearchSpace, Slot
from latlas_ops.spaces.layers import Layer, Stage, feature_sides, first_block_op, make_divisible

__all__ = ["Layer", "MobileSpace", "Stage", "make_divisible"]


class MobileSpace(SearchSpace):
    """A stem, stages of MBConv layers, a head; chosen are resolution, widths, depths, layers.

    Genes, in order: `resolution`; `width` (only with several widths that are shared); per stage
    `stage<i>.width` (only with several that are not) and `stage<i>.depth`; per layer
    `stage<i>.layer<j>.kernel` and `.expansion` (each only with several choices). Slots: `stem`,
    `first` if there is one, every possible layer, `head`.

    Args:
        name, version: what the space is called.
        in_channels, classes: channels of the images, outputs of the classifier.
        resolutions: sides of the images.
        stem_channels, stem_stride, stem_activation: the first convolution.
        first_channels: outputs of a first block like MobileNetV2's. Without it the stem ends in
            MobileNetV3's, which has a shortcut.
        stages: their channels are multiplied by the width.
        depths: layers per stage, where a stage does not say otherwise.
        kernels, expansions: of every layer.
        widths: multipliers, of which every stage chooses one.
        shared_width: one choice of width for all stages, the stem and the first block.
        head_channels: outputs of the 1×1 convolution before the pooling, 0 for none.
        feature_channels: outputs of the layer after it, 0 for none.
        head_activation: of both.

    Raises:
        InvalidInputError: choices that do not rise, no stages, a depth below 1, an even kernel.
    """

    def __init__(
        self,
        *,
        name: str,
        version: int,
        in_channels: int,
        classes: int,
        resolutions: Sequence[int],
        stem_channels: int,
        stem_stride: int,
        stages: Sequence[Stage],
        depths: Sequence[int],
        kernels: Sequence[int],
        expansions: Sequence[float],
        widths: Sequence[float] = (1.0,),
        head_channels: int,
        feature_channels: int = 0,
        stem_activation: str = "hswish",
        first_channels: int = 0,
        shared_width: bool = False,
        head_activation: str = "hswish",
    ) -> None:
        for label, choices in (
            ("resolutions", resolutions),
            ("depths", depths),
            ("kernels", kernels),
            ("expansions", expansions),
            ("widths", widths),
            *(("depths", stage.depths) for stage in stages if stage.depths),
        ):
            if not choices or list(choices) != sorted(set(choices)):
                raise InvalidInputError(f"space {name!r}: {label} must be rising, got {choices}")
        if not stages:
            raise InvalidInputError(f"space {name!r} needs at least one stage")
        for choices in (depths, *(stage.depths for stage in stages if stage.depths)):
            if choices[0] < 1:
                raise InvalidInputError(f"space {name!r}: depths start at 1, got {choices}")
        if any(kernel % 2 == 0 for kernel in kernels):
            raise InvalidInputError(f"space {name!r}: kernels must be odd, got {kernels}")
        self.name, self.version = name, version
        self.in_channels, self.classes = in_channels, classes
        self.resolutions, self.stages = tuple(resolutions), tuple(stages)
        self.stem_channels, self.stem_stride = stem_channels, stem_stride
        self.depths, self.kernels = tuple(depths), tuple(kernels)
        self.expansions, self.widths = tuple(expansions), tuple(widths)
        self.head_channels, self.feature_channels = head_channels, feature_channels
        self.stem_activation, self.first_channels = stem_activation, first_channels
        self.shared_width, self.head_activation = shared_width, head_activation
        self._layers = [
            (index, layer)
            for index, stage in enumerate(self.stages)
            for layer in range(max(stage.depths or self.depths))
        ]
        self.genes = self._lay_out_genes()
        self.slots = self._lay_out_slots()

    def _lay_out_genes(self) -> tuple[Gene, ...]:
        genes = [Gene("resolution", self.resolutions)]
        common = len(genes) if self.shared_width and len(self.widths) > 1 else None
        if common is not None:
            genes.append(Gene("width", self.widths))
        self._width: list[int | None] = []
        self._depth: list[int] = []
        self._kernel: dict[tuple[int, int], int] = {}
        self._expansion: dict[tuple[int, int], int] = {}
        for stage in range(len(self.stages)):
            if len(self.widths) > 1 and not self.shared_width:
                self._width.append(len(genes))
                genes.append(Gene(f"stage{stage}.width", self.widths))
            else:
                self._width.append(common)
            self._depth.append(len(genes))
            genes.append(Gene(f"stage{stage}.depth", self.stage_depths(stage)))
        for stage, layer in self._layers:
            depths = self.stage_depths(stage)
            least = next(i for i, depth in enumerate(depths) if depth > layer)
            for label, choices, where in (
                ("kernel", self.kernels, self._kernel),
                ("expansion", self.expansions, self._expansion),
            ):
                if len(choices) > 1:
                    where[stage, layer] = len(genes)
                    genes.append(
                        Gene(
                            f"stage{stage}.layer{layer}.{label}",
                            choices,
                            parent=self._depth[stage],
                            least_parent_choice=least,
                        )
                    )
        return tuple(genes)

    def _lay_out_slots(self) -> tuple[Slot, ...]:
        def slot(name: str, *genes: int | None) -> Slot:
            return Slot(name, tuple(dict.fromkeys(gene for gene in genes if gene is not None)))

        common = self._width[0] if self.shared_width else None
        slots = [slot("stem", 0, common)]
        if self.first_channels:
            slots.append(slot("first", 0, common))
        self._first_layer = len(slots)
        for stage, layer in self._layers:
            slots.append(
                slot(
                    f"stage{stage}.layer{layer}",
                    0,
                    self._depth[stage],
                    self._width[stage - 1] if stage and layer == 0 else None,
                    self._width[stage],
                    self._kernel.get((stage, layer)),
                    self._expansion.get((stage, layer)),
                )
            )
        return (*slots, slot("head", 0, self._width[-1]))

    # -- what weights need to know ---------------------------------------------------------

    @property
    def resolution_gene(self) -> int:
        """Gene 0 is the input resolution."""
        return 0

    def width_gene(self, stage: int) -> int | None:
        """Index of a stage's width gene, None where widths are fixed."""
        return self._width[stage]

    def depth_gene(self, stage: int) -> int:
        """Index of a stage's depth gene."""
        return self._depth[stage]

    def kernel_gene(self, stage: int, layer: int) -> int | None:
        """Index of a layer's kernel gene, None where kernels are fixed."""
        return self._kernel.get((stage, layer))

    def expansion_gene(self, stage: int, layer: int) -> int | None:
        """Index of a layer's expansion gene, None where expansions are fixed."""
        return self._expansion.get((stage, layer))

    def stage_depths(self, stage: int) -> tuple[int, ...]:
        """Numbers of layers that a stage may have."""
        return self.stages[stage].depths or self.depths

    def stage_channels(self, stage: int, width: int = -1) -> int:
        """Output channels of a stage at a width choice index; -1, the last, is the widest."""
        return make_divisible(self.stages[stage].channels * self.widths[width])

    def expanded_channels(self, in_channels: int, expansion: float) -> int:
        """Channels inside a block: `expansion` times the input, rounded to a multiple of 8."""
        return make_divisible(round(in_channels * expansion))

    def layer(self, stage: int, layer: int, values: dict[int, int]) -> Layer | None:
        """A layer by the choice indices of its genes, None where the depth excludes it."""
        if self.stage_depths(stage)[values[self._depth[stage]]] <= layer:
            return None
        out_channels = self._width_of(stage, values)
        in_channels = out_channels
        if layer == 0:
            in_channels = self._width_of(stage - 1, values)
        kernel_gene = self._kernel.get((stage, layer))
        expansion_gene = self._expansion.get((stage, layer))
        kernel = self.kernels[0 if kernel_gene is None else values[kernel_gene]]
        expansion = self.expansions[0 if expansion_gene is None else values[expansion_gene]]
        expanded = self.expanded_channels(in_channels, expansion)
        what = self.stages[stage]
        stride = what.stride if layer == 0 else 1
        return Layer(
            in_channels=in_channels,
            out_channels=out_channels,
            expanded_channels=expanded,
            kernel=int(kernel),
            stride=stride,
            activation=what.activation,
            se_channels=make_divisible(expanded // 4) if what.squeeze_excite else 0,
            skip=stride == 1 and in_channels == out_channels,
        )

    def _width_of(self, stage: int, values: dict[int, int]) -> int:
        """Output channels of a stage; of what stands before the first where that is -1."""
        if stage < 0:
            return self._common_channels(self.first_channels or self.stem_channels, values)
        gene = self._width[stage]
        return self.stage_channels(stage, -1 if gene is None else values[gene])

    def _common_channels(self, channels: int, values: dict[int, int]) -> int:
        """Channels of stem or first block, which only a shared width multiplies."""
        if not self.shared_width:
            return channels
        gene = self._width[0]
        return make_divisible(channels * self.widths[-1 if gene is None else values[gene]])

    # -- ops -------------------------------------------------------------------------------

    @cached_property
    def _sides(self) -> tuple[tuple[int, ...], ...]:
        """Feature-map side before each stage, and before the head, per resolution."""

        strides = (self.stem_stride, *(stage.stride for stage in self.stages))
        return tuple(feature_sides(resolution, strides) for resolution in self.resolutions)

    def slot_op(self, slot: int, choices: Sequence[int]) -> OpSpec | None:
        """See `SearchSpace.slot_op`."""
        values = dict(zip(self.slots[slot].genes, choices, strict=True))
        if slot == 0:
            side = self.resolutions[values[0]]
            return OpSpec.of(
                "stem",
                (self.in_channels, side, side),
                out_channels=self._common_channels(self.stem_channels, values),
                stride=self.stem_stride,
                activation=self.stem_activation,
                separable=not self.first_channels,
            )
        sides = self._sides[values[0]]
        if slot < self._first_layer:
            return first_block_op(
                self._common_channels(self.stem_channels, values),
                self._common_channels(self.first_channels, values),
                sides[0],
                self.stem_activation,
            )
        if slot == len(self.slots) - 1:
            return self._head_op(self._width_of(len(self.stages) - 1, values), sides[-1])
        stage, index = self._layers[slot - self._first_layer]
        layer = self.layer(stage, index, values)
        return None if layer is None else layer.op(sides[stage if index == 0 else stage + 1])

    def _head_op(self, channels: int, side: int) -> OpSpec:
        if not self.head_channels:
            return OpSpec.of("classifier", (channels, side, side), classes=self.classes)
        return OpSpec.of(
            "head",
            (channels, side, side),
            expanded_channels=self.head_channels,
            feature_channels=self.feature_channels,
            classes=self.classes,
            activation=self.head_activation,
        )
