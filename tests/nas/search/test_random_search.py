"""The random baseline."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from latlas_latency.model import LatencyModel
from latlas_nas.search.random_search import random_search
from latlas_ops.errors import InfeasibleError
from latlas_ops.space import ArchBatch
from latlas_ops.spaces import get_space
from latlas_ops.spaces.mobile import MobileSpace

Accuracy = Callable[[ArchBatch], NDArray[np.float64]]
MakeModel = Callable[..., LatencyModel]
DIGITS = get_space("digits")


def test_it_scores_exactly_as_many_as_it_is_asked_for(
    latency_model: MakeModel, size_is_accuracy: Accuracy
) -> None:
    model = latency_model(DIGITS)
    budget = float(
        np.quantile(model.predict(DIGITS.sample(200, np.random.default_rng(9))).upper_ms, 0.1)
    )
    result = random_search(
        DIGITS, size_is_accuracy, model, budget, n_feasible=700, rng=np.random.default_rng(0)
    )
    assert result.n_evaluated == 700
    assert all(candidate.upper_ms <= budget for candidate in (*result.top, *result.front))


def test_in_a_space_that_runs_out_it_ends(
    small_space: MobileSpace, latency_model: MakeModel, size_is_accuracy: Accuracy
) -> None:
    result = random_search(
        small_space,
        size_is_accuracy,
        latency_model(small_space),
        1e3,
        n_feasible=4000,
        rng=np.random.default_rng(0),
    )
    assert result.n_evaluated == small_space.count().distinct


def test_an_impossible_budget_is_answered_with_one_that_works(
    latency_model: MakeModel, size_is_accuracy: Accuracy
) -> None:
    with pytest.raises(InfeasibleError, match="the smallest budget found to work is"):
        random_search(
            DIGITS,
            size_is_accuracy,
            latency_model(DIGITS),
            1e-3,
            n_feasible=10,
            rng=np.random.default_rng(0),
        )


def test_a_budget_that_chance_does_not_meet_is_said_to_be_one(
    latency_model: MakeModel, size_is_accuracy: Accuracy
) -> None:
    model = latency_model(DIGITS)
    tight = float(model.predict(DIGITS.extremes()).upper_ms[0])
    with pytest.raises(InfeasibleError, match="none of 4096 random architectures"):
        random_search(
            DIGITS, size_is_accuracy, model, tight, n_feasible=10, rng=np.random.default_rng(0)
        )
