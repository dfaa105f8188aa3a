"""Step 4 of the quickstart: search under every budget, with the table and with the MLP."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latlas.files import write_atomically
from latlas.progress import Progress
from latlas.quickstart.job import Job
from latlas.quickstart.results import Front
from latlas_latency.model import LatencyModel
from latlas_nas.accuracy_predictor import AccuracyPredictor
from latlas_nas.search.evolution import EvolutionSettings, evolve
from latlas_nas.search.pareto import pareto_front
from latlas_nas.search.random_search import random_search
from latlas_nas.search.result import SearchResult

SEARCHED_WITH = ("table", "mlp")
"""The latency models that are searched with."""


@dataclass(frozen=True)
class Search:
    """One evolutionary search and, under the same limit and on as many subnets, a random one.

    Attributes:
        budget_ms: the limit.
        latency_model: kind of the model that answers for the limit.
        evolution: what the search found.
        random: what chance found.
        seconds: wall time of the evolutionary search.
    """

    budget_ms: float
    latency_model: str
    evolution: SearchResult
    random: SearchResult
    seconds: float

    @property
    def name(self) -> str:
        """For files: `table-1.20ms`."""
        return f"{self.latency_model}-{self.budget_ms:.2f}ms"


def budgets_ms(latencies_ms: NDArray[np.float64], quantiles: Sequence[float]) -> list[float]:
    """Latency budgets in hundredths of a millisecond: quantiles of measured latencies."""
    return [round(float(value), 2) for value in np.quantile(latencies_ms, quantiles)]


def search_all(
    job: Job,
    accuracy: AccuracyPredictor,
    models: Mapping[str, LatencyModel],
    budgets: Sequence[float],
) -> list[Search]:
    """Every budget with every latency model of `SEARCHED_WITH`; the limit is hard.

    A search takes less than a second and gives the same result every time, so it is done anew in
    every run; its record is left in `searches/`.

    Args:
        job: the quickstart.
        accuracy: what is maximised.
        models: latency models by kind.
        budgets: limits in milliseconds, held against the upper end of the interval.

    Raises:
        InfeasibleError: a budget that nothing keeps.
    """
    folder = job.folder / "searches"
    folder.mkdir(exist_ok=True)
    wanted = [(budget_ms, kind) for budget_ms in budgets for kind in SEARCHED_WITH]
    searches: list[Search] = []
    with Progress("  searching", total=len(wanted), stream=job.stream) as bar:
        for budget_ms, kind in wanted:
            search = _search(job, accuracy, models[kind], budget_ms, kind)
            record = json.dumps(_record(search), indent=1) + "\n"
            write_atomically(folder / f"{search.name}.json", record.encode())
            searches.append(search)
            bar.update(len(searches))
    return searches


def _search(
    job: Job, accuracy: AccuracyPredictor, model: LatencyModel, budget_ms: float, kind: str
) -> Search:
    settings = job.settings
    sizes = EvolutionSettings(population=settings.population, generations=settings.generations)
    started_s = time.monotonic()
    evolution = evolve(
        job.space,
        accuracy,
        model,
        budget_ms,
        rng=job.rng("evolution"),
        level=settings.level,
        settings=sizes,
    )
    seconds = time.monotonic() - started_s
    chance = random_search(
        job.space,
        accuracy,
        model,
        budget_ms,
        n_feasible=evolution.n_evaluated,
        rng=job.rng("random search"),
        level=settings.level,
    )
    return Search(budget_ms, kind, evolution, chance, seconds)


def _record(search: Search) -> dict[str, object]:
    return {
        "budget_ms": search.budget_ms,
        "latency_model": search.latency_model,
        "seconds": search.seconds,
        "evolution": search.evolution.to_dict(),
        "random": search.random.to_dict(),
    }


def fronts(searches: Sequence[Search]) -> list[Front]:
    """The Pareto front of every latency model over all of its searches."""
    found = []
    for kind in SEARCHED_WITH:
        candidates = [
            candidate
            for search in searches
            if search.latency_model == kind
            for candidate in search.evolution.front
        ]
        latency_ms = np.array([candidate.latency_ms for candidate in candidates])
        accuracy = np.array([candidate.accuracy for candidate in candidates])
        best = pareto_front(latency_ms, accuracy)
        found.append(Front(kind, latency_ms[best].tolist(), accuracy[best].tolist()))
    return found
