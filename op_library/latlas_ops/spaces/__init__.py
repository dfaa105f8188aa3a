"""The built-in search spaces by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from latlas_ops.errors import NotFoundError
from latlas_ops.space import SearchSpace
from latlas_ops.spaces.darts import DartsSpace
from latlas_ops.spaces.mobile import MobileSpace, Stage
from latlas_ops.spaces.nas_bench_201 import NasBench201Space

_OFA_STAGES = (
    Stage(24, 2, "relu"),
    Stage(40, 2, "relu", squeeze_excite=True),
    Stage(80, 2),
    Stage(112, 1, squeeze_excite=True),
    Stage(160, 2, squeeze_excite=True),
)


def _ofa_mobilenetv3() -> MobileSpace:
    """OFA-MobileNetV3, width 1.0 (Cai et al., ICLR 2020, section 4.1), four resolutions."""
    return MobileSpace(
        name="ofa-mobilenetv3",
        version=1,
        in_channels=3,
        classes=1000,
        resolutions=(128, 160, 192, 224),
        stem_channels=16,
        stem_stride=2,
        stages=_OFA_STAGES,
        depths=(2, 3, 4),
        kernels=(3, 5, 7),
        expansions=(3, 4, 6),
        head_channels=960,
        feature_channels=1280,
    )


def _course() -> MobileSpace:
    """The course's Once-for-All variant: width multiplier per stage, fixed expansion."""
    return MobileSpace(
        name="course",
        version=1,
        in_channels=3,
        classes=1000,
        resolutions=(128, 160, 192, 224),
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


def _digits() -> MobileSpace:
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


def _darts() -> DartsSpace:
    """DARTS as it is evaluated and deployed: 20 cells, 36 channels; 10 to 20 ms on a core."""
    return DartsSpace(name="darts", version=1, n_cells=20, channels=36)


_SPACES: Mapping[str, Callable[[], SearchSpace]] = {
    "digits": _digits,
    "ofa-mobilenetv3": _ofa_mobilenetv3,
    "course": _course,
    "nas-bench-201": NasBench201Space,
    "darts": _darts,
}

SPACE_NAMES = tuple(_SPACES)


@cache
def get_space(name: str) -> SearchSpace:
    """The built-in space of a name.

    Raises:
        NotFoundError: no space has that name; the message lists those that exist.
    """
    if name not in _SPACES:
        raise NotFoundError(f"no search space {name!r}; there are {', '.join(SPACE_NAMES)}")
    return _SPACES[name]()
