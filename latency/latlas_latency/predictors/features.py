"""What predictors see of an architecture: physical totals and choices.

*Totals* are sums over the nodes of the architecture's primitive graph, named in `total_names`:

- `nodes`: number of nodes.
- `elements`: tensor elements written by all nodes.
- `depthwise_elements`: those written by depthwise and grouped convolutions.
- `parameters`: weights and biases.
- `macs`: multiply-accumulates of convolutions and linear layers.
- `macs_k<k>`, `depthwise_macs_k<k>`: those of convolutions of kernel size k (k = 1: also linear
  layers), groups apart, since a multiply-accumulate costs differently in each.

*Choices* are the genes one-hot, all zeros for a gene that has no effect. *Area* is the input
resolution squared, relative to the largest of the space; most of a network's time scales with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from latlas_ops.kinds import op_nodes
from latlas_ops.opspec import OpSpec
from latlas_ops.space import ArchBatch, SearchSpace


@dataclass(frozen=True, eq=False)
class ArchFeatures:
    """Features of `n` architectures.

    Attributes:
        totals: `(n, n_totals)` float64, columns as in `total_names`.
        choices: `(n, n_choices)` float64 of 0 and 1, columns as in `choice_names`.
        area: `(n,)` float64 in (0, 1].
    """

    totals: NDArray[np.float64]
    choices: NDArray[np.float64]
    area: NDArray[np.float64]


def arch_features(batch: ArchBatch) -> ArchFeatures:
    """Features of a batch of architectures."""
    space = batch.space
    _, per_entry = _entry_totals(space)
    totals = per_entry[space.entry_indices(batch)].sum(axis=1)
    choices = np.concatenate(
        [
            batch.genes[:, gene, None] == np.arange(size, dtype=np.int8)
            for gene, size in enumerate(space.sizes)
        ],
        axis=1,
    )
    return ArchFeatures(totals, choices.astype(np.float64), _area(batch))


def total_names(space: SearchSpace) -> tuple[str, ...]:
    """Names of the columns of `ArchFeatures.totals`."""
    return _entry_totals(space)[0]


def choice_names(space: SearchSpace) -> tuple[str, ...]:
    """Names of the columns of `ArchFeatures.choices`: gene and choice, which may have a label."""
    return tuple(
        f"{gene.name}={label}" for gene in space.genes for label in gene.labels or gene.choices
    )


def _area(batch: ArchBatch) -> NDArray[np.float64]:
    gene = batch.space.resolution_gene
    if gene is None:
        return np.ones(len(batch))
    sides = np.array(batch.space.genes[gene].choices, dtype=np.float64)
    return np.asarray((sides / sides.max())[batch.genes[:, gene]] ** 2, dtype=np.float64)


@lru_cache(maxsize=16)
def _entry_totals(space: SearchSpace) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names, and totals per distinct op `(n_entries + 1, n_totals)`; row -1 is an empty slot."""
    per_op = [_op_totals(op) for op in space.slot_entries.ops]
    names = tuple(sorted({name for totals in per_op for name in totals}))
    rows = [[totals.get(name, 0.0) for name in names] for totals in per_op]
    return names, np.array([*rows, [0.0] * len(names)])


def _op_totals(op: OpSpec) -> dict[str, float]:
    totals: dict[str, float] = {}

    def count(name: str, amount: float) -> None:
        totals[name] = totals.get(name, 0.0) + amount

    for node in op_nodes(op):
        elements = math.prod(node.shape)
        count("nodes", 1)
        count("elements", elements)
        if not node.parameters:
            continue
        weight = node.parameters[0].shape
        macs = math.prod(weight) * math.prod(node.shape[1:])
        grouped = node.attributes.get("groups", 1) > 1
        prefix = "depthwise_" if grouped else ""
        if grouped:
            count("depthwise_elements", elements)
        count("parameters", sum(math.prod(parameter.shape) for parameter in node.parameters))
        count("macs", macs)
        count(f"{prefix}macs_k{node.attributes.get('kernel', 1)}", macs)
    return totals
