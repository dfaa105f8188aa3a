"""Cover networks: few networks in which every distinct op of a space occurs often enough.

An op is measured in its real surroundings, inside whole networks. Layers choose independently of
each other, so one network can hold one new op per layer, and a space needs about as many networks
as its most varied layer has ops (times the choices that all layers share, such as resolutions): the
rows of a Latin square. In a cell, what is run of one edge may depend on all the others; nothing
changes by that. Networks are added one at a time; each starts random and is improved gene by gene
until no single gene brings in more of what is still wanted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from latlas_ops.opspec import OpSpec
from latlas_ops.space import INACTIVE, ArchBatch, SearchSpace

_N_STARTS = 16
_N_SWEEPS = 2

_Genes = NDArray[np.int64]
"""Choice indices `(n, n_genes)`, every gene in range whether it has an effect or not."""


def cover_networks(
    space: SearchSpace,
    min_occurrences: int,
    rng: np.random.Generator,
    allowed: Mapping[int, Sequence[int]] | None = None,
    least_networks: int = 1,
) -> ArchBatch:
    """Networks such that every distinct op of `space` occurs in at least `min_occurrences`.

    An op that occurs twice in one network counts once.

    Args:
        space: the space to cover.
        min_occurrences: at least 1.
        rng: source of the starting points and of the order of improvement.
        allowed: gene → the choice indices that networks may have, for some genes; ops that need
            another choice are not covered.
        least_networks: how many networks there are at least; those beyond what the ops need are
            random. One network of repeated cells may hold all the ops of its space.

    Returns:
        The networks, canonical, `(n_networks, n_genes)`; small spaces may need some twice.
    """
    choices = _choices(space, allowed or {})
    n_slots_of = _n_slots_of(space, choices)
    wanted = np.where(n_slots_of > 0, min_occurrences, 0)
    rows: list[NDArray[np.int64]] = []
    while wanted.max() > 0 or len(rows) < least_networks:
        # An op that fits few slots has fewer chances, so it goes first.
        weights = np.maximum(wanted, 0) / np.maximum(n_slots_of, 1)
        genes = _best_network(space, weights, choices, rng)
        rows.append(genes)
        found = np.unique(space.gather_entries(genes[np.newaxis]))
        wanted[found[found != INACTIVE]] -= 1
    return ArchBatch(space, space.canonical(np.stack(rows)))


def covered_ops(space: SearchSpace, allowed: Mapping[int, Sequence[int]]) -> tuple[OpSpec, ...]:
    """The distinct ops that `cover_networks` covers."""
    n_slots_of = _n_slots_of(space, _choices(space, allowed))
    return tuple(op for op, n in zip(space.slot_entries.ops, n_slots_of, strict=True) if n)


def _choices(space: SearchSpace, allowed: Mapping[int, Sequence[int]]) -> list[NDArray[np.int64]]:
    """The choice indices of every gene that networks may have."""
    return [
        np.asarray(allowed.get(gene, range(size)), dtype=np.int64)
        for gene, size in enumerate(space.sizes.tolist())
    ]


def _n_slots_of(space: SearchSpace, choices: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """In how many slots each distinct op may stand, `(n_entries,)`."""
    entries = space.slot_entries
    counts = np.zeros(len(entries.ops))
    for slot, whole in zip(space.slots, entries.tables, strict=True):
        table = whole[np.ix_(*(choices[gene] for gene in slot.genes))]
        counts[np.unique(table[table != INACTIVE])] += 1
    return counts


def _best_network(
    space: SearchSpace,
    weights: NDArray[np.float64],
    choices: Sequence[NDArray[np.int64]],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Genes `(n_genes,)` of a network whose distinct ops weigh much, by coordinate ascent."""
    sizes = [len(indices) for indices in choices]
    drawn = rng.integers(0, sizes, size=(_N_STARTS, len(sizes)))
    genes = np.stack([indices[drawn[:, gene]] for gene, indices in enumerate(choices)], axis=1)
    every = np.arange(_N_STARTS)
    weight = _weight(space, genes, weights)
    for _ in range(_N_SWEEPS):
        before = weight
        for gene in rng.permutation(len(sizes)).tolist():
            options = np.repeat(genes, sizes[gene], axis=0)
            options[:, gene] = np.tile(choices[gene], _N_STARTS)
            option_weights = _weight(space, options, weights).reshape(_N_STARTS, sizes[gene])
            best = option_weights.argmax(axis=1)
            # Where nothing is gained the random choice stays: surroundings are to vary.
            gains = option_weights[every, best] > weight
            genes[gains, gene] = choices[gene][best[gains]]
            weight = np.maximum(weight, option_weights[every, best])
        if (weight <= before).all():
            break
    return np.asarray(genes[weight.argmax()])


def _weight(space: SearchSpace, genes: _Genes, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of the weights of each network's distinct ops, `(n,)`."""
    entries = np.sort(space.gather_entries(genes), axis=1)
    counts = entries != INACTIVE
    counts[:, 1:] &= entries[:, 1:] != entries[:, :-1]
    return np.asarray(np.where(counts, weights[entries], 0.0).sum(axis=1))
