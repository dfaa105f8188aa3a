"""A lookup table as comma-separated values, one row per op.

Columns: `op_key` (canonical JSON), `kind` of the op, `latency_ms` (calibrated), `entry_ms` (before
calibration), `spread_ms` of single visits about the entry (of an interpolated one: the standard
error of its own), `error_ms` (standard error of `entry_ms`; of an interpolated one without what it
shares with the others), `n_occurrences`, `n_visits`, and `source` (`measured` or `interpolated`).
Lines that begin with `#`, before the header row, say what the figures are valid for and what a
network costs beyond its ops.
"""

from __future__ import annotations

import csv
import io

from latlas_latency.entries import relative_errors
from latlas_latency.table import LookupTable

_COLUMNS = (
    "op_key",
    "kind",
    "latency_ms",
    "entry_ms",
    "spread_ms",
    "error_ms",
    "n_occurrences",
    "n_visits",
    "source",
)


def table_to_csv(table: LookupTable) -> str:
    """The table as text: comments, a header row, and one row per op sorted by key."""
    slope, intercept_ms = 1.0, 0.0
    if table.calibration is not None:
        slope, intercept_ms = table.calibration.fit.slope, table.calibration.fit.intercept
    stream = io.StringIO()
    conditions = ", ".join(f"{name}={value}" for name, value in table.target.conditions().items())
    stream.write(f"# target {table.target.name}: {conditions}\n")
    stream.write(f"# network_ms = {intercept_ms!r} + sum of latency_ms over its ops\n")
    for remark in table.remarks:
        stream.write(f"# {remark}\n")
    errors = relative_errors(table.entries)
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for entry in table.entries:
        writer.writerow(
            (
                entry.op.key,
                entry.op.kind,
                repr(slope * entry.mean_ms),
                repr(entry.mean_ms),
                repr(entry.spread_ms),
                repr(errors[entry.op] * entry.mean_ms),
                entry.n_occurrences,
                entry.n_visits,
                entry.kind,
            )
        )
    return stream.getvalue()
