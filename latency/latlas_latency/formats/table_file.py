"""The file of a lookup table: one JSON document, an entry a line.

```
{"format": "latlas-table", "version": 1,
 "target": {...},                          what the figures are valid for
 "space": {"name", "version"} or null,
 "calibration": {"intercept_ms", "slope",  the line from sums of entries to latencies (ms)
                 "covariance",             of intercept and slope, two rows of two
                 "residual",               relative standard deviation of a network about the line
                 "n_networks",             that the line was fitted to
                 "entry_noise",            share of the residual that the entries bring
                 "session_error"}          of another session than that of the calibration
                or null,
 "conditions": {"first_visit_ns", "last_visit_ns",     Unix time
                "device_ids", "n_rounds", "n_profiled_networks",
                "label_noise", "common_mode_free_noise",   fractions or null
                "drift_removed",
                "profiler_cost": {"per_node_ns", "per_run_ns", "n_networks", "node_share"},
                "remainder_share", "n_visits", "n_left_out", "n_disturbed",
                "n_suspicions", "n_suspicions_revisited", "n_suspicions_open",
                "surroundings": {"per_weight_mb_ms", "per_node_ms"},
                "method": "in-situ", "chained" or "alone"} or null,
 "validation": {...} or null,              see `latlas_latency.validation`; all fractions
 "interpolation_check":                    of tables with ops to interpolate, else left out
                {"n_networks", "mape", "excess"},
 "entries": [{"op": {"attributes", "dtype", "inputs", "kind"},
              "mean_ms", "spread_ms", "n_occurrences", "n_visits",
              "kind": "measured" or "interpolated",
              "shared_error",                of interpolated entries only: what they have in common
              "error_ms"}, ...]}             of entries from chains and frames only: standard error
```

A network's latency in milliseconds is `intercept_ms + slope · Σ mean_ms` over its ops; without a
calibration the plain sum, which is biased low. Shapes of `inputs` are `[channels, height, width]`
or `[features]`, without the batch axis.

History: version 1, the first.
"""

from __future__ import annotations

import dataclasses
import json

from latlas_latency.calibration import Calibration
from latlas_latency.entries import INTERPOLATED
from latlas_latency.formats.fields import Fields, parse_object, require_format
from latlas_latency.formats.records import (
    AFFINE_FIELDS,
    Record,
    affine_from,
    affine_record,
    space_from,
    space_record,
    target_from,
    validation_from,
    validation_record,
    without_nan,
)
from latlas_latency.interpolation_error import InterpolationCheck
from latlas_latency.methods import IN_SITU
from latlas_latency.profiler_cost import ProfilerCost
from latlas_latency.surroundings import SurroundingsCost
from latlas_latency.table import LookupTable, TableConditions, TableEntry
from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import OpSpec

FORMAT = "latlas-table"
VERSION = 1

_HEAD = ("format", "version", "target", "space", "calibration", "conditions", "validation")
_ENTRY_FIELDS = tuple(field.name for field in dataclasses.fields(TableEntry))
_CHECK_FIELDS = tuple(field.name for field in dataclasses.fields(InterpolationCheck))
_CALIBRATION_FIELDS = (*AFFINE_FIELDS, "entry_noise", "session_error")
_LATER_CONDITIONS = {
    "n_visits": 0,
    "n_left_out": 0,
    "n_disturbed": 0,
    "n_suspicions": 0,
    "n_suspicions_revisited": 0,
    "n_suspicions_open": 0,
    "surroundings": {"per_weight_mb_ms": 0.0, "per_node_ms": 0.0},
    "method": IN_SITU,
}
"""What the conditions of a table lack whose file was written before these fields were."""

_CONDITION_FIELDS = tuple(field.name for field in dataclasses.fields(TableConditions))
_COST_FIELDS = tuple(field.name for field in dataclasses.fields(ProfilerCost))


def dump(table: LookupTable) -> bytes:
    """The table as JSON; equal tables give equal bytes."""
    head = {
        "format": FORMAT,
        "version": VERSION,
        "target": table.target.to_dict(),
        "space": space_record(table.space),
        "calibration": _calibration_record(table.calibration),
        "conditions": _conditions_record(table.conditions),
        "validation": validation_record(table.validation),
    }
    if table.interpolation_check is not None:
        head["interpolation_check"] = dataclasses.asdict(table.interpolation_check)
    lines = [f" {json.dumps(name)}: {_compact(value)}," for name, value in head.items()]
    entries = ",\n".join(f"  {_compact(_entry_record(entry))}" for entry in table.entries)
    return ("{\n" + "\n".join(lines) + '\n "entries": [\n' + entries + "\n ]\n}\n").encode()


def load(data: bytes) -> LookupTable:
    """The table of `dump`.

    Raises:
        InvalidInputError: not such a file, or something in it is wrong; the message says what.
    """
    record = parse_object(data, "latency table")
    require_format(record, FORMAT, VERSION)
    record = Fields(
        {"interpolation_check": None, **record.as_dict()},
        record.path,
        (*_HEAD, "interpolation_check", "entries"),
    )
    entries = tuple(_entry_from(row) for row in record.rows("entries"))
    space = record.optional_fields("space", ("name", "version"))
    calibration = record.optional_fields("calibration")
    try:
        return LookupTable(
            target=target_from(record.fields("target")),
            space=None if space is None else space_from(space),
            entries=entries,
            calibration=_calibration_from(calibration),
            conditions=_conditions_from(record.optional_fields("conditions")),
            validation=validation_from(record.optional_fields("validation")),
            interpolation_check=_check_from(
                record.optional_fields("interpolation_check", _CHECK_FIELDS)
            ),
        )
    except InvalidInputError as error:
        if str(error).startswith(record.path):
            raise
        raise InvalidInputError(f"{record.path}: {error}") from error


def _compact(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def _entry_record(entry: TableEntry) -> Record:
    record = {
        "op": json.loads(entry.op.key),
        "mean_ms": entry.mean_ms,
        "spread_ms": entry.spread_ms,
        "n_occurrences": entry.n_occurrences,
        "n_visits": entry.n_visits,
        "kind": entry.kind,
    }
    if entry.kind == INTERPOLATED:
        record["shared_error"] = entry.shared_error
    if entry.error_ms is not None:
        record["error_ms"] = entry.error_ms
    return record


def _entry_from(record: Fields) -> TableEntry:
    states_error = "error_ms" in record.as_dict()
    later = {"shared_error": 0.0, "error_ms": None}
    record = Fields({**later, **record.as_dict()}, record.path, _ENTRY_FIELDS)
    try:
        return TableEntry(
            op=OpSpec.from_key(json.dumps(record.value("op"))),
            mean_ms=record.number("mean_ms"),
            spread_ms=record.number("spread_ms"),
            n_occurrences=record.integer("n_occurrences"),
            n_visits=record.integer("n_visits"),
            kind=record.text("kind"),
            shared_error=record.number("shared_error", 0),
            error_ms=record.number("error_ms", 0) if states_error else None,
        )
    except InvalidInputError as error:
        if str(error).startswith(record.path):
            raise
        raise InvalidInputError(f"{record.path}: {error}") from error


def _check_from(record: Fields | None) -> InterpolationCheck | None:
    if record is None:
        return None
    return InterpolationCheck(
        n_networks=record.integer("n_networks", 1),
        mape=record.number("mape", 0),
        excess=record.number("excess", 0),
    )


def _calibration_record(calibration: Calibration | None) -> Record | None:
    if calibration is None:
        return None
    return {
        **affine_record(calibration.fit),
        "entry_noise": calibration.entry_noise,
        "session_error": calibration.session_error,
    }


def _calibration_from(record: Fields | None) -> Calibration | None:
    if record is None:
        return None
    record = Fields({"session_error": 0.0, **record.as_dict()}, record.path, _CALIBRATION_FIELDS)
    return Calibration(
        affine_from(record), record.number("entry_noise", 0), record.number("session_error", 0)
    )


def _conditions_record(conditions: TableConditions | None) -> Record | None:
    return None if conditions is None else without_nan(dataclasses.asdict(conditions))


def _conditions_from(record: Fields | None) -> TableConditions | None:
    if record is None:
        return None
    record = Fields({**_LATER_CONDITIONS, **record.as_dict()}, record.path, _CONDITION_FIELDS)
    cost = record.fields("profiler_cost", _COST_FIELDS)
    surroundings = record.fields("surroundings", ("per_weight_mb_ms", "per_node_ms"))
    return TableConditions(
        first_visit_ns=record.integer("first_visit_ns"),
        last_visit_ns=record.integer("last_visit_ns"),
        device_ids=record.texts("device_ids"),
        n_rounds=record.integer("n_rounds"),
        n_profiled_networks=record.integer("n_profiled_networks"),
        label_noise=record.number_or_nan("label_noise"),
        common_mode_free_noise=record.number_or_nan("common_mode_free_noise"),
        drift_removed=record.flag("drift_removed"),
        profiler_cost=ProfilerCost(
            cost.number("per_node_ns", 0),
            cost.number("per_run_ns", 0),
            cost.integer("n_networks"),
            cost.number("node_share", 0),
        ),
        remainder_share=record.number("remainder_share", 0),
        n_visits=record.integer("n_visits"),
        n_left_out=record.integer("n_left_out"),
        n_disturbed=record.integer("n_disturbed"),
        n_suspicions=record.integer("n_suspicions"),
        n_suspicions_revisited=record.integer("n_suspicions_revisited"),
        n_suspicions_open=record.integer("n_suspicions_open"),
        surroundings=SurroundingsCost(
            surroundings.number("per_weight_mb_ms", 0), surroundings.number("per_node_ms")
        ),
        method=record.text("method"),
    )
