"""The built-in search spaces by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from latlas_ops.errors import ConflictError, NotFoundError
from latlas_ops.space import SearchSpace
from latlas_ops.spaces.darts import DartsSpace
from latlas_ops.spaces.encoder import EncoderSpace
from latlas_ops.spaces.hat import HatSpace
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
    "hat": lambda: HatSpace("hat", 1),
}

SPACE_NAMES = tuple(_SPACES)


_own: dict[str, SearchSpace] = {}


def register_space(space: SearchSpace) -> None:
    """Makes `get_space` find a space of one's own, in this process.

    A later version of a space takes the place of an earlier one.

    Raises:
        ConflictError: a built-in space has that name, or another one of that name and version
            is registered.
    """
    if space.name in _SPACES:
        raise ConflictError(f"{space.name!r} is a built-in search space: choose another name")
    there = _own.get(space.name)
    if there is not None and there.version == space.version and not _equal(there, space):
        raise ConflictError(
            f"another search space {space.name!r} of version {space.version} is registered: "
            "choose another name or a higher version"
        )
    _own[space.name] = space


def _equal(one: SearchSpace, other: SearchSpace) -> bool:
    """Whether two spaces have the same ops for the same choices, and are wired alike."""

    def parts(space: SearchSpace) -> tuple[object, ...]:
        tables = [table.tolist() for table in space.slot_entries.tables]
        wired = [
            tuple(space.slot_sources(index, arch.genes))
            for arch in space.archs(space.extremes())
            for index in range(len(space.slots))
        ]
        return space.genes, space.slots, space.slot_entries.ops, tables, wired

    return parts(one) == parts(other)


def space_names() -> tuple[str, ...]:
    """Names of the built-in spaces and of those that were registered."""
    return (*SPACE_NAMES, *_own)


def get_space(name: str) -> SearchSpace:
    """The space of a name, built in or registered.

    Raises:
        NotFoundError: no space has that name; the message lists those that exist.
    """
    if name in _own:
        return _own[name]
    if name not in _SPACES:
        raise NotFoundError(
            f"no search space {name!r}; there are {', '.join(space_names())}; LATLAS_SPACES names "
            "the files of your own"
        )
    return _built_in(name)


@cache
def _built_in(name: str) -> SearchSpace:
    return _SPACES[name]()
