"""How predictors read architectures: integer genes to numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latlas_latency.space_reference import SpaceReference
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import ArchBatch, SearchSpace

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GeneEncoding:
    """One-hot genes and the relative input area of one search space.

    Attributes:
        space: the space.
        sizes: number of choices per gene.
        resolutions: input side in pixels per choice of the resolution gene; one entry, 1, where
            the space has no such gene.
        resolution_gene: index of that gene, or None.
    """

    space: SpaceReference
    sizes: tuple[int, ...]
    resolutions: tuple[float, ...]
    resolution_gene: int | None

    @classmethod
    def of(cls, space: SearchSpace) -> GeneEncoding:
        """The encoding of a space."""
        gene = space.resolution_gene
        sides = (1.0,) if gene is None else tuple(map(float, space.genes[gene].choices))
        return cls(SpaceReference.of(space), tuple(space.sizes.tolist()), sides, gene)

    @property
    def n_features(self) -> int:
        """Columns of `one_hot`."""
        return sum(self.sizes)

    def one_hot(self, genes: NDArray[np.integer]) -> Floats:
        """One column per choice of each gene, `(n_archs, n_features)`; inactive genes all 0."""
        offsets = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        result = np.zeros((len(genes), self.n_features))
        rows, columns = np.nonzero(genes >= 0)
        result[rows, genes[rows, columns] + offsets[columns]] = 1.0
        return result

    def area(self, genes: NDArray[np.integer]) -> Floats:
        """Input area relative to the mean over the space's resolutions, `(n_archs,)`."""
        areas = np.square(self.resolutions)
        if self.resolution_gene is None:
            return np.ones(len(genes))
        return np.asarray(areas[genes[:, self.resolution_gene].astype(np.intp)] / areas.mean())

    def genes_of(self, subjects: object, what: str) -> NDArray[np.int8]:
        """The genes of an `ArchBatch` of this space.

        Raises:
            InvalidInputError: `subjects` are networks, which this encoding cannot read.
            SpaceMismatchError: they belong to another space.
        """
        if not isinstance(subjects, ArchBatch):
            raise InvalidInputError(
                f"{what} speaks of architectures of space {self.space.name!r} only, "
                "not of other networks; ask a table"
            )
        self.space.require(subjects.space, what)
        return subjects.genes
