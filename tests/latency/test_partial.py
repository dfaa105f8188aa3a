"""A space of which some resolutions only were measured, on the simulated board."""

import dataclasses
import json

import numpy as np
import pytest

from latlas_latency.entries import INTERPOLATED
from latlas_latency.formats import dump_latency_model, load_latency_model
from latlas_latency.partial import with_interpolation_check
from latlas_latency.session import calibrated_in_session
from latlas_latency.table_building import build_table
from latlas_ops.errors import InvalidInputError


@pytest.fixture(scope="module")
def part(campaign):
    """The ordinary sitting without the cover networks of the middle resolution."""

    def ends(observations):
        return [seen for seen in observations if seen.arch.genes[0] != 1]

    near = ends(campaign.calibration)
    beyond = [seen for seen in campaign.calibration if seen not in near]
    table = build_table(
        profiled=ends(campaign.profiled),
        plain=ends(campaign.plain),
        calibration=near,
        target=campaign.target,
        space=campaign.space,
    )
    return with_interpolation_check(table, beyond, [*ends(campaign.plain), *near])


def test_a_space_measured_in_part_is_predicted_whole(campaign, part, make_board):
    full = part.interpolated(campaign.space)
    assert full.missing(campaign.space) == ()
    networks = [seen.network for seen in campaign.validation]
    found = full.predict(networks)
    truth = np.array([make_board().network_ms(network) for network in networks])
    assert np.abs(found.mean_ms / truth - 1).mean() < 0.03
    inside = (found.lower_ms <= truth) & (truth <= found.upper_ms)
    assert inside.mean() >= 0.85


def test_calibration_networks_of_other_resolutions_check_the_interpolation(campaign, part):
    check = part.interpolation_check
    assert check.n_networks == sum(seen.arch.genes[0] == 1 for seen in campaign.calibration)
    assert 0 < check.mape < 0.05
    assert check.excess < 0.05


def test_a_table_that_is_not_calibrated_cannot_be_checked(campaign, part):
    raw = dataclasses.replace(part, calibration=None, interpolation_check=None)
    assert with_interpolation_check(raw, campaign.calibration, ()) is raw


def test_a_check_stays_where_no_network_says_anything(campaign, part):
    assert part.interpolation_check is not None
    assert with_interpolation_check(part, (), campaign.plain) is part
    known = [seen for seen in campaign.plain if seen.arch.genes[0] != 1]
    assert with_interpolation_check(part, known, ()) is part


def test_an_interpolated_table_is_calibrated_in_a_session(campaign, part):
    full = part.interpolated(campaign.space)
    networks = [seen.network for seen in campaign.validation[:10]]
    session = calibrated_in_session(full, networks, 1.1 * full.predict(networks).mean_ms)
    assert session.scale == pytest.approx(1.1, rel=0.01)
    assert session.table.n_interpolated == full.n_interpolated


# -- files ---------------------------------------------------------------------------------------


def test_an_interpolated_table_comes_back_from_its_file(campaign, part):
    for table in (part, part.interpolated(campaign.space)):
        again = load_latency_model(dump_latency_model(table))
        assert again == table
    assert again.n_interpolated > 0
    networks = [seen.network for seen in campaign.validation]
    one, other = table.predict(networks), again.predict(networks)
    np.testing.assert_array_equal(one.upper_ms, other.upper_ms)
    np.testing.assert_array_equal(one.interpolated_ms, other.interpolated_ms)


def test_a_table_that_was_measured_throughout_has_the_file_that_it_always_had(campaign, part):
    record = json.loads(dump_latency_model(dataclasses.replace(part, interpolation_check=None)))
    assert "interpolation_check" not in record
    assert all("shared_error" not in one for one in record["entries"])


@pytest.mark.parametrize("value", [-0.1, "much"])
def test_a_broken_shared_error_is_named(campaign, part, value):
    record = json.loads(dump_latency_model(part.interpolated(campaign.space)))
    index = next(i for i, one in enumerate(record["entries"]) if one["kind"] == INTERPOLATED)
    record["entries"][index]["shared_error"] = value
    with pytest.raises(InvalidInputError, match=rf"entries\[{index}\]: shared_error must be"):
        load_latency_model(json.dumps(record).encode())
