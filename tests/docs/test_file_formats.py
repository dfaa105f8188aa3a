"""`docs/file-formats.md` names everything that stands in the files, and its formulas hold."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import latlas
from latlas_latency.calibration import Calibration, fit_affine
from latlas_latency.entries import INTERPOLATED, MEASURED
from latlas_latency.formats import dump_latency_model, export_latency_model
from latlas_latency.interpolation_error import InterpolationCheck
from latlas_latency.predictors.features import arch_features
from latlas_latency.predictors.linear import fit_linear
from latlas_latency.predictors.macs import fit_macs
from latlas_latency.predictors.mlp import fit_mlp
from latlas_latency.profiler_cost import ProfilerCost
from latlas_latency.space_reference import SpaceReference
from latlas_latency.table import LookupTable, TableConditions, TableEntry
from latlas_latency.validation import Errors, NamedErrors, Validation
from latlas_ops.costs import op_cost, space_costs

SPACE = latlas.get_space("digits")
TARGET = latlas.Target("board", "Board", "onnxruntime", "1.32.0", "CPUExecutionProvider")
ERRORS = dict.fromkeys(Errors.__dataclass_fields__, 0.5) | {"n_networks": 4, "n_pairs": 2}
NAMED = (NamedErrors(**ERRORS, name="some"),)
FIGURES = ERRORS | {
    "interval_coverage": 0.9,
    "interval_level": 0.9,
    "label_noise": 0.01,
    "common_mode_free_noise": 0.01,
    "measured_ns": 1,
    "parts": NAMED,
    "baselines": NAMED,
}


@pytest.fixture(scope="module")
def words(repository: Path) -> set[str]:
    """Every word that the page sets as code."""
    text = (repository / "docs" / "file-formats.md").read_text(encoding="utf-8")
    running = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", running))))


@pytest.fixture(scope="module")
def table() -> LookupTable:
    """A table of made-up figures that has everything a table may have."""
    entries = tuple(
        TableEntry(
            op,
            1e-3 + op_cost(op).macs * 1e-8,
            1e-4,
            3,
            9,
            MEASURED if number else INTERPOLATED,
            error_ms=1e-4 if number else None,
        )
        for number, op in enumerate(SPACE.slot_entries.ops)
    )
    sums = np.array([1.0, 2.0, 4.0])
    return LookupTable(
        TARGET,
        SpaceReference.of(SPACE),
        entries,
        Calibration(fit_affine(sums, 0.1 + 1.05 * sums, "calibration"), 0.01),
        TableConditions(1, 2, ("device",), 3, 4, 0.01, 0.01, True, ProfilerCost(1, 1, 4), 0.0),
        Validation(**FIGURES),
        InterpolationCheck(3, 0.01, 0.0),
    )


@pytest.fixture(scope="module")
def measured() -> tuple[latlas.ArchBatch, np.ndarray]:
    """Architectures and latencies that follow their work, with some noise."""
    rng = np.random.default_rng(0)
    batch = SPACE.sample(40, rng)
    return batch, (0.1 + space_costs(batch).macs * 1e-7) * rng.uniform(0.95, 1.05, 40)


def names(record: Any) -> set[str]:
    """Every name in a JSON value, at any depth; those within ops excepted."""
    if isinstance(record, list):
        return set().union(*map(names, record)) if record else set()
    if not isinstance(record, dict):
        return set()
    inner = [names(value) for name, value in record.items() if name != "op"]
    return set(record).union(*inner)


def test_every_name_of_a_table_is_explained(table: LookupTable, words: set[str]) -> None:
    assert names(json.loads(dump_latency_model(table))) - words == set()
    rows = csv.reader(io.StringIO(export_latency_model(table, "csv", SPACE)[0].decode()))
    header = next(row for row in rows if not row[0].startswith("#"))
    assert set(header) - words == set()


@pytest.mark.parametrize("kind", ["mlp", "linear", "macs"])
def test_every_name_of_a_predictor_is_explained(kind: str, measured, words: set[str]) -> None:
    arrays = saved(fitted(kind, measured))
    assert names(json.loads(arrays["header"].tobytes())) - words == set()
    assert {re.sub(r"\d+$", "L", name) for name in arrays} - words == set()


def test_the_formula_of_the_mlp_gives_its_predictions(measured) -> None:
    predictor = fitted("mlp", measured)
    arrays = saved(predictor)
    model = json.loads(arrays["header"].tobytes())["model"]
    features = arch_features(measured[0])

    linear = np.maximum(
        arrays["intercept_ms"][:, None]
        + arrays["per_total_ms"] @ features.totals.T
        + features.area * (arrays["per_choice_ms"] @ features.choices.T),
        arrays["floor_ms"][:, None],
    )
    logs = np.log(features.totals / arrays["total_means"] + 0.1)
    hidden = np.concatenate([(logs - arrays["offsets"]) * arrays["scales"], features.choices], 1)
    n_layers = sum(name.startswith("weight") for name in arrays)
    for layer in range(n_layers):
        hidden = hidden @ arrays[f"weight{layer}"] + arrays[f"bias{layer}"]
        if layer < n_layers - 1:
            hidden = np.maximum(hidden, 0)
    output = hidden[..., 0]
    mean_ms = np.exp((np.log(linear) + model["shrink"] * model["output_scale"] * output).mean(0))

    found = predictor.predict(measured[0], level=0.9)
    np.testing.assert_allclose(mean_ms, found.mean_ms, rtol=1e-5)
    scores = np.sort(arrays["scores"])
    quantile = scores[int(np.ceil((len(scores) + 1) * 0.9)) - 1]
    width = np.hypot(quantile, 1.645 * 0.03)
    np.testing.assert_allclose(mean_ms * np.exp(width), found.upper_ms, rtol=1e-5)


def fitted(kind: str, measured: tuple[latlas.ArchBatch, np.ndarray]):
    batch, latency_ms = measured
    if kind == "mlp":
        return fit_mlp(batch, latency_ms, TARGET, seed=0)
    return (fit_linear if kind == "linear" else fit_macs)(batch, latency_ms, TARGET)


def saved(predictor) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(dump_latency_model(predictor)), allow_pickle=False) as archive:
        return dict(archive)
