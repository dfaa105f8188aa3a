"""The simpler models that a table is compared with, on the same measurements."""

import numpy as np
import pytest

from latlas_latency.baselines import (
    ALONE_AFFINE,
    ALONE_SUM,
    MACS_AFFINE,
    device_time_ns,
    line_baselines,
    mlp_baseline,
)
from latlas_latency.measurement import PLAIN
from latlas_latency.observations import Observation
from latlas_ops import Network


@pytest.fixture(scope="module")
def quiet(make_board):
    return make_board(noise=0, drift=0, burst_share=0)


@pytest.fixture(scope="module")
def alone(quiet, space, target):
    return [
        Observation(network, {}, (quiet.visit(network, PLAIN, 0, f"alone-{index}"),), target=target)
        for index, network in enumerate(Network.chain([op]) for op in space.slot_entries.ops)
    ]


def test_ops_timed_alone_add_up_and_may_be_put_on_a_line(campaigner, quiet, alone, campaign):
    unseen = campaigner.observe(
        [quiet], campaigner.space.sample(10, np.random.default_rng(3)), PLAIN, 2
    )
    found = line_baselines(campaign.calibration, alone, unseen)
    assert set(found) == {MACS_AFFINE, ALONE_SUM, ALONE_AFFINE}
    truth = np.array([seen.latency_ms for seen in unseen])
    # Every op alone pays what a network pays once.
    assert (found[ALONE_SUM] > truth).all()
    assert np.abs(found[ALONE_AFFINE] / truth - 1).mean() < 0.1
    assert np.abs(found[MACS_AFFINE] / truth - 1).mean() < 0.5
    scaled = line_baselines(campaign.calibration, alone, unseen, unseen[:6])
    np.testing.assert_allclose(scaled[ALONE_SUM], found[ALONE_SUM])
    ratio = scaled[MACS_AFFINE] / found[MACS_AFFINE]
    np.testing.assert_allclose(ratio, ratio[0])


def test_what_was_not_measured_gives_no_baseline(campaign, alone):
    unseen = campaign.validation[:3]
    assert set(line_baselines(campaign.calibration, alone[1:], unseen)) == {MACS_AFFINE}
    assert set(line_baselines((), alone, unseen)) == {ALONE_SUM}
    assert line_baselines((), (), unseen) == {}


def test_the_mlp_gets_no_more_measuring_time_than_the_table(campaign, campaigner, space, target):
    pytest.importorskip("torch")
    training = campaign.validation
    (one,) = {device_time_ns([seen]) > 0 for seen in training}
    assert one
    budget_ns = device_time_ns(training[:25])
    found = mlp_baseline(
        training, campaign.calibration, (), space, target, device_ns=budget_ns, seed=0
    )
    (name,) = found
    assert name == "MLP, same measuring time (25 networks)"
    assert found[name].shape == (len(campaign.calibration),)
    anchors = training[25:]
    scaled = mlp_baseline(
        training, campaign.calibration, anchors, space, target, device_ns=budget_ns, seed=0
    )
    ratio = scaled[name] / found[name]
    np.testing.assert_allclose(ratio, ratio[0])


def test_without_time_or_networks_there_is_no_mlp(campaign, space, target):
    unseen = campaign.calibration
    assert mlp_baseline((), unseen, (), space, target, device_ns=10**12, seed=0) == {}
    assert mlp_baseline(campaign.validation, unseen, (), space, target, device_ns=1, seed=0) == {}
