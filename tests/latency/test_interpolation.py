"""Ops that were not measured, between measured ones: their entries, and how far these err."""

import csv
import dataclasses
import math

import numpy as np
import pytest

from latlas_latency.calibration import AffineFit, Calibration
from latlas_latency.entries import INTERPOLATED, TableEntry, relative_errors
from latlas_latency.formats import (
    export_latency_model,
)
from latlas_latency.interpolation import Interpolation
from latlas_latency.interpolation_error import (
    ASSUMED_SCATTER,
    ASSUMED_SHARED,
    InterpolationCheck,
    check_interpolation,
)
from latlas_latency.space_reference import SpaceReference
from latlas_latency.table import LookupTable
from latlas_ops import ArchBatch, Network, OpSpec, get_space
from latlas_ops.costs import op_cost
from latlas_ops.errors import SpaceMismatchError, UnknownOpError

FIT = AffineFit(0.05, 1.2, ((1e-8, 0.0), (0.0, 1e-8)), 0.01, 20)
OFA = get_space("ofa-mobilenetv3")


def block(side=8, channels=16, expanded=32, **changes):
    values = {"out_channels": channels, "expanded_channels": expanded, "kernel": 3, **changes}
    return OpSpec.of("mbconv", (channels, side, side), **values)


def entry(op, mean_ms, spread=0.02):
    return TableEntry(op, mean_ms, spread * mean_ms, 3, 9)


def smooth_ms(op):
    """An overhead and a rate: what interpolation takes ops for."""
    return 0.01 + op_cost(op).macs / 20e9 * 1e3


def stepped_ms(op):
    """Large images fall out of the cache, odd sizes leave vector lanes empty."""
    cost = op_cost(op)
    step = 1 + 0.3 / (1 + math.exp(-(cost.activation_bytes - 600_000) / 100_000))
    lanes = 1 + 0.05 * (op.inputs[0][-1] % 4 != 0)
    return 0.01 + cost.macs / 20e9 * 1e3 * step * lanes


def table_of(target, space, ops, truth_ms, seed=0, noise=0.01):
    rng = np.random.default_rng(seed)
    entries = tuple(
        TableEntry(op, truth_ms(op) * float(rng.normal(1, noise / 2)), noise * truth_ms(op), 4, 12)
        for op in ops
    )
    return LookupTable(target, SpaceReference.of(space), entries, Calibration(FIT, 0.002))


def ops_at(space, *resolutions):
    """The ops of a space that occur at some resolutions."""
    chosen = [space.genes[0].choices.index(resolution) for resolution in resolutions]
    entries = space.slot_entries
    found = {}
    for slot, table in zip(space.slots, entries.tables, strict=True):
        assert slot.genes[0] == 0
        for index in table[chosen].ravel().tolist():
            if index >= 0:
                found[entries.ops[index]] = None
    return tuple(found)


def truth_of(space, batch, truth_ms):
    return np.array(
        [0.05 + 1.2 * sum(map(truth_ms, space.ops(arch))) for arch in space.archs(batch)]
    )


# -- one entry -----------------------------------------------------------------------------------


def test_an_op_between_two_resolutions_lies_on_the_line_over_their_work():
    known = [entry(block(8), 1.0), entry(block(16), 3.4)]
    found = Interpolation(known).entry(block(12))
    share = (12**2 - 8**2) / (16**2 - 8**2)
    assert found.mean_ms == pytest.approx(1.0 + share * 2.4)
    assert (found.kind, found.n_visits, found.n_occurrences) == (INTERPOLATED, 0, 0)


def test_an_op_between_two_channel_counts_lies_on_the_line_over_their_work():
    known = [
        entry(block(expanded=expanded), smooth_ms(block(expanded=expanded)))
        for expanded in (32, 96)
    ]
    found = Interpolation(known).entry(block(expanded=64))
    assert found.mean_ms == pytest.approx(smooth_ms(block(expanded=64)))


def test_an_op_without_work_is_interpolated_over_its_memory():
    def pool(side):
        return OpSpec.of("pool", (8, side, side), mode="max", kernel=2, stride=2)

    found = Interpolation([entry(pool(8), 0.1), entry(pool(16), 0.4)]).entry(pool(12))
    assert 0.1 < found.mean_ms < 0.4


def test_the_nearest_neighbours_count_and_no_others():
    known = [entry(block(side), smooth_ms(block(side))) for side in (4, 8, 16)]
    far = entry(block(64), 100.0)
    found = Interpolation([*known, far]).entry(block(12))
    assert found.mean_ms == pytest.approx(smooth_ms(block(12)))


@pytest.mark.parametrize(
    "op",
    [
        block(20),
        block(6),
        block(12, kernel=5),
        block(12, activation="hswish"),
        block(12, se_channels=8),
        block(12, channels=24, expanded=64),
        OpSpec.of("mbconv", (16, 4, 32), out_channels=16, expanded_channels=32, kernel=3),
    ],
    ids=["above", "below", "kernel", "activation", "squeezing", "channels", "aspect"],
)
def test_nothing_is_extrapolated_and_only_siblings_count(op):
    known = [entry(block(8), 1.0), entry(block(16), 4.0)]
    interpolation = Interpolation(known)
    assert interpolation.entry(op) is None
    assert not interpolation.reaches(op)


def test_nothing_rests_on_what_is_itself_interpolated():
    known = [entry(block(8), 1.0), dataclasses.replace(entry(block(16), 4.0), kind=INTERPOLATED)]
    assert Interpolation(known).entry(block(12)) is None


def test_of_two_axes_the_one_that_errs_less_is_taken():
    # Over resolution all is smooth; over channels every second count is slower by half.
    def ms(op):
        return smooth_ms(op) * (1.5 if op.integer("expanded_channels") % 64 else 1.0)

    ops = [block(side, expanded=32 * n) for side in range(8, 40, 4) for n in range(1, 9)]
    op = block(20, expanded=128)
    found = Interpolation([entry(one, ms(one)) for one in ops if one != op]).entry(op)
    assert found.mean_ms == pytest.approx(ms(op), rel=0.01)


# -- errors by leaving out -----------------------------------------------------------------------


def test_leaving_out_finds_nothing_wrong_with_a_smooth_truth(target):
    table = table_of(target, OFA, OFA.slot_entries.ops, smooth_ms, noise=0.0)
    errors = {(error.axis, error.kind): error for error in table.interpolation.errors}
    over = errors["resolution", "all"]
    assert over.known
    assert over.n_entries == 184, "the two resolutions in the middle"
    assert over.p90 < 1e-6
    assert over.scatter < 1e-6
    assert 0 < over.shared < ASSUMED_SHARED, "that much is believed of two places"
    assert errors["channels", "all"].n_entries == 120, "the expansion in the middle"
    assert errors["resolution", "mbconv"].n_entries == 180
    assert errors["resolution", "stem"].n_entries == 2


def test_leaving_out_finds_the_errors_that_interpolation_makes(target):
    table = table_of(target, OFA, OFA.slot_entries.ops, stepped_ms)
    over = next(error for error in table.interpolation.errors if error.axis == "resolution")
    part = table_of(target, OFA, ops_at(OFA, 128, 224), stepped_ms).interpolated(OFA)
    actual = [abs(e.mean_ms / stepped_ms(e.op) - 1) for e in part.entries if e.kind == INTERPOLATED]
    assert over.known
    assert 0.3 < over.p90 / np.quantile(actual, 0.9) < 3
    assert over.median > 0.005
    assert over.p90 > over.median


def test_of_two_resolutions_the_error_is_not_known_and_says_so(target):
    part = table_of(target, OFA, ops_at(OFA, 128, 224), smooth_ms)
    over = next(error for error in part.interpolation.errors if error.axis == "resolution")
    assert not over.known
    assert (over.n_entries, over.scatter, over.shared) == (0, ASSUMED_SCATTER, ASSUMED_SHARED)
    assert math.isnan(over.median)
    assert "error not known" in over.summary
    assert any("error not known" in remark for remark in part.interpolated(OFA).remarks)
    assert not any("interpolated" in remark for remark in part.remarks)


def test_whole_networks_make_up_for_entries_that_cannot_be_left_out(target):
    part = table_of(target, OFA, ops_at(OFA, 128, 224), smooth_ms)

    def shared(check):
        return Interpolation(part.entries, check).errors[0].shared

    assert shared(InterpolationCheck(8, 0.01, 0.0)) == pytest.approx(ASSUMED_SHARED / 3)
    assert shared(InterpolationCheck(99, 0.1, 0.1)) == pytest.approx(0.1, rel=0.01)
    assert shared(None) == ASSUMED_SHARED


def test_a_check_counts_what_the_calibration_does_not_explain():
    calibration = Calibration(dataclasses.replace(FIT, residual=0.03), 0.01)
    measured, predicted = [10.5, 9.5], [10.0, 10.0]
    found = check_interpolation(measured, predicted, [5.0, 5.0], calibration)
    assert found.n_networks == 2
    assert found.excess == pytest.approx(0.4 / 5)
    assert found.mape == pytest.approx((0.5 / 10.5 + 0.5 / 9.5) / 2)
    assert check_interpolation([10.1], [10.0], [5.0], calibration).excess == 0
    assert check_interpolation([], [], [], calibration) is None


def test_interpolated_entries_state_their_own_error_and_leave_that_of_others_alone(target):
    part = table_of(target, OFA, ops_at(OFA, 128, 224), smooth_ms)
    full = part.interpolated(OFA)
    before, after = relative_errors(part.entries), relative_errors(full.entries)
    assert all(after[op] == error for op, error in before.items())
    added = [one for one in full.entries if one.kind == INTERPOLATED]
    assert all(after[one.op] == one.spread_ms / one.mean_ms for one in added)
    assert all(after[one.op] >= ASSUMED_SCATTER for one in added)


# -- tables --------------------------------------------------------------------------------------


def test_a_table_refuses_until_it_is_asked_to_interpolate(target):
    part = table_of(target, OFA, ops_at(OFA, 128, 224), smooth_ms)
    batch = OFA.sample(50, np.random.default_rng(0))
    with pytest.raises(UnknownOpError, match=r"no entry for .*; \d+ of them can be interpolated"):
        part.predict(batch)
    with pytest.raises(UnknownOpError, match="can be interpolated"):
        part.op_latencies(OFA)
    full = part.interpolated(OFA)
    assert len(part.entries) == 184, "the table itself is as it was"
    assert full.missing(OFA) == ()
    assert full.n_interpolated == 184
    assert full.predict(batch).missing == ()
    assert full.op_latencies(OFA).intercept_ms == FIT.intercept
    assert full.interpolated(OFA) is full


def test_ops_with_unlike_inputs_are_unknown_until_they_are_interpolated(target):
    def joined(side):
        return OpSpec.of("concat", (8, side, side), (16, side, side))

    table = LookupTable(target, None, tuple(entry(joined(side), side**2 / 100) for side in (4, 8)))
    network = Network(
        (
            OpSpec.of("conv", (8, 6, 6), out_channels=16, kernel=3),
            joined(6),
        ),
        ((-1,), (-1, 0)),
    )
    with pytest.raises(UnknownOpError, match="1 of them can be interpolated"):
        table.predict([network])
    assert table.interpolated([joined(6)]).by_op[joined(6)].mean_ms == pytest.approx(0.36)


def test_a_prediction_is_split_into_measured_and_interpolated_milliseconds(target):
    full = table_of(target, OFA, ops_at(OFA, 128, 224), smooth_ms).interpolated(OFA)
    batch = OFA.sample(200, np.random.default_rng(0))
    found = full.predict(batch)
    between = np.isin(batch.genes[:, 0], (1, 2))
    assert (found.interpolated_ms[between] > 0.5 * found.mean_ms[between]).all()
    assert not found.interpolated_ms[~between].any()
    assert not found.estimated_ms.any()
    np.testing.assert_allclose(found.measured_ms + found.interpolated_ms, found.mean_ms)
    np.testing.assert_allclose(found.mean_ms, truth_of(OFA, batch, smooth_ms), rtol=0.01)


def test_ops_beyond_the_measured_range_stay_unknown(target):
    part = table_of(target, OFA, ops_at(OFA, 160, 224), smooth_ms).interpolated(OFA)
    assert set(part.missing(OFA)) == set(ops_at(OFA, 128)) - set(ops_at(OFA, 160, 192, 224))
    batch = OFA.sample(50, np.random.default_rng(0))
    above = ArchBatch(OFA, batch.genes[batch.genes[:, 0] > 0])
    assert part.predict(above).missing == ()
    below = ArchBatch(OFA, batch.genes[batch.genes[:, 0] == 0])
    with pytest.raises(UnknownOpError) as refused:
        part.predict(below)
    assert "can be interpolated" not in str(refused.value)
    estimated = part.predict(below, allow_estimates=True)
    assert (estimated.estimated_ms > 0).all()


def test_single_ops_are_interpolated_for_networks_of_any_space(target):
    known = tuple(entry(block(side), smooth_ms(block(side))) for side in (8, 16))
    table = LookupTable(target, None, known)
    full = table.interpolated([block(12), block(12), block(32)])
    assert [one.op for one in full.entries if one.kind == INTERPOLATED] == [block(12)]
    prediction = full.predict([Network.chain([block(12)])])
    np.testing.assert_allclose(prediction.interpolated_ms, prediction.mean_ms)
    np.testing.assert_allclose(prediction.mean_ms, smooth_ms(block(12)))


def test_another_space_is_refused(target):
    part = table_of(target, OFA, ops_at(OFA, 128, 224), smooth_ms)
    with pytest.raises(SpaceMismatchError, match="'course'"):
        part.interpolated(get_space("course"))


# -- intervals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [(128, 224), (128, 192, 224), (128, 160, 224)])
def test_intervals_contain_the_truth_behind_steps_of_the_cache(target, kept):
    batch = OFA.sample(400, np.random.default_rng(1))
    truth = truth_of(OFA, batch, stepped_ms)
    full = table_of(target, OFA, ops_at(OFA, *kept), stepped_ms).interpolated(OFA)
    found = full.predict(batch, 0.9)
    inside = (found.lower_ms <= truth) & (truth <= found.upper_ms)
    between = found.interpolated_ms > 0
    assert inside[between].mean() >= 0.9
    assert inside[~between].mean() >= 0.9
    width = (found.upper_ms - found.lower_ms) / found.mean_ms
    assert width[between].mean() > 1.2 * width[~between].mean(), "it knows less of these"
    assert width.max() < 0.3


def test_each_interpolated_entry_has_an_interval_that_contains_the_truth(target):
    full = table_of(target, OFA, ops_at(OFA, 128, 192, 224), stepped_ms).interpolated(OFA)
    raw = dataclasses.replace(full, calibration=None)
    ops = [one.op for one in full.entries if one.kind == INTERPOLATED]
    found = raw.predict([Network.chain([op]) for op in ops], 0.9)
    truth = np.array([stepped_ms(op) for op in ops])
    inside = (found.lower_ms <= truth) & (truth <= found.upper_ms * (1 - 0.16))
    assert inside.mean() >= 0.85


def test_what_interpolated_ops_share_does_not_average_out(target):
    full = table_of(target, OFA, ops_at(OFA, 128, 224), smooth_ms).interpolated(OFA)
    largest = ArchBatch(OFA, OFA.extremes().genes[1:].copy())
    largest.genes[:, 0] = 2
    found = full.predict(largest, 0.6827)
    half = (found.upper_ms - found.lower_ms) / 2 / found.mean_ms
    share = found.interpolated_ms / found.mean_ms
    assert half[0] > ASSUMED_SHARED * share[0]


# -- files ---------------------------------------------------------------------------------------


def test_exports_mark_what_is_interpolated(target):
    full = table_of(target, OFA, ops_at(OFA, 128, 224), smooth_ms).interpolated(OFA)
    text = export_latency_model(full, "csv", OFA)[0].decode()
    assert "# interpolated: 184 of 368 entries" in text
    assert "# over resolution: error not known" in text
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    assert sum(row["source"] == INTERPOLATED for row in rows) == 184
    text = export_latency_model(full, "ofa-yaml", OFA)[0].decode()
    assert "# interpolated: 184 of 368 entries" in text
    blocks = [line for line in text.splitlines() if line.startswith("expanded_conv")]
    marked = [line for line in blocks if line.endswith(":  # interpolated")]
    kinds = [one.op.kind for one in full.entries if one.kind == INTERPOLATED]
    assert len(marked) == kinds.count("mbconv") + kinds.count("stem"), "a stem brings a block"
    assert len(blocks) > len(marked)
