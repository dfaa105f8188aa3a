"""Tables, costs and searches of spaces whose networks branch: equal to what is run, op by op."""

import itertools

import numpy as np
import pytest

from latlas_latency.calibration import AffineFit, Calibration
from latlas_latency.predictors.features import arch_features, total_names
from latlas_latency.space_reference import SpaceReference
from latlas_latency.table import LookupTable, TableEntry
from latlas_ops import ArchBatch, SearchSpace, get_space
from latlas_ops.costs import network_cost, space_costs
from latlas_ops.errors import UnknownOpError

FIT = AffineFit(0.05, 1.2, ((1e-8, 0.0), (0.0, 1e-8)), 0.01, 8)


@pytest.fixture(scope="module", params=["nas-bench-201", "darts"])
def cells(request):
    return get_space(request.param)


@pytest.fixture(scope="module")
def table(cells, target):
    rng = np.random.default_rng(0)
    entries = tuple(
        TableEntry(op, float(ms), float(ms) * 0.02, 3, 9)
        for op, ms in zip(
            cells.slot_entries.ops,
            rng.uniform(0.01, 0.5, len(cells.slot_entries.ops)),
            strict=True,
        )
    )
    return LookupTable(target, SpaceReference.of(cells), entries, Calibration(FIT, 0.01))


@pytest.fixture(scope="module")
def batch(cells):
    """Random architectures; of NAS-Bench-201 also some without a path from input to output."""
    genes = cells.sample(60, np.random.default_rng(1)).genes
    if cells.name == "nas-bench-201":
        genes[:5, [3, 4, 5]] = 0
    return ArchBatch(cells, genes)


def test_a_prediction_is_the_calibrated_sum_over_the_ops_of_the_network(table, cells, batch):
    sums = [
        sum(table.by_op[op].mean_ms for op in cells.network(arch).ops)
        for arch in cells.archs(batch)
    ]
    np.testing.assert_allclose(table.predict(batch).mean_ms, 0.05 + 1.2 * np.array(sums))


def test_networks_and_architectures_get_the_same_answer(table, cells, batch):
    networks = [cells.network(arch) for arch in cells.archs(batch)]
    one, other = table.predict(batch), table.predict(networks)
    for name in ("mean_ms", "lower_ms", "upper_ms"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-12)


def test_op_latencies_add_up_to_predictions(table, cells, batch):
    found = table.op_latencies(cells)
    total = np.full(len(batch), found.intercept_ms)
    for slot, figures in zip(cells.slots, found.tables_ms, strict=True):
        total += figures[tuple(batch.genes[:, gene].astype(int) for gene in slot.genes)]
    np.testing.assert_allclose(total, table.predict(batch).mean_ms)


def test_an_op_that_is_pruned_is_not_missed(target):
    cells = get_space("nas-bench-201")
    kept = [op for op in cells.slot_entries.ops if op.kind not in ("conv_add", "add")]
    entries = tuple(TableEntry(op, 0.1, 0.001, 3, 9) for op in kept)
    lacking = LookupTable(target, SpaceReference.of(cells), entries)
    archs = [
        cells.arch_from_string(text)
        for text in (
            "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|avg_pool_3x3~0|none~1|none~2|",
            "|nor_conv_3x3~0|+|none~0|none~1|+|avg_pool_3x3~0|nor_conv_1x1~1|none~2|",
        )
    ]
    # The first has two convolutions that lead nowhere: 15 poolings and the ends of the network.
    assert lacking.predict(cells.batch(archs[:1])).mean_ms == pytest.approx(0.1 * (15 + 4))
    with pytest.raises(UnknownOpError, match="conv_add"):
        lacking.predict(cells.batch(archs[1:]))


def test_costs_and_features_count_what_is_run(cells, batch):
    costs, features = space_costs(batch), arch_features(batch)
    macs = features.totals[:, total_names(cells).index("macs")]
    for row, arch in itertools.islice(enumerate(cells.archs(batch)), 10):
        cost = network_cost(cells.network(arch))
        assert costs.macs[row] == macs[row] == cost.macs
        assert costs.parameters[row] == cost.parameters


def test_the_fastest_architecture_is_found_exactly(table, cells: SearchSpace):
    from latlas_nas.search.minimum import least_sum

    fastest = least_sum(cells, table.op_latencies(cells))
    sample = table.predict(cells.sample(2000, np.random.default_rng(2))).mean_ms
    assert table.predict(fastest).mean_ms[0] <= sample.min()
