"""The file of a lookup table: one JSON document.

```
{"format": "latlas-table", "version": 1,
 "target": {...}, "space": {"name", "version"} or null,
 "calibration": {"intercept_ms", "slope", "covariance", "residual", "n_networks", "entry_noise"}
                or null,
 "conditions": {...} or null, "validation": {...} or null,
 "entries": [{"op": {"kind", "attributes", "inputs", "dtype"}, "mean_ms", "spread_ms",
              "n_occurrences", "n_visits", "kind"}, ...]}
```

A network's latency in milliseconds is `intercept_ms + slope · Σ mean_ms` over its ops.

History: version 1, the first.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

from latlas_latency.calibration import AffineFit, Calibration
from latlas_latency.formats.records import (
    space_from,
    space_record,
    validation_from,
    validation_record,
)
from latlas_latency.measurement.target import Target
from latlas_latency.profiler_cost import ProfilerCost
from latlas_latency.table import LookupTable, TableConditions, TableEntry
from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import OpSpec

FORMAT = "latlas-table"
VERSION = 1


def dump(table: LookupTable) -> bytes:
    """The table as JSON, one line per entry."""
    head = {
        "format": FORMAT,
        "version": VERSION,
        "target": table.target.to_dict(),
        "space": space_record(table.space),
        "calibration": _calibration_record(table.calibration),
        "conditions": _conditions_record(table.conditions),
        "validation": validation_record(table.validation),
    }
    lines = [
        f" {json.dumps(name)}: {json.dumps(value, allow_nan=False)},"
        for name, value in head.items()
    ]
    entries = ",\n".join("  " + json.dumps(_entry_record(entry)) for entry in table.entries)
    return ("{\n" + "\n".join(lines) + '\n "entries": [\n' + entries + "\n ]\n}\n").encode()


def load(data: bytes) -> LookupTable:
    """The table of `dump`.

    Raises:
        InvalidInputError: not such a file, damaged, or of a newer version.
    """
    try:
        record = json.loads(data)
    except ValueError as error:
        raise InvalidInputError(f"not a latency table: {error}") from error
    if record.get("format") != FORMAT:
        raise InvalidInputError(f"not a latency table: its format is {record.get('format')!r}")
    if record.get("version") != VERSION:
        raise InvalidInputError(
            f"latency table of version {record.get('version')!r}; this Latlas reads version "
            f"{VERSION}"
        )
    try:
        return LookupTable(
            target=Target.from_dict(record["target"]),
            space=space_from(record["space"]),
            entries=tuple(_entry_from(entry) for entry in record["entries"]),
            calibration=_calibration_from(record["calibration"]),
            conditions=_conditions_from(record["conditions"]),
            validation=validation_from(record["validation"]),
        )
    except KeyError as error:
        raise InvalidInputError(f"damaged latency table: {error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(f"damaged latency table: {error}") from error


def _entry_record(entry: TableEntry) -> dict[str, Any]:
    return {
        "op": json.loads(entry.op.key),
        "mean_ms": entry.mean_ms,
        "spread_ms": entry.spread_ms,
        "n_occurrences": entry.n_occurrences,
        "n_visits": entry.n_visits,
        "kind": entry.kind,
    }


def _entry_from(record: dict[str, Any]) -> TableEntry:
    values = dict(record)
    op = OpSpec.from_key(json.dumps(values.pop("op")))
    return TableEntry(op=op, **values)


def _calibration_record(calibration: Calibration | None) -> dict[str, Any] | None:
    if calibration is None:
        return None
    fit = calibration.fit
    return {
        "intercept_ms": fit.intercept,
        "slope": fit.slope,
        "covariance": [list(row) for row in fit.covariance],
        "residual": fit.residual,
        "n_networks": fit.n_networks,
        "entry_noise": calibration.entry_noise,
    }


def _calibration_from(record: dict[str, Any] | None) -> Calibration | None:
    if record is None:
        return None
    (a, b), (c, d) = record["covariance"]
    fit = AffineFit(
        float(record["intercept_ms"]),
        float(record["slope"]),
        ((float(a), float(b)), (float(c), float(d))),
        float(record["residual"]),
        int(record["n_networks"]),
    )
    return Calibration(fit, float(record["entry_noise"]))


_NOISE_FIELDS = ("label_noise", "common_mode_free_noise")


def _conditions_record(conditions: TableConditions | None) -> dict[str, Any] | None:
    if conditions is None:
        return None
    record = dataclasses.asdict(conditions)
    record["device_ids"] = list(conditions.device_ids)
    for name in _NOISE_FIELDS:
        record[name] = None if math.isnan(record[name]) else record[name]
    return record


def _conditions_from(record: dict[str, Any] | None) -> TableConditions | None:
    if record is None:
        return None
    values = dict(record)
    values["device_ids"] = tuple(values["device_ids"])
    values["profiler_cost"] = ProfilerCost(**values["profiler_cost"])
    for name in _NOISE_FIELDS:
        values[name] = math.nan if values[name] is None else values[name]
    return TableConditions(**values)
