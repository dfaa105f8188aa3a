"""Pareto fronts."""

from __future__ import annotations

import numpy as np

from latlas_nas.search.pareto import pareto_front


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    cost = np.array([3.0, 1.0, 2.0, 2.0, 4.0, 1.0])
    value = np.array([0.9, 0.5, 0.4, 0.7, 0.9, 0.5])
    assert pareto_front(cost, value).tolist() == [1, 3, 0]


def test_it_agrees_with_comparing_every_pair() -> None:
    rng = np.random.default_rng(0)
    cost, value = rng.integers(0, 12, (2, 60)).astype(float)
    front = set(pareto_front(cost, value).tolist())
    for index in range(60):
        beaten = (
            (cost <= cost[index])
            & (value >= value[index])
            & ((cost < cost[index]) | (value > value[index]))
        ).any()
        equal_before = ((cost == cost[index]) & (value == value[index]))[:index].any()
        assert (index in front) == (not beaten and not equal_before)


def test_no_points_have_no_front() -> None:
    assert pareto_front(np.empty(0), np.empty(0)).tolist() == []
