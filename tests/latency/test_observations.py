import dataclasses
from dataclasses import replace

import numpy as np
import pytest

from latlas_latency.measurement import PLAIN, PROFILED, Conditions, UsualClocks
from latlas_latency.observations import (
    Observation,
    checked_drift,
    measure_drift,
    removable_common_mode,
    round_matrix,
    undisturbed,
)
from latlas_ops import get_space
from latlas_ops.errors import InvalidInputError, SpaceMismatchError, TargetMismatchError


@pytest.fixture
def network(space):
    return space.network(space.archs(space.extremes())[0])


def test_the_label_is_the_median_of_the_visit_medians(make_board, network):
    board = make_board(seed=3, burst_share=0)
    visits = tuple(board.visit(network, PLAIN, round_, "t") for round_ in range(3))
    observation = Observation(network, {}, visits)
    medians = sorted(float(np.median(visit.network_ns)) for visit in visits)
    assert sorted(observation.visit_medians_ns) == medians
    assert observation.latency_ms == medians[1] / 1e6


def test_one_burst_visit_does_not_reach_the_label(make_board, network):
    calm, noisy = make_board(noise=0.001, drift=0, burst_share=0), make_board(burst_share=1)
    visits = [calm.visit(network, PLAIN, round_, "t") for round_ in (0, 1)]
    visits.append(noisy.visit(network, PLAIN, 2, "t"))
    observation = Observation(network, {}, tuple(visits))
    assert observation.latency_ms == pytest.approx(calm.network_ms(network), rel=0.01)


def test_an_observation_is_of_one_mode(make_board, network):
    board = make_board()
    visits = (board.visit(network, PLAIN, 0, "t"), board.visit(network, PROFILED, 1, "t"))
    with pytest.raises(InvalidInputError, match="visits are plain and profiled"):
        Observation(network, {}, visits)


def test_a_visit_counts_once(make_board, network):
    visit = make_board().visit(network, PLAIN, 4, "t")
    with pytest.raises(InvalidInputError, match="round 4 of device board-0 is given twice"):
        Observation(network, {}, (visit, visit))


def test_an_observation_needs_a_visit(network):
    with pytest.raises(InvalidInputError, match="at least one visit"):
        Observation(network, {}, ())


def test_tensors_must_lie_within_the_network(make_board, network):
    visit = make_board().visit(network, PLAIN, 0, "t")
    with pytest.raises(InvalidInputError, match="tensor 'x' is placed at position 99"):
        Observation(network, {"x": 99}, (visit,))


def test_a_round_matrix_has_a_column_per_board_and_round(campaigner, make_board, space):
    boards = make_board(device_id="a"), make_board(seed=1, device_id="b")
    observations = campaigner.observe(boards, space.extremes(), PLAIN, 2)
    short = dataclasses.replace(observations[1], visits=observations[1].visits[:3])
    matrix, sittings = round_matrix([observations[0], short])
    assert sittings == (("a", 0), ("a", 1), ("b", 0), ("b", 1))
    np.testing.assert_array_equal(matrix[0], observations[0].visit_medians_ns)
    assert np.isnan(matrix[1]).tolist() == [False, False, False, True]


def test_drift_that_all_networks_share_is_taken_out_of_labels(campaigner, make_board, space):
    board = make_board(seed=5, drift=0.08, noise=0.003, burst_share=0)
    observations = campaigner.observe([board], space.sample(30, np.random.default_rng(0)), PLAIN, 3)
    drift = measure_drift(observations)
    assert drift.removed
    assert drift.common_mode_free_noise < drift.label_noise / 5
    truth = np.array([board.network_ms(seen.network) for seen in observations])
    corrected = np.array([drift.latency_ns(seen) for seen in observations]) / 1e6 / truth
    raw = np.array([seen.latency_ms for seen in observations]) / truth
    assert corrected.std() <= raw.std()


def test_a_handful_of_networks_cannot_tell_drift_from_noise(campaigner, make_board, space):
    observations = campaigner.observe([make_board(drift=0.1)], space.extremes(), PLAIN, 3)
    drift = measure_drift(observations)
    assert not drift.removed
    assert drift.latency_ns(observations[0]) == observations[0].latency_ns


def with_crowded(observation, *rounds):
    """The observation with these rounds taken beside a busy neighbour."""
    crowded = Conditions(other_cpu_share=0.5, online_cores=2)
    visits = tuple(
        replace(visit, conditions=crowded if visit.round in rounds else Conditions())
        for visit in observation.visits
    )
    return replace(observation, visits=visits)


def test_disturbed_visits_are_left_out_and_counted(campaign):
    found = undisturbed([with_crowded(seen, 1) for seen in campaign.validation])
    assert {visit.round for seen in found for visit in seen.visits} == {0, 2}
    assert {(seen.n_left_out, seen.n_disturbed) for seen in found} == {(1, 0)}


def test_where_every_visit_was_disturbed_they_are_kept_and_that_is_said(campaign):
    found = undisturbed([with_crowded(seen, 0, 1, 2) for seen in campaign.validation])
    assert all(len(seen.visits) == 3 for seen in found)
    assert {(seen.n_left_out, seen.n_disturbed) for seen in found} == {(0, 3)}


def test_what_is_usual_may_be_told_from_more_than_is_asked_about(campaign):
    """Of these networks, two of three visits were taken at half the clock of the sitting."""
    clocks = {0: 1200.0, 1: 1200.0, 2: 2400.0}
    slow = [
        replace(
            seen,
            visits=tuple(
                replace(visit, conditions=Conditions(clock_mhz=clocks[visit.round]))
                for visit in seen.visits
            ),
        )
        for seen in campaign.validation
    ]
    assert {seen.n_left_out for seen in undisturbed(slow)} == {0}
    usual = {visit.device_id: UsualClocks(2400.0) for seen in slow for visit in seen.visits}
    assert {seen.n_left_out for seen in undisturbed(slow, usual)} == {2}


def test_what_a_table_is_made_from_has_one_target_and_one_space(campaign, space):
    everything = [*campaign.profiled, *campaign.plain, *campaign.calibration]
    drift = checked_drift(everything, campaign.target, space)
    assert drift.factors == measure_drift(everything).factors
    with pytest.raises(TargetMismatchError, match="threads"):
        checked_drift(everything, replace(campaign.target, threads=3), space)
    with pytest.raises(SpaceMismatchError):
        checked_drift(everything, campaign.target, get_space("course"))


@pytest.mark.parametrize("n_networks", [10, 60])
def test_a_repeated_visit_does_not_make_the_labels_look_noisy(campaigner, make_board, n_networks):
    board = make_board(seed=5, drift=0.0, burst_share=0.0)
    batch = campaigner.space.sample(n_networks, np.random.default_rng(0))
    seen = list(campaigner.observe([board], batch, PLAIN, 3))
    quiet = measure_drift(seen).common_mode_free_noise
    first = seen[0].visits[0]
    slow = replace(first, series=(replace(first.series[0], samples_ns=2 * first.network_ns),))
    again = board.visit(seen[0].network, PLAIN, 3, first.task_id)
    seen[0] = replace(seen[0], visits=(slow, *seen[0].visits[1:], again))
    assert measure_drift(seen).common_mode_free_noise < 1.5 * quiet


def test_a_round_of_few_networks_says_nothing_about_the_device():
    rng = np.random.default_rng(0)
    drift = np.array([1.0, 1.1, 0.9])
    matrix = 1e6 * drift * np.exp(rng.normal(0, 0.002, (20, 3)))
    few = np.full((20, 1), np.nan)
    few[0] = 5e5
    factors = removable_common_mode(np.concatenate([matrix, few], axis=1))
    assert factors is not None
    assert factors[3] == 1.0
    np.testing.assert_allclose(factors[:3], drift, rtol=0.01)
