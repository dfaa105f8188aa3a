"""Evolutionary search under a hard latency limit, on whole generations at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from latlas_latency.model import LatencyModel
from latlas_nas.search.evaluation import AccuracyFunction, Archive, LatencyLimit
from latlas_nas.search.minimum import fastest_arch, require_feasible
from latlas_nas.search.result import Constraint, SearchResult
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import INACTIVE, ArchBatch, ArchConfig, SearchSpace
from latlas_ops.variation import crossover, mutate

_REPAIR_SHARES = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class EvolutionSettings:
    """How a population evolves.

    Attributes:
        population: architectures scored in the first generation, and children in every later one.
        generations: generations after the first.
        parents: the most accurate architectures so far, from which children are made.
        mutation_probability: chance per gene to be drawn anew in a mutated child.
    """

    population: int = 200
    generations: int = 40
    parents: int = 50
    mutation_probability: float = 0.1

    def __post_init__(self) -> None:
        if min(self.population, self.parents) < 1 or self.generations < 0:
            raise InvalidInputError("an evolution needs a population and parents of at least one")


def evolve(
    space: SearchSpace,
    accuracy_fn: AccuracyFunction,
    latency_model: LatencyModel,
    max_latency_ms: float,
    *,
    rng: np.random.Generator,
    level: float = 0.9,
    bound: str = "upper",
    allow_estimates: bool = False,
    settings: EvolutionSettings = EvolutionSettings(),
    start: Sequence[ArchConfig] = (),
) -> SearchResult:
    """The most accurate architecture whose predicted latency keeps a limit.

    Parents are the best of all architectures scored so far; half of the children are mutants, half
    are crossings that are mutated too (Once-for-All, section 3.4; Real et al., 2019). Latency is
    asked first and accuracy only of what keeps the limit. A child that does not keep it is drawn
    towards the fastest architecture until it does. Nothing is scored twice.

    Args:
        space: the search space.
        accuracy_fn: what to maximise.
        latency_model: what answers for the limit.
        max_latency_ms: the limit.
        rng: the source of randomness.
        level: coverage of the latency's interval.
        bound: `upper` holds the upper end of the interval against the limit, `mean` the mean.
        allow_estimates: let the model estimate ops it has no figure for.
        settings: sizes of the population.
        start: architectures to begin with, beside random ones.

    Raises:
        InfeasibleError: nothing keeps the limit; the message names a budget that works.
        UnknownOpError: the model lacks an op and estimates are not allowed.
        InvalidInputError: a malformed limit, or an accuracy function that answers with nonsense.
    """
    limit = LatencyLimit(latency_model, Constraint(max_latency_ms, bound, level), allow_estimates)
    fastest = fastest_arch(space, limit, rng)
    require_feasible(fastest, limit, space)
    archive = Archive(space, accuracy_fn, limit)
    archive.add(fastest.archs)
    archive.add(space.batch(start))
    _grow(archive, space.sample(settings.population, rng), fastest.archs, rng, settings.population)
    history = [float(archive.accuracy.max())]
    for _ in range(settings.generations):
        children = _children(archive, space, settings, rng)
        _grow(archive, children, fastest.archs, rng, settings.population)
        history.append(float(archive.accuracy.max()))
    return archive.result("evolution", history)


def _children(
    archive: Archive, space: SearchSpace, settings: EvolutionSettings, rng: np.random.Generator
) -> ArchBatch:
    """Mutants and crossings of the best; twice the population, since many are known or too slow."""
    parents = archive.genes[archive.ranking()[: settings.parents]]

    def drawn() -> ArchBatch:
        return ArchBatch(space, parents[rng.integers(0, len(parents), settings.population)])

    mutants = mutate(drawn(), settings.mutation_probability, rng)
    crossed = mutate(crossover(drawn(), drawn(), rng), settings.mutation_probability / 2, rng)
    genes = np.stack([mutants.genes, crossed.genes], 1).reshape(-1, len(space.genes))
    return ArchBatch(space, genes)


def _grow(
    archive: Archive,
    archs: ArchBatch,
    fastest: ArchBatch,
    rng: np.random.Generator,
    at_most: int,
) -> None:
    """Scores up to `at_most` new architectures, those too slow after drawing them to `fastest`."""
    before = len(archive)
    slow = archive.add(archs, at_most)
    for share in _REPAIR_SHARES:
        room = at_most - (len(archive) - before)
        if room == 0 or not len(slow):
            return
        slow = archive.add(_drawn_towards(slow, fastest, share, rng), room)


def _drawn_towards(
    archs: ArchBatch, goal: ArchBatch, share: float, rng: np.random.Generator
) -> ArchBatch:
    """Architectures of which `share` of the genes, chosen at random, are those of `goal`."""
    taken = (rng.random(archs.genes.shape) < share) | (archs.genes == INACTIVE)
    goal_genes = np.where(goal.genes == INACTIVE, 0, goal.genes)
    genes = np.where(taken, goal_genes, archs.genes)
    return ArchBatch(archs.space, archs.space.canonical(genes))
