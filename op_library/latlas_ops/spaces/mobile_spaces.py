"""The built-in spaces of mobile blocks, each as a function: built on first use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from latlas_ops.spaces.choice_blocks import FBNET_BLOCKS, PROXYLESS_BLOCKS, BlockSpace
from latlas_ops.spaces.mobile import MobileSpace, Stage

_RESOLUTIONS = (128, 160, 192, 224)

_OFA_STAGES = (
    Stage(24, 2, "relu"),
    Stage(40, 2, "relu", squeeze_excite=True),
    Stage(80, 2),
    Stage(112, 1, squeeze_excite=True),
    Stage(160, 2, squeeze_excite=True),
)


def ofa_mobilenetv3() -> MobileSpace:
    """OFA-MobileNetV3, width 1.0 (Cai et al., ICLR 2020, section 4.1), four resolutions."""
    return MobileSpace(
        name="ofa-mobilenetv3",
        version=1,
        in_channels=3,
        classes=1000,
        resolutions=_RESOLUTIONS,
        stem_channels=16,
        stem_stride=2,
        stages=_OFA_STAGES,
        depths=(2, 3, 4),
        kernels=(3, 5, 7),
        expansions=(3, 4, 6),
        head_channels=960,
        feature_channels=1280,
    )


def ofa_mobilenetv3_wide() -> MobileSpace:
    """OFA-MobileNetV3, width 1.2: the larger of the two supernets that its authors released."""
    return MobileSpace(
        name="ofa-mobilenetv3-w1.2",
        version=1,
        in_channels=3,
        classes=1000,
        resolutions=_RESOLUTIONS,
        stem_channels=24,
        stem_stride=2,
        stages=_OFA_STAGES,
        depths=(2, 3, 4),
        kernels=(3, 5, 7),
        expansions=(3, 4, 6),
        widths=(1.2,),
        head_channels=1152,
        feature_channels=1536,
    )


_PROXYLESS_STAGES = (
    Stage(24, 2, "relu6"),
    Stage(40, 2, "relu6"),
    Stage(80, 2, "relu6"),
    Stage(96, 1, "relu6"),
    Stage(192, 2, "relu6"),
    Stage(320, 1, "relu6", depths=(1,)),
)


def ofa_proxyless() -> MobileSpace:
    """OFA-ProxylessNAS, width 1.3, as its authors released it (their `OFAProxylessNASNets`)."""
    return MobileSpace(
        name="ofa-proxyless",
        version=1,
        in_channels=3,
        classes=1000,
        resolutions=_RESOLUTIONS,
        stem_channels=40,
        stem_stride=2,
        stem_activation="relu6",
        first_channels=24,
        stages=_PROXYLESS_STAGES,
        depths=(2, 3, 4),
        kernels=(3, 5, 7),
        expansions=(3, 4, 6),
        widths=(1.3,),
        head_channels=1664,
        head_activation="relu6",
    )


def proxylessnas() -> BlockSpace:
    """ProxylessNAS on ImageNet (Cai et al., ICLR 2019): see `latlas_ops.spaces.choice_blocks`."""
    return BlockSpace(
        name="proxylessnas",
        version=1,
        stages=tuple(replace(stage, depths=stage.depths or (4,)) for stage in _PROXYLESS_STAGES),
        blocks=PROXYLESS_BLOCKS,
        empty="zero",
        always_empty=False,
        resolutions=_RESOLUTIONS,
        stem_channels=32,
        first_channels=16,
        activation="relu6",
        head_channels=1280,
    )


def fbnet() -> BlockSpace:
    """FBNet (Wu et al., CVPR 2019, table 1): see `latlas_ops.spaces.choice_blocks`."""
    return BlockSpace(
        name="fbnet",
        version=2,
        stages=(
            Stage(16, 1, "relu", depths=(1,)),
            Stage(24, 2, "relu", depths=(4,)),
            Stage(32, 2, "relu", depths=(4,)),
            Stage(64, 2, "relu", depths=(4,)),
            Stage(112, 1, "relu", depths=(4,)),
            Stage(184, 2, "relu", depths=(4,)),
            Stage(352, 1, "relu", depths=(1,)),
        ),
        blocks=FBNET_BLOCKS,
        empty="skip",
        always_empty=True,
        resolutions=_RESOLUTIONS,
        stem_channels=16,
        activation="relu",
        head_channels=1984,
    )


MCUNET_WIDTHS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MCUNET_RESOLUTIONS = (48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224)


def mcunet(
    name: str = "mcunet",
    *,
    version: int = 1,
    widths: Sequence[float] = (0.3, 0.5),
    resolutions: Sequence[int] = (64, 96, 144, 176),
    classes: int = 1000,
) -> MobileSpace:
    """The mobile space of TinyNAS, for microcontrollers (MCUNet, Lin et al., NeurIPS 2020).

    One width for the whole network, expansions 3 to 6, no convolution before the pooling. TinyNAS
    (section 3.1) first picks one of 9 widths and 12 resolutions, `MCUNET_WIDTHS` and
    `MCUNET_RESOLUTIONS`, and then searches a network of these. All 108 pairs have thousands of
    distinct ops, too many for a table; eight are built in, among them that of the network for
    320 KB of memory that was released (width 0.5, 176 px).

    Args:
        name, version: what the space is called.
        widths: multipliers of ProxylessNAS's channels.
        resolutions: sides of the images.
        classes: outputs of the classifier; 2 for visual wake words.
    """
    return MobileSpace(
        name=name,
        version=version,
        in_channels=3,
        classes=classes,
        resolutions=resolutions,
        stem_channels=32,
        stem_stride=2,
        stem_activation="relu6",
        first_channels=16,
        stages=_PROXYLESS_STAGES,
        depths=(2, 3, 4),
        kernels=(3, 5, 7),
        expansions=(3, 4, 5, 6),
        widths=widths,
        shared_width=True,
        head_channels=0,
    )


def course() -> MobileSpace:
    """The course's Once-for-All variant: width multiplier per stage, fixed expansion."""
    return MobileSpace(
        name="course",
        version=1,
        in_channels=3,
        classes=1000,
        resolutions=_RESOLUTIONS,
        stem_channels=16,
        stem_stride=2,
        stages=_OFA_STAGES,
        depths=(2, 3, 4),
        kernels=(3, 5, 7),
        expansions=(6,),
        widths=(0.25, 0.5, 0.75, 1.0),
        head_channels=960,
        feature_channels=1280,
    )


def digits() -> MobileSpace:
    """The quickstart's small space: grey images of 32 to 48 px, ten classes; 0.2 to 3 ms a core."""
    return MobileSpace(
        name="digits",
        version=2,
        in_channels=1,
        classes=10,
        resolutions=(32, 40, 48),
        stem_channels=32,
        stem_stride=2,
        stages=(
            Stage(48, 1, "relu"),
            Stage(96, 2, "relu", squeeze_excite=True),
            Stage(192, 2),
        ),
        depths=(1, 2, 3),
        kernels=(3, 5, 7),
        expansions=(3, 4, 6),
        head_channels=384,
    )
