"""The fastest architecture of a space: what decides whether a latency budget can be kept."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from latlas_latency.model import OpLatencies
from latlas_nas.search.evaluation import LatencyLimit
from latlas_ops.errors import InfeasibleError, NotAdditiveError
from latlas_ops.space import INACTIVE, ArchBatch, SearchSpace

_STARTS = 512
_DESCENTS = 4


@dataclass(frozen=True)
class Fastest:
    """The fastest architecture that is known.

    Attributes:
        archs: a batch of one.
        held_ms: what a limit would be held against.
        proved: whether no architecture can be faster.
    """

    archs: ArchBatch
    held_ms: float
    proved: bool


def fastest_arch(space: SearchSpace, limit: LatencyLimit, rng: np.random.Generator) -> Fastest:
    """The architecture with the least latency, as the limit's bound has it.

    Where the model is a sum over ops, the least mean is found exactly. Otherwise, and for the
    upper bound, single genes are changed for the better until nothing improves, from several
    starting points.
    """
    starts = [space.extremes().genes[:1], space.sample(_STARTS, rng).genes]
    additive = True
    try:
        starts.append(least_sum(space, limit.model.op_latencies(space)).genes)
    except NotAdditiveError:
        additive = False
    genes = np.concatenate(starts)
    held = limit.held_ms(ArchBatch(space, genes))
    best = min(
        (_descend(space, limit, genes[index]) for index in np.argsort(held)[:_DESCENTS]),
        key=lambda found: found[1],
    )
    proved = additive and limit.constraint.bound == "mean"
    return Fastest(ArchBatch(space, best[0][None]), best[1], proved)


def require_feasible(fastest: Fastest, limit: LatencyLimit, space: SearchSpace) -> None:
    """Raises `InfeasibleError`, naming the smallest budget known to work, if the limit is below."""
    if fastest.held_ms > limit.constraint.max_latency_ms:
        smallest = "possible" if fastest.proved else "found to work"
        raise InfeasibleError(
            f"no architecture of space {space.name!r} keeps {limit.constraint} on target "
            f"{limit.model.target.name!r}; the smallest budget {smallest} is "
            f"{round_up(fastest.held_ms)} ms"
        )


def round_up(value_ms: float) -> str:
    """Four significant digits, never less than `value_ms`, so that the budget it names works."""
    text = f"{value_ms:.4g}"
    return text if float(text) >= value_ms else f"{value_ms * 1.0005:.4g}"


def least_sum(space: SearchSpace, latencies: OpLatencies) -> ArchBatch:
    """The architecture with the least sum of op latencies, exactly; a batch of one.

    Genes are eliminated one after another (dynamic programming over the slots' tables): the
    tables that depend on a gene are added up, and the minimum over that gene replaces them.
    """
    factors = [
        (slot.genes, table) for slot, table in zip(space.slots, latencies.tables_ms, strict=True)
    ]
    decisions: list[tuple[int, tuple[int, ...], NDArray[np.intp]]] = []
    remaining = set(range(len(space.genes)))
    while remaining:
        gene = min(remaining, key=lambda gene: (len(_neighbours(factors, gene)), gene))
        remaining.remove(gene)
        others = tuple(sorted(_neighbours(factors, gene)))
        touching = [factor for factor in factors if gene in factor[0]]
        factors = [factor for factor in factors if gene not in factor[0]]
        axes = (*others, gene)
        total = reduce(
            np.add,
            (_expanded(factor, axes) for factor in touching),
            np.zeros([len(space.genes[axis].choices) for axis in axes]),
        )
        decisions.append((gene, others, total.argmin(-1)))
        factors.append((others, total.min(-1)))
    row = np.zeros(len(space.genes), np.int64)
    for gene, others, choice in reversed(decisions):
        row[gene] = choice[tuple(row[other] for other in others)]
    return ArchBatch(space, space.canonical(row[None]))


Factor = tuple[tuple[int, ...], NDArray[np.float64]]


def _neighbours(factors: list[Factor], gene: int) -> set[int]:
    """The genes that share a table with `gene`."""
    return {other for genes, _ in factors if gene in genes for other in genes} - {gene}


def _expanded(factor: Factor, axes: tuple[int, ...]) -> NDArray[np.float64]:
    """A table with its axes in the order of `axes`, and an axis of length 1 for every other."""
    genes, table = factor
    order = [genes.index(axis) for axis in axes if axis in genes]
    shape = [table.shape[genes.index(axis)] if axis in genes else 1 for axis in axes]
    return table.transpose(order).reshape(shape)


def _descend(
    space: SearchSpace, limit: LatencyLimit, genes: NDArray[np.int8]
) -> tuple[NDArray[np.int8], float]:
    """Changes one gene at a time, always the one that helps most, until none helps."""
    held = float(limit.held_ms(ArchBatch(space, genes[None]))[0])
    while True:
        neighbours = _one_gene_changed(space, genes)
        values = limit.held_ms(ArchBatch(space, neighbours))
        best = int(values.argmin())
        if not values[best] < held:
            return genes, held
        genes, held = neighbours[best], float(values[best])


def _one_gene_changed(space: SearchSpace, genes: NDArray[np.int8]) -> NDArray[np.int8]:
    """Every architecture that differs in one gene; genes that come to life are first choices."""
    base = np.where(genes == INACTIVE, 0, genes)
    rows = np.repeat(base[None], int(space.sizes.sum()), 0)
    column = np.repeat(np.arange(len(space.sizes)), space.sizes)
    starts = np.repeat(np.cumsum(space.sizes) - space.sizes, space.sizes)
    rows[np.arange(len(rows)), column] = np.arange(len(rows)) - starts
    return space.canonical(rows)
