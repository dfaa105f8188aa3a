"""The built-in search spaces by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from latlas_ops.errors import NotFoundError
from latlas_ops.space import SearchSpace
from latlas_ops.spaces.darts import DartsSpace
from latlas_ops.spaces.encoder import EncoderSpace
from latlas_ops.spaces.mobile_spaces import (
    course,
    digits,
    fbnet,
    mcunet,
    ofa_mobilenetv3,
    ofa_mobilenetv3_wide,
    ofa_proxyless,
    proxylessnas,
)
from latlas_ops.spaces.nas_bench_201 import NasBench201Space
from latlas_ops.spaces.ofa_resnet import OfaResNetSpace


def _darts() -> DartsSpace:
    """DARTS as it is evaluated and deployed: 20 cells, 36 channels; 10 to 20 ms on a core."""
    return DartsSpace(name="darts", version=1, n_cells=20, channels=36)


_SPACES: Mapping[str, Callable[[], SearchSpace]] = {
    "digits": digits,
    "ofa-mobilenetv3": ofa_mobilenetv3,
    "ofa-mobilenetv3-w1.2": ofa_mobilenetv3_wide,
    "ofa-proxyless": ofa_proxyless,
    "ofa-resnet50": lambda: OfaResNetSpace("ofa-resnet50", 1),
    "course": course,
    "proxylessnas": proxylessnas,
    "fbnet": fbnet,
    "mcunet": mcunet,
    "nas-bench-201": NasBench201Space,
    "darts": _darts,
    "encoder-pre-norm": lambda: EncoderSpace("encoder-pre-norm", 1, "pre"),
    "encoder-post-norm": lambda: EncoderSpace("encoder-post-norm", 1, "post"),
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
