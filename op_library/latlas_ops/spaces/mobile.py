"""Mobile inverted-residual spaces: Once-for-All MobileNetV3 and its relatives.

Elastic resolution, depth per stage, kernel and expansion per layer (Cai et al., ICLR 2020,
section 4.1), and, for the course's variant, a width multiplier per stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import OpSpec
from latlas_ops.space import Gene, SearchSpace, Slot


def make_divisible(value: float, divisor: int = 8) -> int:
    """`value` rounded to a multiple of `divisor`, never below 90 % of it (MobileNet's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


@dataclass(frozen=True)
class Stage:
    """A run of layers with one output width.

    Attributes:
        channels: output channels at width multiplier 1.
        stride: stride of the first layer.
        activation: activation of the blocks.
        squeeze_excite: whether blocks carry squeeze-and-excitation.
    """

    channels: int
    stride: int
    activation: str = "hswish"
    squeeze_excite: bool = False


@dataclass(frozen=True)
class Layer:
    """What one layer of a stage is, as far as weights and shapes go; see `MobileSpace.layer`."""

    in_channels: int
    out_channels: int
    expanded_channels: int
    kernel: int
    stride: int
    activation: str
    se_channels: int
    skip: bool


class MobileSpace(SearchSpace):
    """A stem, stages of MBConv layers, a head; chosen are resolution, widths, depths, layers.

    Genes, in order: `resolution`; per stage `stage<i>.width` (only with several widths) and
    `stage<i>.depth`; per layer `stage<i>.layer<j>.kernel` and `.expansion` (each only with
    several choices). Slots: `stem`, every possible layer, `head`.

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
    ) -> None:
        for label, choices in (
            ("resolutions", resolutions),
            ("depths", depths),
            ("kernels", kernels),
            ("expansions", expansions),
            ("widths", widths),
        ):
            if not choices or list(choices) != sorted(set(choices)):
                raise InvalidInputError(f"space {name!r}: {label} must be rising, got {choices}")
        if not stages:
            raise InvalidInputError(f"space {name!r} needs at least one stage")
        if depths[0] < 1:
            raise InvalidInputError(f"space {name!r}: depths start at 1, got {depths}")
        if any(kernel % 2 == 0 for kernel in kernels):
            raise InvalidInputError(f"space {name!r}: kernels must be odd, got {kernels}")
        self.name, self.version = name, version
        self.in_channels, self.classes = in_channels, classes
        self.resolutions, self.stages = tuple(resolutions), tuple(stages)
        self.stem_channels, self.stem_stride = stem_channels, stem_stride
        self.depths, self.kernels = tuple(depths), tuple(kernels)
        self.expansions, self.widths = tuple(expansions), tuple(widths)
        self.head_channels, self.feature_channels = head_channels, feature_channels
        self.max_depth = max(depths)
        self.genes, self.slots = self._lay_out()

    def _lay_out(self) -> tuple[tuple[Gene, ...], tuple[Slot, ...]]:
        genes = [Gene("resolution", self.resolutions)]
        self._width: list[int | None] = []
        self._depth: list[int] = []
        self._kernel: dict[tuple[int, int], int] = {}
        self._expansion: dict[tuple[int, int], int] = {}
        for stage in range(len(self.stages)):
            if len(self.widths) > 1:
                self._width.append(len(genes))
                genes.append(Gene(f"stage{stage}.width", self.widths))
            else:
                self._width.append(None)
            self._depth.append(len(genes))
            genes.append(Gene(f"stage{stage}.depth", self.depths))
        for stage in range(len(self.stages)):
            for layer in range(self.max_depth):
                least = next(i for i, depth in enumerate(self.depths) if depth > layer)
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
        slots = [Slot("stem", (0,))]
        for stage in range(len(self.stages)):
            for layer in range(self.max_depth):
                wanted = [
                    0,
                    self._depth[stage],
                    self._width[stage - 1] if stage and layer == 0 else None,
                    self._width[stage],
                    self._kernel.get((stage, layer)),
                    self._expansion.get((stage, layer)),
                ]
                slots.append(
                    Slot(
                        f"stage{stage}.layer{layer}",
                        tuple(gene for gene in wanted if gene is not None),
                    )
                )
        last_width = self._width[-1]
        slots.append(Slot("head", (0,) if last_width is None else (0, last_width)))
        return tuple(genes), tuple(slots)

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

    def stage_channels(self, stage: int, width: int = -1) -> int:
        """Output channels of a stage at a width choice index; -1, the last, is the widest."""
        return make_divisible(self.stages[stage].channels * self.widths[width])

    def expanded_channels(self, in_channels: int, expansion: float) -> int:
        """Channels inside a block: `expansion` times the input, rounded to a multiple of 8."""
        return make_divisible(round(in_channels * expansion))

    def layer(self, stage: int, layer: int, values: dict[int, int]) -> Layer | None:
        """A layer by the choice indices of its genes, None where the depth excludes it."""
        if self.depths[values[self._depth[stage]]] <= layer:
            return None

        def width_of(which: int) -> int:
            gene = self._width[which]
            return self.stage_channels(which, -1 if gene is None else values[gene])

        out_channels = width_of(stage)
        in_channels = out_channels
        if layer == 0:
            in_channels = width_of(stage - 1) if stage else self.stem_channels
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

    # -- ops -------------------------------------------------------------------------------

    @cached_property
    def _sides(self) -> tuple[tuple[int, ...], ...]:
        """Feature-map side before each stage, and before the head, per resolution."""

        def halve(side: int, stride: int) -> int:
            return (side - 1) // stride + 1

        rows = []
        for resolution in self.resolutions:
            sides = [halve(resolution, self.stem_stride)]
            for stage in self.stages:
                sides.append(halve(sides[-1], stage.stride))
            rows.append(tuple(sides))
        return tuple(rows)

    def slot_op(self, slot: int, choices: Sequence[int]) -> OpSpec | None:
        """See `SearchSpace.slot_op`."""
        values = dict(zip(self.slots[slot].genes, choices, strict=True))
        resolution = values[0]
        if slot == 0:
            side = self.resolutions[resolution]
            return OpSpec.of(
                "stem",
                (self.in_channels, side, side),
                out_channels=self.stem_channels,
                stride=self.stem_stride,
            )
        if slot == len(self.slots) - 1:
            side = self._sides[resolution][-1]
            gene = self._width[-1]
            channels = self.stage_channels(
                len(self.stages) - 1, -1 if gene is None else values[gene]
            )
            return OpSpec.of(
                "head",
                (channels, side, side),
                expanded_channels=self.head_channels,
                feature_channels=self.feature_channels,
                classes=self.classes,
            )
        stage, index = divmod(slot - 1, self.max_depth)
        layer = self.layer(stage, index, values)
        if layer is None:
            return None
        side = self._sides[resolution][stage if index == 0 else stage + 1]
        return OpSpec.of(
            "mbconv",
            (layer.in_channels, side, side),
            out_channels=layer.out_channels,
            expanded_channels=layer.expanded_channels,
            expand=True,
            kernel=layer.kernel,
            stride=layer.stride,
            activation=layer.activation,
            se_channels=layer.se_channels,
            skip=layer.skip,
        )
