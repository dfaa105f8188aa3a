"""Step 4 of the quickstart: search under every budget, with the table and with the MLP."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from latlas.files import read_file, write_atomically
from latlas.progress import Progress
from latlas.quickstart.results import Front
from latlas.quickstart.settings import QuickstartSettings
from latlas_latency.model import LatencyModel
from latlas_nas.accuracy_predictor import AccuracyPredictor
from latlas_nas.search.evolution import EvolutionSettings, evolve
from latlas_nas.search.pareto import pareto_front
from latlas_nas.search.random_search import random_search
from latlas_nas.search.result import SearchResult
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import SearchSpace

SEARCHED_WITH = ("table", "mlp")
"""The latency models that are searched with."""

_EVOLUTION_STREAM, _RANDOM_STREAM = 20, 21


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


def budgets_ms(latencies_ms: Sequence[float], quantiles: Sequence[float]) -> list[float]:
    """Latency budgets in hundredths of a millisecond: quantiles of measured latencies."""
    return [round(float(value), 2) for value in np.quantile(latencies_ms, quantiles)]


def search_all(
    space: SearchSpace,
    accuracy: AccuracyPredictor,
    models: Mapping[str, LatencyModel],
    budgets: Sequence[float],
    folder: Path,
    settings: QuickstartSettings,
    stream: TextIO,
) -> list[Search]:
    """Every budget with every latency model of `SEARCHED_WITH`; the limit is hard.

    What an earlier run searched is read from its file.

    Args:
        space: the search space.
        accuracy: what is maximised.
        models: latency models by kind.
        budgets: limits in milliseconds, held against the upper end of the interval.
        folder: for one file per search.
        settings: sizes of the searches.
        stream: where progress is told.

    Raises:
        InfeasibleError: a budget that nothing keeps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [(budget_ms, kind) for budget_ms in budgets for kind in SEARCHED_WITH]
    searches: list[Search] = []
    with Progress("  searching", total=len(wanted), done=None, stream=stream) as bar:
        for budget_ms, kind in wanted:
            bar.update(len(searches), f"{budget_ms:.2f} ms with the {kind}")
            path = folder / f"{kind}-{budget_ms:.2f}ms.json"
            if not path.exists():
                search = _search(space, accuracy, models[kind], budget_ms, kind, settings)
                write_atomically(path, (json.dumps(_record(search), indent=1) + "\n").encode())
            searches.append(_read(path))
        bar.update(len(searches))
    return searches


def _search(
    space: SearchSpace,
    accuracy: AccuracyPredictor,
    model: LatencyModel,
    budget_ms: float,
    kind: str,
    settings: QuickstartSettings,
) -> Search:
    started_s = time.monotonic()
    evolution = evolve(
        space,
        accuracy,
        model,
        budget_ms,
        rng=np.random.default_rng([settings.seed, _EVOLUTION_STREAM]),
        level=settings.level,
        settings=EvolutionSettings(
            population=settings.population, generations=settings.generations
        ),
    )
    seconds = time.monotonic() - started_s
    chance = random_search(
        space,
        accuracy,
        model,
        budget_ms,
        n_feasible=evolution.n_evaluated,
        rng=np.random.default_rng([settings.seed, _RANDOM_STREAM]),
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


def _read(path: Path) -> Search:
    try:
        record = json.loads(read_file(path))
        return Search(
            float(record["budget_ms"]),
            str(record["latency_model"]),
            SearchResult.from_dict(record["evolution"]),
            SearchResult.from_dict(record["random"]),
            float(record["seconds"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(
            f"{path} is no search that can be read ({error!r}); remove it to search again"
        ) from error


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
