"""Synthetic campaigns with a known truth: is it found again?"""

import dataclasses

import numpy as np
import pytest

from latlas_latency.comparison import validate
from latlas_latency.measurement import PLAIN, PROFILED, Series
from latlas_latency.observations import Observation
from latlas_latency.session import within_session
from latlas_latency.table_building import build_table
from latlas_ops import get_space
from latlas_ops.errors import (
    InvalidInputError,
    SpaceMismatchError,
    TargetMismatchError,
    UnknownOpError,
)
from latlas_ops.lowering import lower


def build(campaign, **changes):
    parts = {
        "profiled": campaign.profiled,
        "plain": campaign.plain,
        "calibration": campaign.calibration,
        "target": campaign.target,
        "space": campaign.space,
    }
    return build_table(**(parts | changes))


@pytest.fixture(scope="module")
def calm(campaigner, make_board):
    """A sitting with little noise."""
    board = make_board(seed=2, noise=0.002, drift=0.01, burst_share=0)
    return board, campaigner.run(board, n_passes=2)


def test_the_table_holds_every_op_of_the_space(table, space):
    assert table.missing(space) == ()
    assert len(table.entries) == len(space.slot_entries.ops)
    assert all(entry.kind == "measured" for entry in table.entries)


def test_entries_are_the_true_latencies(calm):
    board, campaign = calm
    table = build(campaign)
    errors = np.array([entry.mean_ms / board.op_ms(entry.op) - 1 for entry in table.entries])
    # What remains is common to all: how well the profiler's cost was told from the rest.
    assert abs(np.median(errors)) < 0.02
    assert np.percentile(np.abs(errors - np.median(errors)), 90) < 0.02


def test_the_cost_of_the_profiler_is_recovered_and_removed(calm):
    board, campaign = calm
    table = build(campaign)
    # The profiler cuts whole microseconds off, half of one on average.
    found_us = table.conditions.profiler_cost.per_node_ns / 1e3
    assert found_us == pytest.approx(board.node_cost_us - 0.5, abs=0.5)
    kept = build(campaign, plain=())
    assert kept.conditions.profiler_cost.n_networks == 0
    biased = np.array([entry.mean_ms / board.op_ms(entry.op) for entry in kept.entries])
    assert np.median(biased) > 1.03


def test_calibration_makes_sums_of_ops_into_latencies_of_networks(campaign, table):
    raw = build(campaign, calibration=())
    before = validate(raw, campaign.validation, campaign.space)
    after = validate(table, campaign.validation, campaign.space)
    assert after.mape < before.mape / 2
    assert after.mape < 0.02
    assert after.spearman > 0.99


def test_without_calibration_networks_the_table_says_what_it_is(campaign):
    raw = build(campaign, calibration=())
    assert not raw.calibrated
    assert "not calibrated" in raw.caveats[0]
    assert build(campaign).caveats == ()


def test_each_entry_tells_how_often_it_was_seen(campaign, table):
    assert {entry.n_visits for entry in table.entries} == {
        3 * entry.n_occurrences for entry in table.entries
    }
    places = sum(len(seen.network.ops) for seen in campaign.profiled)
    assert sum(entry.n_occurrences for entry in table.entries) == places


def test_the_table_remembers_how_it_was_measured(campaign, table):
    conditions = table.conditions
    assert conditions.n_rounds == 3
    assert conditions.device_ids == ("board-0",)
    assert conditions.n_profiled_networks == len(campaign.profiled)
    assert conditions.last_visit_ns - conditions.first_visit_ns == 120_000_000_000
    assert conditions.drift_removed
    assert conditions.common_mode_free_noise < conditions.label_noise
    assert 0 < conditions.remainder_share < 0.05
    assert (table.space.name, table.space.version) == ("digits", 2)


def test_intervals_cover_unseen_networks_as_promised(campaigner, make_board):
    covered = []
    for seed in range(16):
        campaign = campaigner.run(make_board(seed=200 + seed), n_calibration=8, n_validation=30)
        table = within_session(build(campaign))
        covered.append(validate(table, campaign.validation, campaign.space).interval_coverage)
    assert np.mean(covered) == pytest.approx(0.91, abs=0.05)


def test_bursts_and_drift_hardly_reach_the_entries(campaigner, make_board):
    quiet = make_board(seed=7, noise=0.003, drift=0, burst_share=0)
    rough = make_board(seed=7, noise=0.003, drift=0.1, burst_share=0.05)
    tables = [
        build(campaigner.run(board, n_rounds=5, n_passes=2, n_calibration=0))
        for board in (quiet, rough)
    ]
    ratios = np.array(
        [
            one.mean_ms / other.mean_ms
            for one, other in zip(tables[1].entries, tables[0].entries, strict=True)
        ]
    )
    assert np.percentile(np.abs(ratios - np.median(ratios)), 95) < 0.05


def test_a_noisy_sitting_is_a_caveat(campaigner, make_board):
    noisy = build(campaigner.run(make_board(seed=3, noise=0.08)))
    assert noisy.caveats[0].startswith("noisy sitting: two halves of the rounds differ by ")
    assert noisy.calibrated


# -- several boards ------------------------------------------------------------------------------


def test_boards_of_one_model_give_one_entry_with_all_their_visits(campaigner, make_board):
    boards = make_board(seed=3), make_board(seed=4, device_id="board-1")
    table = build(campaigner.run(*boards, n_calibration=4))
    assert table.conditions.device_ids == ("board-0", "board-1")
    assert all(entry.n_visits == 6 * entry.n_occurrences for entry in table.entries)


@pytest.mark.parametrize("part", ["profiled", "plain", "calibration"])
def test_unlike_targets_never_merge_and_the_field_is_named(campaign, other_target, part):
    first, *others = getattr(campaign, part)
    stray = dataclasses.replace(first, target=other_target)
    with pytest.raises(TargetMismatchError, match="differ in graph_level: 'all' and 'basic'"):
        build(campaign, **{part: (stray, *others)})


# -- what cannot make a table --------------------------------------------------------------------


def test_without_profiled_networks_there_is_no_table(campaign):
    with pytest.raises(InvalidInputError, match="at least one profiled network"):
        build(campaign, profiled=())


def test_networks_in_the_wrong_mode_are_refused(campaign):
    with pytest.raises(InvalidInputError, match="cover networks must be profiled; task plain-0"):
        build(campaign, profiled=campaign.plain)
    with pytest.raises(InvalidInputError, match="calibration networks must be plain"):
        build(campaign, calibration=campaign.profiled)


def test_architectures_of_another_space_are_refused(campaign):
    with pytest.raises(SpaceMismatchError, match="'digits' version 2 given to space 'course'"):
        build(campaign, space=get_space("course"))


def test_a_calibration_network_beyond_the_covers_is_named(campaign):
    with pytest.raises(UnknownOpError, match=r"beyond what the entries .*: .* mbconv\("):
        build(campaign, profiled=campaign.profiled[:3])


def test_too_few_calibration_networks_are_refused(campaign):
    with pytest.raises(InvalidInputError, match="calibration needs at least 3 networks, got 2"):
        build(campaign, calibration=campaign.calibration[:2])


def test_tensor_positions_of_another_program_are_noticed(campaign):
    lost = [dataclasses.replace(seen, tensor_positions={}) for seen in campaign.profiled]
    with pytest.raises(InvalidInputError, match="do the tensor positions fit"):
        build(campaign, profiled=lost)


def test_an_op_whose_nodes_were_all_fused_away_is_unknown_and_not_zero(campaign):
    def without_first_op(seen):
        positions = {name: at for name, at in seen.tensor_positions.items() if at > 0}
        return dataclasses.replace(seen, tensor_positions=positions)

    table = build(
        campaign, profiled=[without_first_op(seen) for seen in campaign.profiled], calibration=()
    )
    stem = campaign.profiled[0].network.ops[0]
    assert stem not in table.by_op
    with pytest.raises(UnknownOpError, match="stem"):
        table.predict([campaign.profiled[0].network])


def test_an_op_that_hides_behind_the_profilers_cost_is_tiny_and_not_negative(campaign):
    def with_a_short_node(seen):
        """The stem's nodes report a single microsecond in all."""
        visits = []
        for visit in seen.visits:
            series = [
                Series(each.label, np.full_like(each.samples_ns, 1000), each.node)
                if seen.tensor_positions.get(each.label) == 0
                else each
                for each in visit.series
            ]
            visits.append(dataclasses.replace(visit, series=tuple(series)))
        return dataclasses.replace(seen, visits=tuple(visits))

    short = [with_a_short_node(seen) for seen in campaign.profiled]
    table = build(campaign, profiled=short, calibration=())
    assert 0 < table.by_op[short[0].network.ops[0]].mean_ms < 1e-3


def test_networks_outside_any_space_make_a_table_too(campaigner, make_board, space, target):
    board = make_board(seed=9)
    network = space.network(space.archs(space.extremes())[1])
    positions = lower(network).tensor_positions()
    seen = []
    for mode in (PROFILED, PLAIN):
        visits = tuple(board.visit(network, mode, round_, mode) for round_ in range(3))
        seen.append(Observation(network, positions, visits))
    table = build_table(
        profiled=seen[:1], plain=seen[1:], calibration=(), target=target, space=None
    )
    assert table.space is None
    found = table.predict([network]).mean_ms[0]
    assert found == pytest.approx(board.network_ms(network), rel=0.2)
