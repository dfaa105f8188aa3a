"""Ops told from whole models: lines through chains, and frames solved together."""

import numpy as np
import pytest

from latlas_latency.chains import fit_chain, is_repeatable, solve_frames
from latlas_ops import OpSpec
from latlas_ops.errors import InvalidInputError

LENGTHS = np.repeat([2, 5, 8], 3)


def test_an_op_that_keeps_its_shape_can_follow_itself():
    assert is_repeatable(OpSpec.of("conv", (8, 16, 16), out_channels=8, kernel=3))
    assert not is_repeatable(OpSpec.of("conv", (8, 16, 16), out_channels=16, kernel=3))
    assert not is_repeatable(OpSpec.of("depthwise", (8, 16, 16), kernel=3, stride=2))


def test_the_slope_is_the_time_of_a_copy_and_the_rest_is_the_constant():
    fit = fit_chain(LENGTHS, 30_000 + 100_000 * LENGTHS)
    assert fit.per_copy_ns == pytest.approx(100_000)
    assert fit.fixed_ns == pytest.approx(30_000)
    assert fit.error_ns < 1
    assert fit.spread_ns < 1


def test_the_spread_is_that_of_single_visits_and_no_matter_of_their_number():
    rng = np.random.default_rng(4)
    lengths = np.repeat([4, 8], 100)
    latency_ns = 100_000 * lengths * np.exp(rng.normal(0, 0.01, len(lengths)))
    fit = fit_chain(lengths, latency_ns)
    assert fit.spread_ns == pytest.approx(1_000, rel=0.1)
    assert fit.error_ns < fit.spread_ns / 4


def test_a_burst_in_one_visit_hardly_moves_the_slope():
    rng = np.random.default_rng(0)
    latency_ns = (30_000 + 100_000 * LENGTHS) * np.exp(rng.normal(0, 0.003, len(LENGTHS)))
    latency_ns[-1] *= 2.5
    assert fit_chain(LENGTHS, latency_ns).per_copy_ns == pytest.approx(100_000, rel=0.02)


@pytest.mark.parametrize("length", [2, 5, 8])
def test_not_even_two_bad_visits_of_one_length_do(length):
    rng = np.random.default_rng(0)
    latency_ns = (30_000 + 100_000 * LENGTHS) * np.exp(rng.normal(0, 0.003, len(LENGTHS)))
    latency_ns[np.flatnonzero(length == LENGTHS)[:2]] *= 2.0
    assert fit_chain(LENGTHS, latency_ns).per_copy_ns == pytest.approx(100_000, rel=0.03)


def test_the_standard_error_is_that_of_repeated_sittings():
    rng = np.random.default_rng(1)
    fits = [
        fit_chain(LENGTHS, (30_000 + 100_000 * LENGTHS) * np.exp(rng.normal(0, 0.01, len(LENGTHS))))
        for _ in range(300)
    ]
    scatter = np.std([fit.per_copy_ns for fit in fits])
    stated = np.sqrt(np.mean([fit.error_ns**2 for fit in fits]))
    assert stated == pytest.approx(scatter, rel=0.25)


def test_an_op_that_takes_nothing_has_no_slope():
    rng = np.random.default_rng(2)
    fit = fit_chain(LENGTHS, 30_000 * np.exp(rng.normal(0, 0.01, len(LENGTHS))))
    assert abs(fit.per_copy_ns) < 3 * fit.error_ns + 50


def test_one_length_is_no_line():
    with pytest.raises(InvalidInputError, match="at least 2 lengths, got 1"):
        fit_chain([3, 3, 3], [1.0, 1.0, 1.0])


def test_frames_tell_ops_apart_that_stand_in_one_model():
    truth_ns = np.array([200_000.0, 80_000.0, 120_000.0])
    # The first op only ever stands before the second, which also stands alone.
    counts = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]] * 3)
    rest_ns = counts @ truth_ns
    known_ns = 300_000.0
    fit = solve_frames(counts, rest_ns, rest_ns + known_ns, np.zeros(9), [150e3, 150e3, 150e3])
    np.testing.assert_allclose(fit.values_ns, truth_ns, rtol=0.01)


def test_the_error_of_the_neighbours_is_part_of_the_error():
    rng = np.random.default_rng(3)
    latency_ns = 500_000 * np.exp(rng.normal(0, 0.002, 6))
    rest_ns = latency_ns - 300_000
    sure = solve_frames(np.ones((6, 1)), rest_ns, latency_ns, np.zeros(6), [2e5])
    unsure = solve_frames(np.ones((6, 1)), rest_ns, latency_ns, np.full(6, 20_000), [2e5])
    assert sure.errors_ns[0] < 2_000
    # Single visits say nothing of the error of what they share.
    assert 300 < sure.spreads_ns[0] == unsure.spreads_ns[0] < 3_000
    assert unsure.errors_ns[0] == pytest.approx(20_000, rel=0.05)


def test_what_frames_leave_open_is_shared_as_guessed():
    fit = solve_frames(
        np.ones((3, 2)), np.full(3, 90_000), np.full(3, 100_000), np.zeros(3), [40e3, 20e3]
    )
    assert fit.values_ns.sum() == pytest.approx(90_000, rel=0.001)
    assert fit.values_ns[0] > fit.values_ns[1]
