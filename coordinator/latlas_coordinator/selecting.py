"""Networks that a search would pick: where a latency model errs low, a search goes.

The errors of a model on random networks say little about those that its user will deploy. A search
looks for capacity under a latency limit and so collects the ops whose latency is underestimated.
The searches here do the same without knowing any accuracy: each maximises a capacity of its own
under a limit of its own. Capacity is the log of multiply-accumulates, with which accuracy grows,
plus a random share of the log of parameters and a random liking for every gene.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from latlas_latency.model import LatencyModel
from latlas_ops.costs import space_costs
from latlas_ops.space import INACTIVE, ArchBatch, SearchSpace
from latlas_ops.variation import crossover, mutate

_POPULATION = 128
_GENERATIONS = 30
_PARENTS = 32
_MUTATION_PROBABILITY = 0.1
_QUANTILES = (0.05, 0.95)
_POOL = 4096
_LIKING = 0.05
"""Standard deviation of what a gene is worth beyond its costs, in logs of capacity."""


def select_networks(
    space: SearchSpace, model: LatencyModel, n_networks: int, rng: np.random.Generator
) -> ArchBatch:
    """The winners of `n_networks` searches, `(n_networks, n_genes)`.

    The limits are spread between the 5 % and the 95 % quantile of the latencies that the model
    predicts for random architectures, one at random in each of as many equal parts.

    Raises:
        UnknownOpError: the model lacks an op of the space.
    """
    pool = space.sample(_POOL, rng)
    low_ms, high_ms = np.quantile(model.predict(pool).mean_ms, _QUANTILES)
    shares = (rng.permutation(n_networks) + rng.uniform(size=n_networks)) / n_networks
    winners = [
        _search(space, model, float(limit_ms), pool, rng)
        for limit_ms in low_ms + (high_ms - low_ms) * shares
    ]
    return ArchBatch(space, np.stack(winners))


def _search(
    space: SearchSpace,
    model: LatencyModel,
    limit_ms: float,
    pool: ArchBatch,
    rng: np.random.Generator,
) -> NDArray[np.int8]:
    """The genes `(n_genes,)` of the greatest capacity found within the limit."""
    parameter_share = rng.uniform(0, 1)
    likings = rng.normal(0, _LIKING, size=len(space.genes))

    def ranked(batch: ArchBatch) -> ArchBatch:
        """Those within the limit, greatest capacity first; the fastest one if none is."""
        genes = np.unique(batch.genes, axis=0)
        latency_ms = model.predict(ArchBatch(space, genes)).mean_ms
        within = np.flatnonzero(latency_ms <= limit_ms)
        if not len(within):
            within = np.array([latency_ms.argmin()])
        costs = space_costs(ArchBatch(space, genes[within]))
        capacity = np.log(costs.macs) + parameter_share * np.log(costs.parameters)
        capacity += _steps(space, genes[within]) @ likings
        return ArchBatch(space, genes[within[np.argsort(-capacity, kind="stable")]])

    best = ArchBatch(space, ranked(pool).genes[:_PARENTS])
    for _ in range(_GENERATIONS):
        left, right = (
            ArchBatch(space, best.genes[rng.integers(0, len(best), _POPULATION)]) for _ in range(2)
        )
        children = mutate(crossover(left, right, rng), _MUTATION_PROBABILITY, rng)
        together = ArchBatch(space, np.concatenate([best.genes, children.genes]))
        best = ArchBatch(space, ranked(together).genes[:_PARENTS])
    winner: NDArray[np.int8] = best.genes[0]
    return winner


def _steps(space: SearchSpace, genes: NDArray[np.int8]) -> NDArray[np.float64]:
    """How far up its choices each gene is, `(n_archs, n_genes)` in [0, 1]; 0 without effect."""
    return np.where(genes == INACTIVE, 0.0, genes / np.maximum(space.sizes - 1, 1))
