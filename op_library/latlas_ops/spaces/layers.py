"""What spaces of inverted-residual blocks share: stages, layers, rounding of channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from latlas_ops.opspec import OpSpec


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
        depths: numbers of layers to choose from, where they are not those of the space.
    """

    channels: int
    stride: int
    activation: str = "hswish"
    squeeze_excite: bool = False
    depths: tuple[int, ...] = ()


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
    expand: bool = True

    def op(self, side: int) -> OpSpec:
        """The layer on images of a side."""
        return OpSpec.of(
            "mbconv",
            (self.in_channels, side, side),
            out_channels=self.out_channels,
            expanded_channels=self.expanded_channels,
            expand=self.expand,
            kernel=self.kernel,
            stride=self.stride,
            activation=self.activation,
            se_channels=self.se_channels,
            skip=self.skip,
        )


def first_block_op(in_channels: int, out_channels: int, side: int, activation: str) -> OpSpec:
    """The first block of MobileNetV2: no expansion, kernel 3, no shortcut."""
    return Layer(
        in_channels=in_channels,
        out_channels=out_channels,
        expanded_channels=in_channels,
        kernel=3,
        stride=1,
        activation=activation,
        se_channels=0,
        skip=False,
        expand=False,
    ).op(side)


def feature_sides(side: int, strides: Sequence[int]) -> tuple[int, ...]:
    """Sides of the feature maps after each of several strides, padded as torch pads."""
    sides = []
    for stride in strides:
        side = (side - 1) // stride + 1
        sides.append(side)
    return tuple(sides)
