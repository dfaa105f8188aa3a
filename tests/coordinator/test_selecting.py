"""Networks that a search with a latency model would pick."""

import numpy as np
import pytest

from latlas_coordinator.selecting import select_networks
from latlas_latency.measurement import Target
from latlas_latency.table import LookupTable, TableEntry
from latlas_ops import get_space
from latlas_ops.costs import op_cost, space_costs

SPACE = get_space("digits")
TARGET = Target("t", "board", "onnxruntime", "1", "CPUExecutionProvider")


def table(factor=lambda op: 1.0):
    entries = tuple(
        TableEntry(op, (1e-3 + op_cost(op).macs * 1e-8) * factor(op), 1e-5, 3, 9)
        for op in SPACE.slot_entries.ops
    )
    return LookupTable(TARGET, None, entries)


@pytest.fixture(scope="module")
def selected():
    return select_networks(SPACE, table(), 12, np.random.default_rng(0))


def test_they_spread_over_the_latencies_of_random_networks(selected):
    model = table()
    random_ms = model.predict(SPACE.sample(2000, np.random.default_rng(1))).mean_ms
    found_ms = np.sort(model.predict(selected).mean_ms)
    low, high = np.quantile(random_ms, [0.05, 0.95])
    # One limit in each of twelve equal parts, and winners go nearly as far as they may.
    assert found_ms[0] < low + 1.1 * (high - low) / 12
    assert found_ms[-1] > high - 2 * (high - low) / 12
    assert found_ms.max() <= 1.01 * high
    assert len(np.unique(selected.genes, axis=0)) == 12


def test_they_go_where_the_model_errs_low():
    def kernel(op):
        return dict(op.attributes).get("kernel")

    def share_of_seven(batch):
        kernels = [kernel(op) for arch in SPACE.archs(batch) for op in SPACE.ops(arch)]
        blocks = [value for value in kernels if value in (3, 5, 7)]
        return blocks.count(7) / len(blocks)

    fair = select_networks(SPACE, table(), 8, np.random.default_rng(0))
    blind = table(lambda op: 0.3 if kernel(op) == 7 else 1.0)
    fooled = select_networks(SPACE, blind, 8, np.random.default_rng(0))
    assert share_of_seven(fooled) > share_of_seven(fair) + 0.1


def test_they_are_large_for_their_latency(selected):
    # The figures grow with the MACs of an op, so that what costs least per MAC is to be found.
    model = table(lambda op: 0.5 if dict(op.attributes).get("kernel") == 5 else 1.0)
    found = select_networks(SPACE, model, 6, np.random.default_rng(0))
    pool = SPACE.sample(4000, np.random.default_rng(2))
    pool_ms, pool_macs = model.predict(pool).mean_ms, space_costs(pool).macs
    for ms, macs in zip(model.predict(found).mean_ms, space_costs(found).macs, strict=True):
        alike = np.abs(pool_ms / ms - 1) < 0.05
        assert macs > np.quantile(pool_macs[alike], 0.9)


def test_the_same_seed_selects_the_same(selected):
    again = select_networks(SPACE, table(), 12, np.random.default_rng(0))
    np.testing.assert_array_equal(again.genes, selected.genes)
