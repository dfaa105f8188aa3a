"""Spaces in which every layer chooses one of several blocks: ProxylessNAS and FBNet.

A layer that may be left out where the shape allows counts as a block of its own, so that a network
with a gap in a stage is also that with the gap elsewhere in it: different architectures, which the
papers count, can be one network.

ProxylessNAS (Cai, Zhu & Han, ICLR 2019, section 4.2 and the authors' search code): 21 layers,
MBConv of kernel 3, 5 or 7 and expansion 3 or 6; 15 of the layers may be `zero`, which leaves
6⁶ · 7¹⁵ ≈ 2 · 10¹⁷ architectures per resolution.

FBNet (Wu et al., CVPR 2019, tables 1 and 2): 22 layers and nine blocks, 9²² ≈ 10²¹ architectures.
Two of the blocks convolve in two groups and shuffle channels between them. The networks FBNet-B and
FBNet-C are in the space, FBNet-A but for its narrower head. As in the authors' code, a `skip` that
changes the shape is a 1×1 convolution with its activation, and a block of expansion 1 has no 1×1
convolution before its depthwise one, nor before its shuffle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import OpSpec
from latlas_ops.space import ArchConfig, Gene, SearchSpace, Slot
from latlas_ops.spaces.layers import Layer, Stage, feature_sides, first_block_op, make_divisible


@dataclass(frozen=True)
class Block:
    """A candidate: an inverted-residual block.

    Attributes:
        label: what its authors call it.
        kernel: of the depthwise convolution.
        expansion: channels inside, per channel of the input.
        groups: of the 1×1 convolutions; more than one shuffle channels between them.
    """

    label: str
    kernel: int
    expansion: int
    groups: int = 1


PROXYLESS_BLOCKS = tuple(
    Block(f"{kernel}x{kernel}_MBConv{expansion}", kernel, expansion)
    for kernel in (3, 5, 7)
    for expansion in (3, 6)
)
"""From small to large, by the names of the authors' code."""

FBNET_BLOCKS = tuple(
    block
    for kernel in (3, 5)
    for block in (
        Block(f"k{kernel}_e1_g2", kernel, 1, groups=2),
        *(Block(f"k{kernel}_e{expansion}", kernel, expansion) for expansion in (1, 3, 6)),
    )
)
"""Table 2, from small to large at either kernel."""


@dataclass(frozen=True, eq=False)
class BlockSpace(SearchSpace):
    """A stem, stages of layers that each choose a block, a head.

    Genes: `resolution`, and per layer `stage<i>.layer<j>.block`, an index into its candidates by
    name, the one that leaves it out first.

    Attributes:
        name, version: what the space is called.
        stages: one number of layers each.
        blocks: the candidates.
        empty: what a layer is called that is left out.
        always_empty: whether a layer can also be empty that changes the shape; it is a 1×1
            convolution then.
        resolutions: sides of the images.
        stem_channels, first_channels: as in `MobileSpace`, without its shortcut.
        activation: of everything outside of the stages, and of the convolutions of empty layers.
        head_channels: outputs of the 1×1 convolution before the pooling.
        in_channels, classes: channels of the images, outputs of the classifier.

    Raises:
        InvalidInputError: a stage that does not have one number of layers.
    """

    name: str
    version: int
    stages: tuple[Stage, ...]
    blocks: tuple[Block, ...]
    empty: str
    always_empty: bool
    resolutions: tuple[int, ...]
    stem_channels: int
    activation: str
    head_channels: int
    first_channels: int = 0
    in_channels: int = 3
    classes: int = 1000

    def __post_init__(self) -> None:
        for index, stage in enumerate(self.stages):
            if len(stage.depths) != 1:
                raise InvalidInputError(
                    f"space {self.name!r}: stage {index} needs one number of layers, not "
                    f"{stage.depths}"
                )

    @cached_property
    def _layers(self) -> tuple[tuple[int, int], ...]:
        """Stage and place in it, per layer."""
        return tuple(
            (index, layer)
            for index, stage in enumerate(self.stages)
            for layer in range(stage.depths[-1])
        )

    @cached_property
    def _sides(self) -> tuple[tuple[int, ...], ...]:
        """Side after the stem and after each stage, per resolution."""
        strides = (2, *(stage.stride for stage in self.stages))
        return tuple(feature_sides(resolution, strides) for resolution in self.resolutions)

    @cached_property
    def genes(self) -> tuple[Gene, ...]:  # type: ignore[override]
        """The resolution, then the block of every layer."""
        names = [block.label for block in self.blocks]
        found = [Gene("resolution", self.resolutions)]
        for stage, layer in self._layers:
            may_be_empty = self.always_empty or self._keeps_shape(stage, layer)
            labels = [self.empty, *names] if may_be_empty else names
            found.append(Gene.named(f"stage{stage}.layer{layer}.block", labels))
        return tuple(found)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:  # type: ignore[override]
        """The stem, the first block if there is one, every layer, the head."""
        first = [Slot("first", (0,))] if self.first_channels else []
        layers = [
            Slot(f"stage{stage}.layer{layer}", (0, 1 + index))
            for index, (stage, layer) in enumerate(self._layers)
        ]
        return (Slot("stem", (0,)), *first, *layers, Slot("head", (0,)))

    @property
    def resolution_gene(self) -> int:
        """Gene 0 is the input resolution."""
        return 0

    def _channels(self, stage: int, layer: int) -> tuple[int, int]:
        """Channels of a layer's input and output."""
        own = self.stages[stage].channels
        if layer:
            return own, own
        if stage:
            return self.stages[stage - 1].channels, own
        return self.first_channels or self.stem_channels, own

    def _keeps_shape(self, stage: int, layer: int) -> bool:
        in_channels, out_channels = self._channels(stage, layer)
        return in_channels == out_channels and (layer > 0 or self.stages[stage].stride == 1)

    def slot_op(self, slot: int, choices: Sequence[int]) -> OpSpec | None:
        """See `SearchSpace.slot_op`."""
        sides = self._sides[choices[0]]
        if slot == 0:
            side = self.resolutions[choices[0]]
            return OpSpec.of(
                "stem",
                (self.in_channels, side, side),
                out_channels=self.stem_channels,
                activation=self.activation,
                separable=False,
            )
        if slot == len(self.slots) - 1:
            return OpSpec.of(
                "head",
                (self.stages[-1].channels, sides[-1], sides[-1]),
                expanded_channels=self.head_channels,
                classes=self.classes,
                activation=self.activation,
            )
        if len(choices) == 1:
            return first_block_op(
                self.stem_channels, self.first_channels, sides[0], self.activation
            )
        stage, layer = self._layers[slot - (2 if self.first_channels else 1)]
        label = self.genes[self.slots[slot].genes[1]].label(choices[1])
        return self._layer_op(stage, layer, label, sides[stage if layer == 0 else stage + 1])

    def _layer_op(self, stage: int, layer: int, label: str, side: int) -> OpSpec | None:
        in_channels, out_channels = self._channels(stage, layer)
        what = self.stages[stage]
        stride = what.stride if layer == 0 else 1
        if label == self.empty:
            if self._keeps_shape(stage, layer):
                return None
            return OpSpec.of(
                "conv",
                (in_channels, side, side),
                out_channels=out_channels,
                kernel=1,
                stride=stride,
                activation=self.activation,
            )
        block = next(block for block in self.blocks if block.label == label)
        if block.groups > 1:
            return OpSpec.of(
                "grouped_mbconv",
                (in_channels, side, side),
                out_channels=out_channels,
                expanded_channels=make_divisible(in_channels * block.expansion),
                expand=block.expansion > 1,
                kernel=block.kernel,
                stride=stride,
                groups=block.groups,
                activation=what.activation,
                skip=self._keeps_shape(stage, layer),
            )
        return Layer(
            in_channels=in_channels,
            out_channels=out_channels,
            expanded_channels=make_divisible(in_channels * block.expansion),
            kernel=block.kernel,
            stride=stride,
            activation=what.activation,
            se_channels=0,
            skip=self._keeps_shape(stage, layer),
            expand=block.expansion > 1,
        ).op(side)

    def arch_from_blocks(self, blocks: Sequence[str], resolution: int) -> ArchConfig:
        """The architecture with these blocks, one name per layer.

        Raises:
            InvalidInputError: another number of layers, or a name or resolution that is no choice.
        """
        layers = self.genes[1:]
        if len(blocks) != len(layers):
            raise InvalidInputError(
                f"space {self.name!r} has {len(layers)} layers, not {len(blocks)}"
            )
        if resolution not in self.resolutions:
            raise InvalidInputError(
                f"space {self.name!r} has no resolution {resolution}; it has "
                f"{', '.join(map(str, self.resolutions))}"
            )
        genes = [self.resolutions.index(resolution)]
        for gene, label in zip(layers, blocks, strict=True):
            if label not in gene.labels:
                raise InvalidInputError(
                    f"{gene.name} cannot be {label!r}; it can be {', '.join(gene.labels)}"
                )
            genes.append(gene.labels.index(label))
        return ArchConfig(self.name, self.version, tuple(genes))
