import dataclasses
import math

import numpy as np
import pytest

from latlas_latency.calibration import AffineFit
from latlas_latency.comparison import validate
from latlas_latency.measurement import PLAIN
from latlas_latency.predictors.macs import MacsPredictor, fit_macs
from latlas_latency.space_reference import SpaceReference
from latlas_ops import get_space
from latlas_ops.costs import space_costs
from latlas_ops.errors import InvalidInputError, SpaceMismatchError, TargetMismatchError


@pytest.fixture(scope="module")
def observations(campaign):
    return campaign.validation


@pytest.fixture(scope="module")
def model(observations, space, target):
    batch = space.batch([seen.arch for seen in observations])
    return fit_macs(batch, [seen.latency_ms for seen in observations], target)


def test_figures_are_those_of_predictions_against_labels(campaigner, make_board, space, target):
    board = make_board(noise=0, drift=0, burst_share=0)
    observations = campaigner.observe([board], space.sample(12, np.random.default_rng(0)), PLAIN, 3)
    measured = np.array([seen.latency_ms for seen in observations])
    macs = space_costs(space.batch([seen.arch for seen in observations])).macs
    line = AffineFit(0.5, 1e-7, ((0.0, 0.0), (0.0, 0.0)), 0.1, 30)
    model = MacsPredictor(target, SpaceReference.of(space), line)
    predicted = 0.5 + 1e-7 * macs
    errors = np.abs(predicted / measured - 1)
    found = validate(model, observations, space, level=0.8)
    assert found.n_networks == 12
    assert found.mape == pytest.approx(errors.mean())
    assert found.max_error == pytest.approx(errors.max())
    assert found.share_within_5_percent == np.mean(errors <= 0.05)
    assert found.share_within_10_percent == np.mean(errors <= 0.1)
    half_width = line.half_width(macs, 0.8)
    assert found.interval_coverage == np.mean(np.abs(predicted - measured) <= half_width)
    assert found.interval_level == 0.8
    variance = np.sum((measured - measured.mean()) ** 2)
    assert found.r2 == pytest.approx(1 - np.sum((predicted - measured) ** 2) / variance)
    assert found.label_noise == 0


def test_networks_without_architectures_are_asked_about_as_ops(model, observations, space):
    as_archs = validate(model, observations, space)
    bare = [dataclasses.replace(seen, arch=None) for seen in observations]
    assert validate(model, bare, space) == as_archs
    assert validate(model, observations, None) == as_archs


def test_one_network_has_no_rank_correlation(model, observations, space):
    found = validate(model, observations[:1], space)
    assert math.isnan(found.spearman)
    assert math.isnan(found.r2)
    assert found.mape == found.max_error


def test_another_targets_visits_are_refused(model, observations, space, other_target):
    stray = dataclasses.replace(observations[0], target=other_target)
    with pytest.raises(TargetMismatchError, match="differ in graph_level"):
        validate(model, [stray], space)


def test_architectures_of_another_space_are_refused(model, observations):
    with pytest.raises(SpaceMismatchError):
        validate(model, observations, get_space("course"))


def test_only_plain_visits_validate(model, campaign, space):
    with pytest.raises(InvalidInputError, match="validation networks must be plain"):
        validate(model, campaign.profiled, space)
    with pytest.raises(InvalidInputError, match="at least one network"):
        validate(model, (), space)
