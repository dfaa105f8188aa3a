"""Random search: the baseline that every other search has to beat."""

from __future__ import annotations

import numpy as np

from latlas_latency.model import LatencyModel
from latlas_nas.search.evaluation import AccuracyFunction, Archive, LatencyLimit
from latlas_nas.search.minimum import fastest_arch, require_feasible, round_up
from latlas_nas.search.result import Constraint, SearchResult
from latlas_ops.errors import InfeasibleError
from latlas_ops.space import SearchSpace

_CHUNK = 4096
_DRAWS_PER_FEASIBLE = 200


def random_search(
    space: SearchSpace,
    accuracy_fn: AccuracyFunction,
    latency_model: LatencyModel,
    max_latency_ms: float,
    *,
    n_feasible: int,
    rng: np.random.Generator,
    level: float = 0.9,
    bound: str = "upper",
    allow_estimates: bool = False,
) -> SearchResult:
    """The most accurate of `n_feasible` random architectures that keep a latency limit.

    Architectures are drawn uniformly and those that do not keep the limit are thrown away. Under
    a very tight limit drawing ends after 200 draws per architecture wanted; the result's
    `n_evaluated` says how many were found.

    Args:
        space: the search space.
        accuracy_fn: what to maximise.
        latency_model: what answers for the limit.
        max_latency_ms: the limit.
        n_feasible: how many to score; give `n_evaluated` of the search that is compared.
        rng: the source of randomness.
        level: coverage of the latency's interval.
        bound: `upper` holds the upper end of the interval against the limit, `mean` the mean.
        allow_estimates: let the model estimate ops it has no figure for.

    Raises:
        InfeasibleError: nothing that was drawn keeps the limit; a budget that works is named.
        UnknownOpError: the model lacks an op and estimates are not allowed.
    """
    limit = LatencyLimit(latency_model, Constraint(max_latency_ms, bound, level), allow_estimates)
    archive = Archive(space, accuracy_fn, limit)
    history: list[float] = []
    draws = 0
    while len(archive) < n_feasible and draws < _DRAWS_PER_FEASIBLE * n_feasible:
        archive.add(space.sample(_CHUNK, rng), n_feasible - len(archive))
        draws += _CHUNK
        if len(archive):
            history.append(float(archive.accuracy.max()))
    if not len(archive):
        fastest = fastest_arch(space, limit, rng)
        require_feasible(fastest, limit, space)
        raise InfeasibleError(
            f"none of {draws} random architectures of space {space.name!r} keeps "
            f"{limit.constraint}; {round_up(fastest.held_ms)} ms is possible, but only a search "
            "finds it"
        )
    return archive.result("random", history)
