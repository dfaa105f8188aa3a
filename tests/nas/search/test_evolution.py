"""Evolution: it finds optima, and never breaks its limit."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from latlas_latency.model import LatencyModel, OpLatencies, Prediction
from latlas_nas.search.evolution import EvolutionSettings, evolve
from latlas_nas.search.random_search import random_search
from latlas_nas.search.result import SearchResult
from latlas_ops.errors import InfeasibleError, InvalidInputError
from latlas_ops.space import ArchBatch, SearchSpace
from latlas_ops.spaces import get_space
from latlas_ops.spaces.mobile import MobileSpace

Accuracy = Callable[[ArchBatch], NDArray[np.float64]]
MakeModel = Callable[..., LatencyModel]
AllArchs = Callable[[SearchSpace], ArchBatch]
DIGITS = get_space("digits")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.7])
@pytest.mark.parametrize("bound", ["upper", "mean"])
def test_it_finds_the_optimum_of_a_space_that_can_be_enumerated(
    small_space: MobileSpace,
    latency_model: MakeModel,
    all_archs: AllArchs,
    size_is_accuracy: Accuracy,
    bound: str,
    share: float,
) -> None:
    model, everything = latency_model(small_space), all_archs(small_space)
    found = model.predict(everything, 0.9)
    held = found.upper_ms if bound == "upper" else found.mean_ms
    budget = float(np.quantile(held, share))
    best = size_is_accuracy(everything)[held <= budget].max()
    result = evolve(small_space, size_is_accuracy, model, budget, rng=rng(), bound=bound)
    assert result.best.accuracy == best
    assert result.n_evaluated < len(everything)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_it_reports_or_scores_breaks_the_limit(
    latency_model: MakeModel, size_is_accuracy: Accuracy, seed: int
) -> None:
    model = latency_model(DIGITS)
    budget = float(np.quantile(model.predict(DIGITS.sample(200, rng(9))).upper_ms, 0.2))

    def checked(archs: ArchBatch) -> NDArray[np.float64]:
        assert (model.predict(archs, 0.95).upper_ms <= budget).all()
        return size_is_accuracy(archs)

    result = evolve(DIGITS, checked, model, budget, rng=rng(seed), level=0.95)
    for candidate in (*result.top, *result.front):
        (upper,) = model.predict(DIGITS.batch([candidate.arch]), 0.95).upper_ms
        assert candidate.upper_ms == upper <= budget


def test_nothing_is_scored_twice(latency_model: MakeModel, size_is_accuracy: Accuracy) -> None:
    scored: list[bytes] = []

    def recording(archs: ArchBatch) -> NDArray[np.float64]:
        scored.extend(row.tobytes() for row in archs.genes)
        return size_is_accuracy(archs)

    result = evolve(DIGITS, recording, latency_model(DIGITS), 25.0, rng=rng())
    assert len(scored) == len(set(scored)) == result.n_evaluated


def test_it_beats_as_many_random_architectures(
    latency_model: MakeModel, size_is_accuracy: Accuracy
) -> None:
    model = latency_model(DIGITS)
    for share in (0.05, 0.3, 0.7):
        budget = float(np.quantile(model.predict(DIGITS.sample(200, rng(9))).upper_ms, share))
        found = evolve(DIGITS, size_is_accuracy, model, budget, rng=rng(1))
        baseline = random_search(
            DIGITS, size_is_accuracy, model, budget, n_feasible=found.n_evaluated, rng=rng(2)
        )
        assert baseline.n_evaluated == found.n_evaluated
        assert found.best.accuracy > baseline.best.accuracy


@pytest.mark.parametrize("additive", [True, False])
def test_an_impossible_budget_is_answered_with_one_that_works(
    latency_model: MakeModel, size_is_accuracy: Accuracy, additive: bool
) -> None:
    model = latency_model(DIGITS, additive=additive)
    with pytest.raises(InfeasibleError) as caught:
        evolve(DIGITS, size_is_accuracy, model, 1e-3, rng=rng())
    message = str(caught.value)
    assert "no architecture of space 'digits' keeps 0.001 ms (upper bound at level 0.9)" in message
    budget = float(message.split()[-2])
    result = evolve(DIGITS, size_is_accuracy, model, budget, rng=rng())
    assert result.best.upper_ms <= budget


def test_under_the_tightest_budget_the_fastest_architecture_is_found(
    latency_model: MakeModel, size_is_accuracy: Accuracy
) -> None:
    model = latency_model(DIGITS)
    smallest = DIGITS.extremes().genes[:1]
    budget = float(model.predict(ArchBatch(DIGITS, smallest)).upper_ms[0])
    result = evolve(DIGITS, size_is_accuracy, model, budget, rng=rng())
    assert DIGITS.batch([result.best.arch]).genes.tolist() == smallest.tolist()
    assert result.n_evaluated == 1


def test_equal_seeds_give_equal_results(
    latency_model: MakeModel, size_is_accuracy: Accuracy
) -> None:
    model = latency_model(DIGITS)
    first, again = (evolve(DIGITS, size_is_accuracy, model, 15.0, rng=rng(3)) for _ in range(2))
    assert first == again
    # One generation has not converged yet: another seed is seen to draw others.
    short = EvolutionSettings(population=20, generations=1, parents=5)
    one, other = (
        evolve(DIGITS, size_is_accuracy, model, 15.0, rng=rng(seed), settings=short)
        for seed in (3, 4)
    )
    assert one.front != other.front


def test_history_never_falls_and_the_front_rises(
    latency_model: MakeModel, size_is_accuracy: Accuracy
) -> None:
    settings = EvolutionSettings(population=50, generations=10, parents=10)
    result = evolve(
        DIGITS, size_is_accuracy, latency_model(DIGITS), 25.0, rng=rng(), settings=settings
    )
    assert len(result.history) == 11
    assert sorted(result.history) == list(result.history)
    assert result.history[-1] == result.best.accuracy == result.front[-1].accuracy
    assert all(
        one.latency_ms < two.latency_ms and one.accuracy < two.accuracy
        for one, two in pairwise(result.front)
    )
    accuracies = [candidate.accuracy for candidate in result.top]
    assert sorted(accuracies, reverse=True) == accuracies


def test_it_begins_with_the_architectures_it_is_given(
    latency_model: MakeModel, size_is_accuracy: Accuracy
) -> None:
    model, settings = latency_model(DIGITS), EvolutionSettings(generations=0)
    known = evolve(DIGITS, size_is_accuracy, model, 15.0, rng=rng()).best
    result = evolve(
        DIGITS,
        size_is_accuracy,
        model,
        15.0,
        rng=rng(5),
        settings=settings,
        start=[known.arch],
    )
    assert result.best == known


def test_a_result_survives_json(latency_model: MakeModel, size_is_accuracy: Accuracy) -> None:
    result = evolve(DIGITS, size_is_accuracy, latency_model(DIGITS), 15.0, rng=rng())
    assert SearchResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


@pytest.mark.parametrize("record", [{}, {"version": 1}, {"version": 99}])
def test_anything_else_is_no_result(record: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match="not a search result"):
        SearchResult.from_dict(record)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bound": "median"}, "bound 'median' is not one of upper, mean"),
        ({"max_latency_ms": 0.0}, "must be positive"),
        ({"max_latency_ms": float("nan")}, "must be positive"),
        ({"level": 1.0}, "between 0 and 1"),
    ],
)
def test_a_malformed_limit_is_refused(
    latency_model: MakeModel,
    size_is_accuracy: Accuracy,
    change: dict[str, object],
    message: str,
) -> None:
    options = {"max_latency_ms": 15.0, **change}
    with pytest.raises(InvalidInputError, match=message):
        evolve(DIGITS, size_is_accuracy, latency_model(DIGITS), rng=rng(), **options)


@pytest.mark.parametrize("answer", [np.array(0.5), np.array([np.nan])])
def test_an_accuracy_function_that_answers_with_nonsense_is_refused(
    latency_model: MakeModel, answer: NDArray[np.float64]
) -> None:
    with pytest.raises(InvalidInputError, match="accuracy function must give 1 finite numbers"):
        evolve(DIGITS, lambda archs: answer, latency_model(DIGITS), 15.0, rng=rng())


def test_a_latency_model_without_finite_figures_ends_the_search(
    latency_model: MakeModel, size_is_accuracy: Accuracy
) -> None:
    class Broken:
        target = latency_model(DIGITS).target

        def predict(
            self, subjects: ArchBatch, level: float = 0.9, *, allow_estimates: bool = False
        ) -> Prediction:
            nan = np.full(len(subjects), np.nan)
            return Prediction(nan, nan, nan, nan, nan, nan, level)

        def op_latencies(self, space: SearchSpace) -> OpLatencies:
            return latency_model(space).op_latencies(space)

    with pytest.raises(InvalidInputError, match="not finite"):
        evolve(DIGITS, size_is_accuracy, Broken(), 15.0, rng=rng())
