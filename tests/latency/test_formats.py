"""Files of latency models: what is written is read again, and damage is named."""

from __future__ import annotations

import numpy as np
import pytest

from latlas_latency.formats import dump_latency_model, export_latency_model, load_latency_model
from latlas_latency.measurement import Target
from latlas_latency.predictors.linear import fit_linear
from latlas_latency.predictors.macs import fit_macs
from latlas_latency.predictors.mlp import fit_mlp
from latlas_latency.table import LookupTable, TableEntry
from latlas_ops.costs import space_costs
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import ArchBatch
from latlas_ops.spaces import get_space

SPACE = get_space("digits")
TARGET = Target("here", "board", "onnxruntime", "1.32.0", "CPUExecutionProvider")


def samples(n_archs: int = 90) -> tuple[ArchBatch, np.ndarray]:
    rng = np.random.default_rng(0)
    batch = SPACE.sample(n_archs, rng)
    costs = space_costs(batch)
    latency_ms = 0.3 + costs.macs / 2e7 + np.sqrt(costs.activation_bytes) / 1e3
    return batch, latency_ms * np.exp(rng.normal(0, 0.01, n_archs))


def table() -> LookupTable:
    entries = tuple(
        TableEntry(op, 0.01 * (index + 1), 0.001, 3, 9)
        for index, op in enumerate(SPACE.slot_entries.ops)
    )
    return LookupTable(TARGET, None, entries)


@pytest.mark.parametrize("kind", ["mlp", "linear", "macs"])
def test_a_predictor_predicts_the_same_after_its_file(kind: str) -> None:
    batch, latency_ms = samples()
    if kind == "mlp":
        model = fit_mlp(batch, latency_ms, TARGET, seed=1)
    else:
        model = (fit_linear if kind == "linear" else fit_macs)(batch, latency_ms, TARGET)
    data = dump_latency_model(model)
    again = load_latency_model(data)
    assert dump_latency_model(again) == data
    np.testing.assert_array_equal(again.predict(batch).upper_ms, model.predict(batch).upper_ms)


def test_a_table_predicts_the_same_after_its_file() -> None:
    data = dump_latency_model(table())
    again = load_latency_model(data)
    assert dump_latency_model(again) == data
    np.testing.assert_array_equal(
        again.predict(SPACE.extremes()).mean_ms, table().predict(SPACE.extremes()).mean_ms
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a latency model"),
        (b"{", "not a latency table"),
        (b'{"format": "other"}', "its format is 'other'"),
        (b'{"format": "latlas-table", "version": 99}', "this Latlas reads version 1"),
        (b'{"format": "latlas-table", "version": 1}', "'target' is missing"),
        (b"PK broken", "damaged latency predictor"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_latency_model(data)
    assert "\n" not in str(caught.value)


def test_csv_has_one_row_per_op() -> None:
    data, suffix = export_latency_model(table(), "csv", SPACE)
    rows = [line for line in data.decode().splitlines() if not line.startswith("#")]
    assert suffix == ".csv"
    assert len(rows) == 1 + len(SPACE.slot_entries.ops)


def test_ofa_yaml_keys_have_the_form_of_ofa() -> None:
    data, _ = export_latency_model(table(), "ofa-yaml", SPACE)
    key = next(line for line in data.decode().splitlines() if line.startswith("expanded_conv"))
    parts = [part.split(":")[0] for part in key.rstrip(":").split("-")]
    assert parts == [
        "expanded_conv",
        "input",
        "output",
        "expand",
        "kernel",
        "stride",
        "idskip",
        "se",
        "hs",
    ]


def test_a_predictor_has_no_rows_to_export() -> None:
    batch, latency_ms = samples()
    with pytest.raises(InvalidInputError, match="use 'latlas'"):
        export_latency_model(fit_macs(batch, latency_ms, TARGET), "csv", SPACE)
