"""Variation of whole populations at once: mutation and crossover on integer genes."""

from __future__ import annotations

import numpy as np

from latlas_ops.errors import InvalidInputError
from latlas_ops.space import INACTIVE, ArchBatch


def mutate(batch: ArchBatch, probability: float, rng: np.random.Generator) -> ArchBatch:
    """Uniform mutation: every gene is drawn anew with `probability`.

    A gene is drawn uniformly from all its choices, so it may keep its value. Genes that a
    mutation of their parent brings to life are always drawn.

    Args:
        batch: `(n_archs, n_genes)`.
        probability: chance per gene, in [0, 1].
        rng: the source of randomness.

    Returns:
        `(n_archs, n_genes)`, canonical.

    Raises:
        InvalidInputError: `probability` is outside [0, 1].
    """
    if not 0.0 <= probability <= 1.0:
        raise InvalidInputError(f"mutation probability must be in [0, 1], not {probability}")
    space, genes = batch.space, batch.genes
    fresh = rng.integers(0, space.sizes.astype(np.int8), size=genes.shape, dtype=np.int8)
    redrawn = rng.random(genes.shape, dtype=np.float32) < probability
    return ArchBatch(space, space.canonical(np.where(redrawn | (genes == INACTIVE), fresh, genes)))


def crossover(left: ArchBatch, right: ArchBatch, rng: np.random.Generator) -> ArchBatch:
    """Uniform crossover: row by row, every gene comes from either parent with equal chance.

    Where a gene has no effect in the parent it was to come from, the other parent gives it. That
    is enough: a gene without effect in both parents has none in the child, since the gene that
    decides it comes from one of the two.

    Args:
        left: first parents, `(n_archs, n_genes)`.
        right: second parents, of the same space and number.
        rng: the source of randomness.

    Returns:
        `(n_archs, n_genes)`, canonical.

    Raises:
        InvalidInputError: the batches differ in length.
        SpaceMismatchError: the batches belong to different spaces.
    """
    left.space.require_same(right.space)
    if len(left) != len(right):
        raise InvalidInputError(f"crossover of {len(left)} with {len(right)} architectures")
    from_left = rng.integers(0, 2, size=left.genes.shape, dtype=np.int8).astype(np.bool_)
    first = np.where(from_left, left.genes, right.genes)
    second = np.where(from_left, right.genes, left.genes)
    child = np.where(first == INACTIVE, second, first)
    return ArchBatch(left.space, left.space.canonical(child))
