"""A table in one session: the session's own networks say how fast the device is there."""

import dataclasses
import math

import numpy as np
import pytest

from latlas_latency.comparison import validate
from latlas_latency.measurement import PLAIN
from latlas_latency.session import (
    LABEL_NOISE,
    LEAST_NETWORKS,
    calibrated_in_session,
    residual_at_noise,
    within_session,
)
from latlas_latency.validation import BEFORE_SESSION


@pytest.fixture(scope="module")
def slow_session(campaigner, make_board):
    """`(unseen, anchors)` of a session in which everything takes 6 % longer."""
    board = make_board(seed=9)
    usual = board.network_ms
    board.network_ms = lambda network: 1.06 * usual(network)
    rng = np.random.default_rng(1)
    seen = campaigner.observe([board], campaigner.stratified(10, rng), PLAIN, 3)
    unseen = campaigner.observe([board], campaigner.space.sample(30, rng), PLAIN, 3)
    return unseen, seen


def networks(observations):
    return [seen.network for seen in observations]


def test_the_sessions_own_networks_say_how_fast_the_device_is(table, slow_session):
    _, anchors = slow_session
    found = calibrated_in_session(table, networks(anchors), [a.latency_ms for a in anchors])
    # The simulated rounds drift by 3 % each, so that a session is off by some 2 % of its own.
    assert found.scale == pytest.approx(1.06, abs=0.04)
    np.testing.assert_allclose(
        found.table.predict(networks(anchors)).mean_ms,
        found.scale * table.predict(networks(anchors)).mean_ms,
        rtol=0.01,
    )


def test_a_burst_in_one_of_them_does_not_reach_the_scale(table, slow_session):
    _, anchors = slow_session
    latency_ms = np.array([anchor.latency_ms for anchor in anchors])
    quiet = calibrated_in_session(table, networks(anchors), latency_ms)
    latency_ms[3] *= 1.8
    burst = calibrated_in_session(table, networks(anchors), latency_ms)
    assert burst.scale == pytest.approx(quiet.scale, rel=0.015)


def test_the_drift_between_sessions_is_in_the_interval_until_a_session_is_known(table, campaign):
    subjects = networks(campaign.validation)

    def width(one):
        prediction = one.predict(subjects)
        return (prediction.upper_ms - prediction.lower_ms) / prediction.mean_ms

    assert (width(table) > width(within_session(table))).all()
    anchors = campaign.validation[:10]
    known = calibrated_in_session(table, networks(anchors), [a.latency_ms for a in anchors])
    assert (width(table) > width(known.table)).all()
    np.testing.assert_allclose(
        within_session(table).predict(subjects).mean_ms, table.predict(subjects).mean_ms
    )


def test_a_validation_judges_the_table_in_its_session_and_tells_what_it_was_before(
    table, slow_session, campaign
):
    unseen, anchors = slow_session
    found = validate(table, unseen, campaign.space, anchors=anchors)
    alone = validate(table, unseen, campaign.space)
    assert found.session_scale == pytest.approx(1.06, abs=0.04)
    assert found.mape < 0.6 * alone.mape
    (before,) = [part for part in found.parts if part.name == BEFORE_SESSION]
    assert before.mape == pytest.approx(alone.mape, rel=0.2)
    assert math.isnan(alone.session_scale)
    assert alone.parts == ()


def test_without_a_calibration_or_with_few_networks_there_is_nothing_to_scale(table, campaign):
    seen = campaign.validation[: LEAST_NETWORKS - 1]
    assert calibrated_in_session(table, networks(seen), [s.latency_ms for s in seen]) is None
    raw = dataclasses.replace(table, calibration=None)
    seen = campaign.validation[:10]
    assert calibrated_in_session(raw, networks(seen), [s.latency_ms for s in seen]) is None
    assert within_session(raw) is raw


def test_a_residual_holds_the_noise_of_the_labels_that_it_is_about(table):
    def with_noise(residual, noise):
        fit = dataclasses.replace(table.calibration.fit, residual=residual)
        return dataclasses.replace(
            table,
            calibration=dataclasses.replace(table.calibration, fit=fit),
            conditions=dataclasses.replace(
                table.conditions, label_noise=noise, common_mode_free_noise=noise
            ),
        )

    once = with_noise(0.02, 0.01)
    assert residual_at_noise(once, 0.01) == pytest.approx(0.02)
    assert residual_at_noise(once, math.nan) == 0.02
    own = math.sqrt(0.02**2 - (LABEL_NOISE * 0.01) ** 2)
    assert residual_at_noise(once, 0.0) == pytest.approx(own)
    assert residual_at_noise(once, 0.03) == pytest.approx(math.hypot(own, LABEL_NOISE * 0.03))
    # Labels as noisy as the residual leave what sums of entries err by at least.
    assert residual_at_noise(with_noise(0.02, 0.03), 0.0) == pytest.approx(0.005)
    unknown = dataclasses.replace(once, conditions=None)
    assert residual_at_noise(unknown, 0.0) == 0.02


def test_noise_is_that_of_the_labels_as_they_are_used(table):
    conditions = dataclasses.replace(
        table.conditions, label_noise=0.02, common_mode_free_noise=0.01, drift_removed=True
    )
    assert conditions.noise == 0.01
    assert dataclasses.replace(conditions, drift_removed=False).noise == 0.02


def test_intervals_of_a_noisy_session_are_wider(table, slow_session):
    unseen, anchors = slow_session
    latency_ms = [anchor.latency_ms for anchor in anchors]
    widths = []
    for noise in (0.002, 0.03):
        found = calibrated_in_session(table, networks(anchors), latency_ms, noise)
        prediction = found.table.predict(networks(unseen))
        widths.append(np.mean((prediction.upper_ms - prediction.lower_ms) / prediction.mean_ms))
    assert widths[1] > 1.3 * widths[0]
