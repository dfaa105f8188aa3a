"""How many architectures a space has, exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latlas_ops.space import Gene


@dataclass(frozen=True)
class SpaceCount:
    """Sizes of a space as exact integers.

    Attributes:
        flat: product of all choices, layers that are not there included.
        distinct: architectures that differ, inactive genes counted once.
        distinct_per_resolution: the same at one input resolution (as OFA counts).
    """

    flat: int
    distinct: int
    distinct_per_resolution: int


def count_archs(genes: Sequence[Gene], resolution_gene: int | None) -> SpaceCount:
    """The sizes of a space from its genes.

    Args:
        genes: a parent stands before its children.
        resolution_gene: index of the gene that holds the input resolution, or None.
    """
    children: dict[int | None, list[int]] = {}
    for index, gene in enumerate(genes):
        children.setdefault(gene.parent, []).append(index)

    def distinct(index: int) -> int:
        return sum(
            math.prod(
                distinct(child)
                for child in children.get(index, [])
                if choice >= genes[child].least_parent_choice
            )
            for choice in range(len(genes[index].choices))
        )

    total = math.prod(distinct(index) for index in children.get(None, []))
    resolutions = 1 if resolution_gene is None else len(genes[resolution_gene].choices)
    return SpaceCount(
        flat=math.prod(len(gene.choices) for gene in genes),
        distinct=total,
        distinct_per_resolution=total // resolutions,
    )
