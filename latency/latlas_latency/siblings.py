"""Ops that are equal but for their size: what they have in common, and how big they are in what."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from latlas_ops.opspec import OpSpec

DIRECTIONS = ("channels", "kernel", "expansion", "resolution")
"""What an op may be bigger in. Anything else must be equal for two ops to be siblings."""

_DIRECTION_OF = {
    "out_channels": "channels",
    "out_features": "channels",
    "feature_channels": "channels",
    "classes": "channels",
    "kernel": "kernel",
    "expanded_channels": "expansion",
    "se_channels": "expansion",
}

Sizes = tuple[int, ...]
"""Sizes of an op in some directions; siblings have equally many, in the same order."""


@dataclass(frozen=True)
class Description:
    """An op taken apart.

    Attributes:
        fixed: what must be equal for two ops to be siblings in any direction.
        sizes: per direction of `DIRECTIONS`, in that order, the sizes that belong to it.
    """

    fixed: tuple[object, ...]
    sizes: tuple[Sizes, ...]

    def along(self, directions: Collection[str]) -> Sizes:
        """All sizes in some directions, one after the other."""
        return tuple(
            size
            for name, sizes in zip(DIRECTIONS, self.sizes, strict=True)
            if name in directions
            for size in sizes
        )

    def family(self, directions: Collection[str]) -> tuple[object, ...]:
        """What siblings that differ in these directions alone have in common."""
        others = (
            sizes
            for name, sizes in zip(DIRECTIONS, self.sizes, strict=True)
            if name not in directions
        )
        return (self.fixed, *others)


def describe(op: OpSpec) -> Description:
    """What must be equal for a comparison, and the sizes by direction.

    Squeeze channels go with the expansion; a block without expansion has its input's channels
    inside. With and without squeezing, or feature mixing, are different blocks.
    """
    sizes: dict[str, list[int]] = {direction: [] for direction in DIRECTIONS}
    fixed: list[object] = [op.kind, op.dtype, len(op.inputs)]
    expanding = dict(op.attributes).get("expand", True)
    for name, value in op.attributes:
        direction = _DIRECTION_OF.get(name)
        if direction is None:
            fixed.append((name, value))
            continue
        if name == "expanded_channels" and not expanding:
            direction = "channels"
        if name in {"se_channels", "feature_channels"}:
            fixed.append((name, bool(value)))
        sizes[direction].append(int(value))
    for shape in op.inputs:
        sizes["channels"].append(shape[0])
        sizes["resolution"].extend(shape[1:])
    return Description(tuple(fixed), tuple(tuple(sizes[name]) for name in DIRECTIONS))


def families(
    ops: Iterable[OpSpec], directions: Collection[str]
) -> dict[tuple[object, ...], list[OpSpec]]:
    """Ops by what they have in common with those that differ in these directions alone."""
    found: dict[tuple[object, ...], list[OpSpec]] = defaultdict(list)
    for op in ops:
        found[describe(op).family(directions)].append(op)
    return dict(found)


def within(smaller: Sizes, bigger: Sizes) -> bool:
    """Whether no size of the first is above that of the second."""
    return all(one <= other for one, other in zip(smaller, bigger, strict=True))
