"""Which visits agree: bursts are found by what they do to labels."""

import numpy as np
import pytest

from latlas_latency.agreement import agreeing

QUIET = 1e6 * np.exp(np.random.default_rng(0).normal(0, 0.005, (40, 4)))


def test_visits_of_a_quiet_sitting_agree():
    assert agreeing(QUIET).all()


@pytest.mark.parametrize("n_visits", [3, 5])
@pytest.mark.parametrize("noise", [0.01, 0.02, 0.04])
def test_ordinary_noise_is_no_disagreement(n_visits, noise):
    rng = np.random.default_rng(1)
    matrix = 1e6 * np.exp(rng.normal(0, noise, (400, n_visits)))
    assert (~agreeing(matrix)).any(axis=1).mean() < 0.03


def test_a_burst_stands_alone():
    matrix = QUIET.copy()
    matrix[3, 2] *= 1.5
    found = agreeing(matrix)
    assert not found[3, 2]
    assert found.sum() == matrix.size - 1


def test_where_half_the_visits_are_slow_none_can_be_trusted():
    matrix = QUIET.copy()
    matrix[3, 2:] *= 1.15
    assert not agreeing(matrix)[3].any()


def test_a_round_in_which_everything_is_slow_agrees():
    matrix = QUIET.copy()
    matrix[:, 1] *= 1.3
    assert agreeing(matrix).all()


def test_a_round_of_few_visits_does_not_set_what_is_common():
    # Two networks were slow in two rounds; the round that repeats them shows it.
    extra = np.full((40, 1), np.nan)
    extra[:2, 0] = QUIET[:2, 0]
    matrix = np.concatenate([QUIET, extra], axis=1)
    matrix[:2, 1:4] *= 1.2
    found = agreeing(matrix)
    assert not found[0, 4]
    assert found[2:, :4].all()


def test_no_visit_does_not_agree():
    matrix = QUIET.copy()
    matrix[5] = np.nan
    matrix[6, 0] = np.nan
    found = agreeing(matrix)
    assert not found[5].any()
    assert found[6].tolist() == [False, True, True, True]


def test_one_or_two_networks_can_be_judged():
    assert agreeing(np.array([[100.0, 101.0, 140.0]])).tolist() == [[True, True, False]]
    assert agreeing(np.array([[100.0]])).tolist() == [[True]]
    assert agreeing(np.array([[100.0, 140.0]])).tolist() == [[False, False]]
