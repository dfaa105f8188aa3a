import math

import numpy as np
import pytest

from latlas_latency.measurement import statistics
from latlas_ops.errors import InvalidInputError

NAN = math.nan


# -- the median ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_draws", "level", "rank"),
    [(8, 0.99, 1), (12, 0.99, 2), (20, 0.99, 4), (20, 0.95, 6), (25, 0.95, 8), (100, 0.95, 40)],
)
def test_the_interval_of_a_median_lies_between_the_ranks_of_printed_tables(n_draws, level, rank):
    found = statistics.median_interval(np.arange(n_draws, 0, -1), level)
    assert found == (rank, n_draws + 1 - rank)


def test_too_few_draws_bound_no_median():
    assert statistics.median_interval([1.0] * 7, 0.99) == (-math.inf, math.inf)
    with pytest.raises(InvalidInputError, match="at least one value"):
        statistics.median_interval([], 0.9)


@pytest.mark.parametrize(
    ("n_draws", "level", "rank"), [(8, 0.99, 1), (10, 0.95, 9), (20, 0.99, 38), (25, 0.95, 90)]
)
def test_the_interval_of_a_pseudomedian_lies_between_the_ranks_of_printed_tables(
    n_draws, level, rank
):
    draws = np.random.default_rng(0).normal(size=n_draws)
    one, other = np.triu_indices(n_draws)
    means = np.sort((draws[one] + draws[other]) / 2)
    found = statistics.pseudomedian_interval(draws, level)
    assert found == (means[rank - 1], means[-rank])


def test_too_few_draws_bound_no_pseudomedian():
    assert statistics.pseudomedian_interval([1.0] * 7, 0.99) == (-math.inf, math.inf)
    with pytest.raises(InvalidInputError, match="at least one value"):
        statistics.pseudomedian_interval([], 0.9)


def test_the_interval_of_a_pseudomedian_holds_the_centre_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [
        statistics.pseudomedian_interval(rng.standard_t(2, size=15), 0.9) for _ in range(2000)
    ]
    assert 0.89 <= np.mean([low <= 0 <= high for low, high in intervals]) <= 0.93


def test_the_interval_of_a_median_holds_it_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = [
        low <= math.log(2) <= high
        for low, high in (
            statistics.median_interval(rng.exponential(size=15), 0.9) for _ in range(2000)
        )
    ]
    assert 0.9 <= np.mean(held) <= 0.98


# -- quantiles: published values, to the digits in which they are printed -------------------------


@pytest.mark.parametrize(
    ("probability", "degrees", "value"),
    [
        (0.95, 1, 6.314),
        (0.975, 1, 12.706),
        (0.95, 2, 2.920),
        (0.995, 2, 9.925),
        (0.95, 3, 2.353),
        (0.975, 4, 2.776),
        (0.95, 5, 2.015),
        (0.9995, 5, 6.869),
        (0.95, 8, 1.860),
        (0.90, 10, 1.372),
        (0.975, 30, 2.042),
        (0.75, 60, 0.679),
        (0.99, 120, 2.358),
        (0.975, 5000, 1.960),
    ],
)
def test_student_t_quantiles_are_those_of_the_printed_tables(probability, degrees, value):
    found = statistics.student_t_quantile(probability, degrees)
    assert found == pytest.approx(value, abs=6e-4)
    assert statistics.student_t_quantile(1 - probability, degrees) == pytest.approx(-found)


def test_student_t_quantiles_agree_with_closed_forms():
    # One degree of freedom is Cauchy, two have t = (2p - 1) sqrt(2 / (4p (1 - p))).
    for p in (0.5, 0.6, 0.9, 0.999):
        cauchy = math.tan(math.pi * (p - 0.5))
        assert statistics.student_t_quantile(p, 1) == pytest.approx(cauchy, rel=1e-9)
        two = (2 * p - 1) * math.sqrt(2 / (4 * p * (1 - p)))
        assert statistics.student_t_quantile(p, 2) == pytest.approx(two, rel=1e-9)


@pytest.mark.parametrize(("probability", "degrees"), [(0, 5), (1, 5), (0.5, 0)])
def test_a_quantile_out_of_range_is_refused(probability, degrees):
    with pytest.raises(InvalidInputError):
        statistics.student_t_quantile(probability, degrees)


def test_a_conformal_bound_covers_a_new_score_with_the_promised_probability():
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(4000):
        *scores, new = rng.exponential(size=41)
        covered.append(new <= statistics.conformal_quantile(scores, 0.9))
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)


def test_with_too_few_scores_the_conformal_bound_is_the_largest():
    assert statistics.conformal_quantile([3.0, 1.0], 0.9) == 3.0


@pytest.mark.parametrize("level", [0, 1, -0.1, 90])
def test_a_level_is_a_fraction(level):
    with pytest.raises(InvalidInputError, match="level"):
        statistics.require_level(level)


# -- rounds --------------------------------------------------------------------------------------


def rounds(rng, speeds, noise=0.0, n=60):
    """A round matrix of `n` networks of different size on a device of these speeds."""
    levels = rng.uniform(1e6, 1e7, n)
    return levels[:, None] * speeds * np.exp(rng.normal(0, noise, (n, len(speeds))))


def test_the_common_mode_of_a_round_is_what_all_networks_share():
    speeds = np.array([1.0, 1.08, 0.95])
    matrix = rounds(np.random.default_rng(0), speeds, noise=0.01)
    np.testing.assert_allclose(statistics.common_mode(matrix), speeds, atol=0.01)


def test_the_common_mode_is_not_moved_by_bursts_nor_by_gaps():
    rng = np.random.default_rng(1)
    speeds = np.array([1.0, 1.1, 0.9, 1.0, 1.02])
    matrix = rounds(rng, speeds, noise=0.01)
    matrix[rng.random(matrix.shape) < 0.05] *= 3
    matrix[rng.random(matrix.shape) < 0.1] = NAN
    np.testing.assert_allclose(statistics.common_mode(matrix), speeds, atol=0.015)


def test_rounds_of_boards_that_share_no_network_are_not_compared():
    rng = np.random.default_rng(2)
    matrix = np.full((40, 6), NAN)
    matrix[:20, :3] = rounds(rng, np.array([1.0, 1.2, 0.9]), n=20)
    matrix[20:, 3:] = rounds(rng, np.array([1.0, 1.0, 1.5]), n=20)
    np.testing.assert_allclose(statistics.common_mode(matrix), [1.0, 1.2, 0.9, 1.0, 1.0, 1.5])


def test_drift_is_noise_of_labels_but_not_common_mode_free_noise():
    matrix = rounds(np.random.default_rng(3), np.array([1.0, 1.05, 0.97, 1.02]), noise=0.002)
    assert statistics.label_noise(matrix) > 0.02
    assert statistics.common_mode_free_noise(matrix) < 0.004


def test_one_burst_does_not_make_a_sitting_noisy():
    matrix = rounds(np.random.default_rng(4), np.ones(3), noise=0.005)
    calm = statistics.label_noise(matrix)
    matrix[7, 1] *= 3
    assert statistics.label_noise(matrix) == pytest.approx(calm, rel=0.1)


def test_one_round_has_no_label_noise_to_speak_of():
    matrix = rounds(np.random.default_rng(5), np.ones(1))
    assert math.isnan(statistics.label_noise(matrix))
    assert statistics.common_mode(matrix).tolist() == [1.0]


# -- location and spread -------------------------------------------------------------------------


def test_the_robust_mean_is_the_mean_of_values_that_agree():
    assert statistics.robust_mean(np.array([1.0, 2.0])) == 1.5
    assert statistics.robust_mean(np.array([4.0])) == 4.0


def test_an_outlier_hardly_moves_the_robust_mean():
    values = np.array([1.0, 1.01, 0.99, 1.02, 0.98, 5.0])
    assert statistics.robust_mean(values) == pytest.approx(1.0, abs=0.02)


def test_the_robust_deviation_estimates_that_of_normal_noise():
    values = np.random.default_rng(0).normal(10, 2, 20_000)
    assert statistics.robust_standard_deviation(values) == pytest.approx(2, rel=0.03)
    assert statistics.robust_standard_deviation(np.array([3.0])) == 0


def test_equal_residuals_have_full_weight():
    assert statistics.huber_weights(np.zeros(3)).tolist() == [1, 1, 1]
    weights = statistics.huber_weights(np.array([0.1, -0.1, 0.1, 10.0]))
    assert weights[:3].tolist() == [1, 1, 1]
    assert weights[3] < 0.05


# -- errors of predictions -----------------------------------------------------------------------

MEASURED = [1.0, 2.0, 4.0, 5.0]
PREDICTED = [1.1, 1.9, 4.0, 6.0]


def test_relative_errors_and_what_is_made_of_them():
    assert statistics.mape(MEASURED, PREDICTED) == pytest.approx((0.1 + 0.05 + 0 + 0.2) / 4)
    assert statistics.max_error(MEASURED, PREDICTED) == pytest.approx(0.2)
    assert statistics.share_within(MEASURED, PREDICTED, 0.06) == 0.5


def test_r_squared_is_one_minus_error_over_variance():
    assert statistics.r_squared(MEASURED, PREDICTED) == pytest.approx(1 - 1.02 / 10)
    assert math.isnan(statistics.r_squared([2.0, 2.0], [1.0, 3.0]))


def test_equal_values_share_their_rank():
    assert statistics.average_ranks([10, 30, 10, 20]).tolist() == [1.5, 4, 1.5, 3]


def test_spearman_with_ties():
    # Worked by hand: ranks 1.5 1.5 3 4 and 1 2 3.5 3.5.
    assert statistics.spearman([1, 1, 2, 3], [5, 6, 7, 7]) == pytest.approx(8 / 9)
    assert statistics.spearman([1, 2, 3], [30, 20, 10]) == pytest.approx(-1)
    assert math.isnan(statistics.spearman([1, 1], [1, 2]))


def test_kendall_tau_b_with_ties():
    # Five concordant pairs of six; one tied on the left, one on the right.
    assert statistics.kendall_tau_b([1, 1, 2, 3], [5, 6, 7, 7]) == pytest.approx(4 / 5)
    assert statistics.kendall_tau_b([1, 2, 3], [3, 2, 1]) == -1
    assert math.isnan(statistics.kendall_tau_b([1, 1], [1, 2]))


@pytest.mark.parametrize(
    ("measured", "predicted", "complaint"),
    [
        ([1.0, 2.0], [1.0], "shapes"),
        ([], [], "at least 1"),
        ([0.0], [1.0], "not positive"),
        ([1.0], [NAN], "not finite"),
    ],
)
def test_values_that_cannot_be_compared_are_refused(measured, predicted, complaint):
    with pytest.raises(InvalidInputError, match=complaint):
        statistics.mape(measured, predicted)


def test_pair_order_counts_pairs_of_equal_size_and_different_latency():
    macs = np.array([100.0, 102.0, 103.0, 200.0])
    measured = np.array([1.0, 1.2, 1.01, 0.5])
    # Of the first three networks, one pair is too close in latency; the fourth has no equal.
    share, n_pairs = statistics.pair_order(macs, measured, measured)
    assert (share, n_pairs) == (1.0, 2)
    share, _ = statistics.pair_order(macs, measured, np.array([1.0, 0.9, 1.01, 0.5]))
    assert share == 0.0
    share, _ = statistics.pair_order(macs, measured, np.array([1.0, 1.0, 0.9, 0.5]))
    assert share == 0.75


def test_without_such_pairs_there_is_no_order():
    share, n_pairs = statistics.pair_order([1.0, 2.0], [1.0, 2.0], [1.0, 2.0])
    assert math.isnan(share)
    assert n_pairs == 0
