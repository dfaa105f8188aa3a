"""What a lookup table answers, with figures small enough to check by hand."""

import dataclasses

import numpy as np
import pytest

from latlas_latency.calibration import AffineFit, Calibration
from latlas_latency.estimation import LEAST_RELATIVE_ERROR
from latlas_latency.model import LatencyModel
from latlas_latency.space_reference import SpaceReference
from latlas_latency.table import LookupTable, TableEntry
from latlas_ops import ArchBatch, Network, OpSpec, get_space
from latlas_ops.costs import op_cost
from latlas_ops.errors import InvalidInputError, SpaceMismatchError, UnknownOpError

FIT = AffineFit(0.05, 1.2, ((1e-8, 0.0), (0.0, 1e-8)), 0.01, 8)


@pytest.fixture(scope="module")
def entries(space):
    rng = np.random.default_rng(0)
    return tuple(
        TableEntry(op, float(ms), float(ms) * 0.02, 3, 9)
        for op, ms in zip(
            space.slot_entries.ops,
            rng.uniform(0.01, 0.5, len(space.slot_entries.ops)),
            strict=True,
        )
    )


@pytest.fixture(scope="module")
def table(entries, target, space):
    return LookupTable(target, SpaceReference.of(space), entries, Calibration(FIT, 0.01))


@pytest.fixture(scope="module")
def batch(space):
    return space.sample(200, np.random.default_rng(1))


def gapped(table, n_missing=1):
    """The table without its entries of some blocks."""
    blocks = [entry.op for entry in table.entries if entry.op.kind == "mbconv"][:n_missing]
    left = tuple(entry for entry in table.entries if entry.op not in blocks)
    return dataclasses.replace(table, entries=left), blocks


def archs_with(space, op, n=20_000):
    """Some architectures that contain an op, and some that do not."""
    batch = space.sample(n, np.random.default_rng(2))
    has = (space.entry_indices(batch) == space.slot_entries.ops.index(op)).any(axis=1)
    return ArchBatch(space, batch.genes[has][:5]), ArchBatch(space, batch.genes[~has][:5])


def test_a_table_is_a_latency_model(table):
    assert isinstance(table, LatencyModel)
    assert table.kind == "table"


def test_a_prediction_is_the_calibrated_sum_of_entries(table, space, batch):
    prediction = table.predict(batch)
    for index in (0, 7, 42):
        ops = space.ops(space.archs(batch)[index])
        total = sum(table.by_op[op].mean_ms for op in ops)
        assert prediction.mean_ms[index] == pytest.approx(0.05 + 1.2 * total)
    np.testing.assert_array_equal(prediction.measured_ms, prediction.mean_ms)
    assert not prediction.interpolated_ms.any()
    assert not prediction.estimated_ms.any()
    assert prediction.missing == ()


def test_networks_and_architectures_get_the_same_answer(table, space, batch):
    networks = [space.network(arch) for arch in space.archs(batch)]
    one, other = table.predict(batch), table.predict(networks)
    for name in ("mean_ms", "lower_ms", "upper_ms"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12)


def test_networks_beyond_the_space_are_answered_if_their_ops_are_known(table, space):
    stem = space.slot_entries.ops[0]
    prediction = table.predict([Network.chain([stem])])
    assert prediction.mean_ms[0] == pytest.approx(0.05 + 1.2 * table.by_op[stem].mean_ms)


def test_no_networks_give_no_predictions(table, space):
    assert table.predict([]).mean_ms.shape == (0,)
    assert table.predict(space.batch([])).mean_ms.shape == (0,)


# -- intervals -----------------------------------------------------------------------------------


def test_a_higher_level_gives_a_wider_interval(table, batch):
    narrow, wide = table.predict(batch, 0.5), table.predict(batch, 0.99)
    assert (wide.lower_ms < narrow.lower_ms).all()
    assert (wide.upper_ms > narrow.upper_ms).all()
    assert (wide.level, narrow.level) == (0.99, 0.5)


def test_networks_on_noisy_entries_have_wider_intervals(table, space):
    noisy_op = table.entries[100].op
    entries = tuple(
        dataclasses.replace(entry, spread_ms=2 * entry.mean_ms) if entry.op == noisy_op else entry
        for entry in table.entries
    )
    noisy = dataclasses.replace(table, entries=entries)
    for archs, expected in zip(archs_with(space, noisy_op), (True, False), strict=True):
        before, after = table.predict(archs), noisy.predict(archs)
        widened = after.upper_ms - after.mean_ms > 1.0001 * (before.upper_ms - before.mean_ms)
        assert widened.tolist() == [expected] * len(archs)


def test_an_uncalibrated_table_leaves_room_above_its_sums(table, batch):
    raw = dataclasses.replace(table, calibration=None)
    prediction = raw.predict(batch)
    sums = (table.predict(batch).mean_ms - 0.05) / 1.2
    np.testing.assert_allclose(prediction.mean_ms, sums)
    # Networks take up to 19 % more than raw sums say.
    assert (prediction.upper_ms > 1.19 * sums).all()
    assert (prediction.lower_ms > 0.9 * sums).all()


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_out_of_range_is_refused(table, batch, level):
    with pytest.raises(InvalidInputError, match="level"):
        table.predict(batch, level)


# -- unknown ops ---------------------------------------------------------------------------------


def test_an_unknown_op_is_refused_by_name_with_the_way_out(table, space):
    lacking, (op,) = gapped(table)
    using, _ = archs_with(space, op)
    networks = [space.network(arch) for arch in space.archs(using)]
    for subjects in (using, networks):
        with pytest.raises(UnknownOpError) as caught:
            lacking.predict(subjects)
        assert str(op) in str(caught.value)
        assert "profile networks that contain them, or allow estimates" in str(caught.value)


def test_architectures_that_do_not_use_the_unknown_op_are_answered(table, space):
    lacking, (op,) = gapped(table)
    _, without = archs_with(space, op)
    np.testing.assert_allclose(lacking.predict(without).mean_ms, table.predict(without).mean_ms)


def test_many_unknown_ops_are_counted_and_some_are_named(table, space):
    lacking, ops = gapped(table, n_missing=10)
    with pytest.raises(UnknownOpError, match=r"no entry for 10 op\(s\): .* and 7 more"):
        lacking.op_latencies(space)
    assert set(lacking.missing(space)) == set(ops)


def test_an_estimate_is_never_zero_and_never_passes_for_a_measurement(table, space):
    lacking, (op,) = gapped(table)
    using, _ = archs_with(space, op)
    prediction = lacking.predict(using, allow_estimates=True)
    assert prediction.missing == (op,)
    assert (prediction.estimated_ms > 0).all()
    np.testing.assert_allclose(prediction.measured_ms + prediction.estimated_ms, prediction.mean_ms)
    known = table.predict(using)
    assert (prediction.upper_ms - prediction.lower_ms > known.upper_ms - known.lower_ms).all()


def test_the_estimate_is_what_ops_of_its_kind_cost_per_mac(target):
    def block(kernel):
        return OpSpec.of("mbconv", (16, 8, 8), out_channels=16, expanded_channels=32, kernel=kernel)

    rate = 2e-6
    known = [TableEntry(block(k), rate * op_cost(block(k)).macs, 0.0, 1, 3) for k in (3, 5)]
    other = OpSpec.of("linear", (64,), out_features=10)
    table = LookupTable(target, None, (*known, TableEntry(other, 1.0, 0.0, 1, 3)))
    network = Network.chain([block(7)])
    prediction = table.predict([network], allow_estimates=True)
    assert prediction.estimated_ms[0] == pytest.approx(rate * op_cost(block(7)).macs)
    assert prediction.lower_ms[0] < (1 - LEAST_RELATIVE_ERROR) * prediction.mean_ms[0]


def test_a_kind_that_was_never_measured_is_estimated_from_all_others(target):
    linear = OpSpec.of("linear", (64,), out_features=10)
    table = LookupTable(target, None, (TableEntry(linear, 0.64, 0.0, 1, 3),))
    for op in (
        OpSpec.of("conv", (3, 8, 8), out_channels=4, kernel=3),
        OpSpec.of("pool", (3, 8, 8), mode="max", kernel=2, stride=2),
    ):
        prediction = table.predict([Network.chain([op])], allow_estimates=True)
        assert prediction.estimated_ms[0] > 0


# -- op latencies --------------------------------------------------------------------------------


def test_op_latencies_add_up_to_predictions(table, space, batch):
    found = table.op_latencies(space)
    total = np.full(len(batch), found.intercept_ms)
    for slot, figures in zip(space.slots, found.tables_ms, strict=True):
        total += figures[tuple(batch.genes[:, gene].astype(int) for gene in slot.genes)]
    np.testing.assert_allclose(total, table.predict(batch).mean_ms)


def test_op_latencies_of_a_space_with_an_unknown_op_are_refused(table, space):
    lacking, (op,) = gapped(table)
    with pytest.raises(UnknownOpError) as caught:
        lacking.op_latencies(space)
    assert str(op) in str(caught.value)


# -- spaces --------------------------------------------------------------------------------------


def test_architectures_of_another_space_are_refused(table):
    other = get_space("course")
    with pytest.raises(SpaceMismatchError, match=r"'digits' version 2 .* space 'course'"):
        table.predict(other.extremes())
    with pytest.raises(SpaceMismatchError, match="bench-ort-1t"):
        table.op_latencies(other)


def test_a_table_of_no_space_answers_any_that_its_ops_cover(table, batch):
    free = dataclasses.replace(table, space=None)
    np.testing.assert_allclose(free.predict(batch).mean_ms, table.predict(batch).mean_ms)
    with pytest.raises(UnknownOpError):
        free.predict(get_space("course").extremes())


# -- entries -------------------------------------------------------------------------------------


def test_interpolated_milliseconds_are_counted_apart(table, batch, space):
    stems = {op for op in space.slot_entries.ops if op.kind == "stem"}
    entries = tuple(
        dataclasses.replace(entry, kind="interpolated") if entry.op in stems else entry
        for entry in table.entries
    )
    prediction = dataclasses.replace(table, entries=entries).predict(batch)
    stem_ms = [1.2 * table.by_op[space.ops(arch)[0]].mean_ms for arch in space.archs(batch)]
    np.testing.assert_allclose(prediction.interpolated_ms, stem_ms)
    np.testing.assert_allclose(
        prediction.measured_ms + prediction.interpolated_ms, prediction.mean_ms
    )


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mean_ms": 0.0}, "mean_ms 0.0 is not positive"),
        ({"mean_ms": np.nan}, "mean_ms nan is not positive"),
        ({"spread_ms": -0.1}, "spread_ms -0.1 is negative"),
        ({"error_ms": -0.1}, "error_ms -0.1 is negative"),
        ({"kind": "guessed"}, "kind 'guessed' is not one of measured, interpolated"),
    ],
)
def test_an_entry_is_validated_at_birth(entries, changes, complaint):
    with pytest.raises(InvalidInputError, match=complaint):
        dataclasses.replace(entries[0], **changes)


def test_a_table_holds_one_entry_per_op(table, entries):
    with pytest.raises(InvalidInputError, match="two entries for one op: stem"):
        dataclasses.replace(table, entries=(*entries, entries[0]))
    with pytest.raises(InvalidInputError, match="at least one entry"):
        dataclasses.replace(table, entries=())


def test_a_negative_constant_never_makes_a_latency_negative(table, space):
    line = dataclasses.replace(FIT, intercept=-5.0)
    shifted = dataclasses.replace(table, calibration=Calibration(line, 0.01))
    stem = space.slot_entries.ops[0]
    prediction = shifted.predict([Network.chain([stem])])
    assert prediction.mean_ms[0] == pytest.approx(0.5 * 1.2 * table.by_op[stem].mean_ms)
