"""Cover networks: few networks in which every distinct op of a space occurs often enough.

An op is measured in its real surroundings, inside whole networks. Layers choose independently of
each other, so one network can hold one new op per layer, and a space needs about as many networks
as its most varied layer has ops (times the choices that all layers share, such as resolutions): the
rows of a Latin square. Networks are added one at a time; each starts random and is improved gene by
gene until no single gene brings in more of what is still wanted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from latlas_ops.space import INACTIVE, ArchBatch, SearchSpace

_N_STARTS = 16
_N_SWEEPS = 2

_Genes = NDArray[np.int64]
"""Choice indices `(n, n_genes)`, every gene in range whether it has an effect or not."""


def cover_networks(space: SearchSpace, min_occurrences: int, rng: np.random.Generator) -> ArchBatch:
    """Networks such that every distinct op of `space` occurs in at least `min_occurrences`.

    An op that occurs twice in one network counts once.

    Args:
        space: the space to cover.
        min_occurrences: at least 1.
        rng: source of the starting points and of the order of improvement.

    Returns:
        The networks, canonical, `(n_networks, n_genes)`; small spaces may need some twice.
    """
    entries = space.slot_entries
    n_slots_of = np.zeros(len(entries.ops))
    for table in entries.tables:
        n_slots_of[np.unique(table[table != INACTIVE])] += 1
    wanted = np.full(len(entries.ops), min_occurrences, dtype=np.int64)
    rows = []
    while wanted.max() > 0:
        # An op that fits few slots has fewer chances, so it goes first.
        weights = np.maximum(wanted, 0) / n_slots_of
        genes = _best_network(space, weights, rng)
        rows.append(genes)
        found = np.unique(_entries(space, genes[np.newaxis]))
        wanted[found[found != INACTIVE]] -= 1
    return ArchBatch(space, space.canonical(np.stack(rows)))


def _best_network(
    space: SearchSpace, weights: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Genes `(n_genes,)` of a network whose distinct ops weigh much, by coordinate ascent."""
    sizes: Sequence[int] = space.sizes.tolist()
    genes = rng.integers(0, sizes, size=(_N_STARTS, len(sizes)))
    every = np.arange(_N_STARTS)
    weight = _weight(space, genes, weights)
    for _ in range(_N_SWEEPS):
        before = weight
        for gene in rng.permutation(len(sizes)).tolist():
            options = np.repeat(genes, sizes[gene], axis=0)
            options[:, gene] = np.tile(np.arange(sizes[gene]), _N_STARTS)
            option_weights = _weight(space, options, weights).reshape(_N_STARTS, sizes[gene])
            best = option_weights.argmax(axis=1)
            # Where nothing is gained the random choice stays: surroundings are to vary.
            gains = option_weights[every, best] > option_weights[every, genes[:, gene]]
            genes[gains, gene] = best[gains]
            weight = option_weights[every, genes[:, gene]]
        if (weight <= before).all():
            break
    return np.asarray(genes[weight.argmax()])


def _entries(space: SearchSpace, genes: _Genes) -> NDArray[np.int32]:
    """Index of the op in each slot, `(n, n_slots)`, `INACTIVE` where it is empty."""
    return np.stack(
        [
            table[tuple(genes[:, gene] for gene in slot.genes)]
            for slot, table in zip(space.slots, space.slot_entries.tables, strict=True)
        ],
        axis=1,
    )


def _weight(space: SearchSpace, genes: _Genes, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the weights of each network's distinct ops, `(n,)`."""
    entries = np.sort(_entries(space, genes), axis=1)
    counts = entries != INACTIVE
    counts[:, 1:] &= entries[:, 1:] != entries[:, :-1]
    return np.asarray(np.where(counts, weights[entries], 0.0).sum(axis=1))
