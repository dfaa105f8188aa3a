"""What looks wrong in measurements: shifted stretches, broken monotonicity, runs that disagree."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from latlas_latency.entries import INTERPOLATED, TableEntry
from latlas_latency.suspicion import (
    disagreements,
    find_shifts,
    monotonicity_breaks,
)
from latlas_latency.table_building import build_table
from latlas_ops import OpSpec
from latlas_ops.errors import InvalidInputError


def noisy(n: int, noise: float = 0.02, seed: int = 0) -> np.ndarray:
    return np.exp(np.random.default_rng(seed).normal(0, noise, n))


def slowed(values: np.ndarray, start: int, stop: int, ratio: float) -> np.ndarray:
    changed = values.copy()
    changed[start:stop] *= ratio
    return changed


def autocorrelated(n: int, noise: float, correlation: float, seed: int) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(0, noise * math.sqrt(1 - correlation**2), n)
    logs = np.zeros(n)
    for index in range(1, n):
        logs[index] = correlation * logs[index - 1] + steps[index]
    return np.exp(logs)


# -- shifts ----------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [1.15, 1.4, 0.85])
@pytest.mark.parametrize(("start", "stop"), [(300, 310), (0, 12), (1985, 2000), (500, 750)])
def test_a_stretch_is_found_with_its_rows_and_its_ratio(start, stop, ratio):
    (shift,) = find_shifts(slowed(noisy(2000), start, stop, ratio))
    assert abs(shift.start - start) <= 1
    assert abs(shift.stop - stop) <= 1
    assert shift.ratio == pytest.approx(ratio, rel=0.03)
    assert shift.p_value < 0.01
    assert shift.sigmas > 5
    assert shift.n_items == shift.stop - shift.start


def test_several_stretches_are_found_in_their_order():
    values = noisy(1000)
    for start, stop, ratio in [(50, 90, 1.2), (400, 560, 1.15), (700, 720, 0.8)]:
        values = slowed(values, start, stop, ratio)
    found = find_shifts(values)
    assert [shift.ratio for shift in found] == pytest.approx([1.2, 1.15, 0.8], rel=0.02)
    assert [shift.start for shift in found] == pytest.approx([50, 400, 700], abs=2)


def test_a_third_of_the_series_may_have_shifted():
    values = noisy(1000)
    for start, stop in [(334, 402), (466, 658), (708, 800)]:
        values = slowed(values, start, stop, 1.4)
    assert [shift.start for shift in find_shifts(values)] == pytest.approx([334, 466, 708], abs=2)


def test_stretches_side_by_side_at_different_levels_are_told_apart():
    values = slowed(slowed(noisy(1000), 300, 330, 1.2), 330, 360, 1.8)
    first, second = find_shifts(values)
    assert (first.ratio, second.ratio) == pytest.approx((1.2, 1.8), rel=0.03)
    assert abs(first.stop - 330) <= 1
    assert second.start == first.stop


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: 0.02 * rng.normal(size=n),
        lambda rng, n: 0.02 * rng.standard_t(2.5, n),
        lambda rng, n: 0.03 * rng.exponential(size=n),
        lambda rng, n: 0.01 * rng.normal(size=n) + 0.3 * (rng.random(n) < 0.1),
    ],
    ids=["normal", "heavy tails", "one-sided", "bursts in a tenth of the items"],
)
def test_noise_and_scattered_bursts_are_no_shift(draw, seed):
    assert find_shifts(np.exp(draw(np.random.default_rng(seed), 1000))) == ()


@pytest.mark.parametrize("seed", range(10))
def test_neighbours_that_stray_together_are_no_shift(seed):
    assert find_shifts(autocorrelated(1000, 0.03, 0.8, seed)) == ()


def test_slow_drift_is_no_shift_but_a_stretch_on_top_of_it_is():
    drifting = noisy(2000, 0.01) * np.linspace(0.97, 1.03, 2000)
    assert find_shifts(drifting) == ()
    (shift,) = find_shifts(slowed(drifting, 900, 940, 1.15))
    assert (shift.start, shift.stop) == pytest.approx((900, 940), abs=1)


def test_a_shift_below_the_least_ratio_is_left_alone_however_significant():
    values = slowed(noisy(2000, 0.005), 500, 900, 1.02)
    assert find_shifts(values) == ()
    (shift,) = find_shifts(values, least_ratio=1.01)
    assert shift.ratio == pytest.approx(1.02, rel=0.003)


def test_a_burst_shorter_than_the_least_stretch_is_no_shift():
    values = slowed(noisy(200), 100, 104, 1.5)
    assert find_shifts(values) == ()
    (shift,) = find_shifts(values, least_items=3)
    assert (shift.start, shift.stop) == (100, 104)


def test_the_unit_of_the_values_does_not_matter():
    values = slowed(noisy(500), 200, 260, 1.2)
    (one,), (other,) = find_shifts(values), find_shifts(1e6 * values)
    assert (one.start, one.stop, one.ratio) == pytest.approx((other.start, other.stop, other.ratio))


def test_values_that_repeat_exactly_are_judged_by_the_least_noise():
    assert find_shifts(np.ones(100)) == ()
    (shift,) = find_shifts(slowed(np.ones(100), 40, 50, 1.1))
    assert (shift.start, shift.stop) == (40, 50)


def test_two_thousand_items_take_well_under_a_second():
    values = noisy(2000)
    began = time.process_time()
    find_shifts(values)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.ones(19), {}, "19 values is too short"),
        (np.ones((20, 2)), {}, r"one axis, not shape \(20, 2\)"),
        ([*np.ones(20), math.nan], {}, "value 20 of the series is nan"),
        ([1.0, -1.0, *np.ones(20)], {}, "value 1 of the series is -1.0"),
        (np.ones(50), {"least_ratio": 1.0}, "least_ratio 1.0 is not above 1"),
        (np.ones(50), {"significance": 0.0}, "significance 0.0"),
        (np.ones(50), {"least_items": 1}, "least_items 1 is less than 2"),
    ],
)
def test_bad_input_is_named(values, options, message):
    with pytest.raises(InvalidInputError, match=message):
        find_shifts(values, **options)


# -- monotonicity ----------------------------------------------------------------------------


def mbconv(
    channels: int = 24, expanded: int = 96, kernel: int = 3, side: int = 28, **attributes: object
) -> OpSpec:
    return OpSpec.of(
        "mbconv",
        (channels, side, side),
        out_channels=channels,
        expanded_channels=expanded,
        kernel=kernel,
        **attributes,
    )


def entry(op: OpSpec, mean_ms: float, spread: float = 0.02, **changes: object) -> TableEntry:
    places = {"n_occurrences": 4, "n_visits": 12, **changes}
    return TableEntry(op=op, mean_ms=mean_ms, spread_ms=spread * mean_ms, **places)


@pytest.mark.parametrize(
    ("direction", "bigger"),
    [
        ("kernel", mbconv(kernel=5)),
        ("channels", mbconv(channels=32)),
        ("expansion", mbconv(expanded=144)),
        ("resolution", mbconv(side=32)),
    ],
)
def test_a_bigger_op_that_is_faster_is_found_with_its_direction(direction, bigger):
    smaller = mbconv()
    (found,) = monotonicity_breaks([entry(bigger, 0.8), entry(smaller, 1.0)])
    assert (found.smaller, found.bigger, found.direction) == (smaller, bigger, direction)
    assert found.ratio == pytest.approx(1.25)
    assert found.sigmas == pytest.approx(math.log(1.25) / (0.02 / 2 * math.sqrt(2)))
    assert monotonicity_breaks([entry(bigger, 1.2), entry(smaller, 1.0)]) == ()


@pytest.mark.parametrize(
    "other",
    [
        mbconv(kernel=5, expanded=144),
        mbconv(kernel=5, activation="hswish"),
        mbconv(kernel=5, stride=2),
        mbconv(se_channels=24),
    ],
    ids=["two directions", "another activation", "another stride", "with and without squeeze"],
)
def test_ops_that_differ_in_more_than_one_direction_are_not_compared(other):
    assert monotonicity_breaks([entry(mbconv(), 1.0), entry(other, 0.5)]) == ()


def test_squeeze_channels_go_with_the_expansion():
    smaller, bigger = mbconv(expanded=96, se_channels=24), mbconv(expanded=144, se_channels=40)
    (found,) = monotonicity_breaks([entry(smaller, 1.0), entry(bigger, 0.8)])
    assert found.direction == "expansion"


def test_ops_of_which_none_holds_the_other_are_not_compared():
    wide = OpSpec.of("conv", (16, 14, 14), out_channels=64, kernel=1)
    deep = OpSpec.of("conv", (32, 14, 14), out_channels=32, kernel=1)
    assert monotonicity_breaks([entry(wide, 1.0), entry(deep, 0.5)]) == ()


def test_a_break_must_exceed_the_errors_and_the_least_ratio():
    def pair(ratio, spread):
        return [entry(mbconv(), ratio, spread), entry(mbconv(kernel=5), 1.0, spread)]

    assert monotonicity_breaks(pair(1.2, 0.2)) == ()
    assert monotonicity_breaks(pair(1.04, 0.001)) == ()
    assert len(monotonicity_breaks(pair(1.04, 0.001), least_ratio=1.02)) == 1
    assert len(monotonicity_breaks(pair(1.2, 0.2), least_sigmas=1)) == 1


def test_breaks_come_most_significant_first():
    entries = [entry(mbconv(), 1.0), entry(mbconv(kernel=5), 0.9), entry(mbconv(kernel=7), 0.7)]
    assert [found.ratio for found in monotonicity_breaks(entries)] == pytest.approx(
        [1 / 0.7, 0.9 / 0.7, 1 / 0.9]
    )


def test_interpolated_entries_are_left_out():
    entries = [entry(mbconv(), 1.0), entry(mbconv(kernel=5), 0.5, kind=INTERPOLATED)]
    assert monotonicity_breaks(entries) == ()
    assert monotonicity_breaks([]) == ()


def test_entries_without_spread_are_judged_by_the_least_error():
    entries = [entry(mbconv(), 1.0, 0.0), entry(mbconv(kernel=5), 0.9, 0.0)]
    assert math.isfinite(monotonicity_breaks(entries)[0].sigmas)


def test_a_spoilt_entry_of_a_measured_table_is_in_every_break(campaign):
    table = build_table(
        profiled=campaign.profiled,
        plain=campaign.plain,
        calibration=campaign.calibration,
        target=campaign.target,
        space=campaign.space,
    )
    before = monotonicity_breaks(table.entries)
    spoilt = max(
        (one for one in table.entries if one.op.kind == "mbconv"),
        key=lambda one: (-one.op.integer("kernel"), -one.op.integer("expanded_channels")),
    )
    entries = [entry(one.op, 3 * one.mean_ms) if one is spoilt else one for one in table.entries]
    after = [found for found in monotonicity_breaks(entries) if found not in before]
    assert after
    assert all(spoilt.op in (found.smaller, found.bigger) for found in after)


@pytest.mark.parametrize("options", [{"least_ratio": 0.9}, {"least_sigmas": 0}])
def test_bad_options_of_monotonicity_are_named(options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        monotonicity_breaks([], **options)


# -- runs ------------------------------------------------------------------------------------


def visits(n_subjects: int, n_runs: int = 2, n_visits: int = 3, seed: int = 0, noise: float = 0.01):
    rng = np.random.default_rng(seed)
    return {
        f"op {subject}": {
            f"run {run}": 1e6 * (1 + subject) * np.exp(rng.normal(0, noise, n_visits))
            for run in range(n_runs)
        }
        for subject in range(n_subjects)
    }


def test_runs_that_disagree_are_named_with_their_ratio():
    medians = visits(20)
    medians["op 3"]["run 1"] = 1.2 * medians["op 3"]["run 1"]
    (found,) = disagreements(medians)
    assert (found.subject, found.faster, found.slower) == ("op 3", "run 0", "run 1")
    assert found.ratio == pytest.approx(1.2, rel=0.02)
    assert found.sigmas > 5


@pytest.mark.parametrize("seed", range(20))
def test_runs_that_differ_by_their_noise_agree(seed):
    assert disagreements(visits(100, n_runs=3, seed=seed, noise=0.05)) == ()


def test_a_difference_below_the_least_ratio_is_left_alone():
    medians = visits(20, noise=0.001)
    medians["op 3"]["run 1"] = 1.02 * medians["op 3"]["run 1"]
    assert disagreements(medians) == ()
    assert len(disagreements(medians, least_ratio=1.01)) == 1


def test_a_subject_that_scatters_more_than_others_needs_more_distance():
    medians = {name: {"a": [100, 101, 99], "b": [100, 101, 99]} for name in range(8)}
    medians["noisy"] = {"a": [100, 130, 110, 140, 105], "b": [130, 160, 125, 150, 115]}
    medians["quiet"] = {"a": [100, 101, 99, 100, 101], "b": [125, 126, 124, 125, 126]}
    assert [found.subject for found in disagreements(medians)] == ["quiet"]


def test_a_slower_board_accuses_every_op_unless_the_common_mode_is_removed():
    medians = visits(20)
    for runs in medians.values():
        runs["run 1"] = 1.1 * runs["run 1"]
    medians["op 7"]["run 1"] = 1.15 * medians["op 7"]["run 1"]
    assert len(disagreements(medians)) == 20
    (found,) = disagreements(medians, remove_common_mode=True)
    assert found.subject == "op 7"
    assert found.ratio == pytest.approx(1.15, rel=0.02)


def test_a_run_of_one_visit_is_judged_by_the_noise_of_the_others():
    medians = {**visits(10), "once": {"run 0": [1e6], "run 1": [1.3e6]}}
    (found,) = disagreements(medians)
    assert found.subject == "once"


def test_nothing_to_compare_is_no_disagreement():
    assert disagreements({}) == ()
    assert disagreements({"op": {"run": [1.0, 2.0]}}) == ()


@pytest.mark.parametrize(
    ("medians", "options", "message"),
    [
        ({"op": {"a": [1.0], "b": [2.0]}}, {}, "no run has two visits"),
        ({"op": {"a": [1.0, 0.0], "b": [2.0]}}, {}, "op, run a: a visit median is not positive"),
        ({"op": {"a": [], "b": [2.0]}}, {}, "op, run a: .* at least one"),
        (visits(7), {"remove_common_mode": True}, "7 subjects are too few"),
        ({}, {"least_ratio": 0.5}, "least_ratio 0.5"),
        ({}, {"significance": 1.0}, "significance 1.0"),
    ],
)
def test_bad_runs_are_named(medians, options, message):
    with pytest.raises(InvalidInputError, match=message):
        disagreements(medians, **options)
