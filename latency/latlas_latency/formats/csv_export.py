"""A lookup table as comma-separated values, one row per op."""

from __future__ import annotations

import csv
import io

from latlas_latency.table import LookupTable

_COLUMNS = (
    "op_key",
    "kind",
    "latency_ms",
    "entry_ms",
    "spread_ms",
    "n_occurrences",
    "n_visits",
    "source",
)


def table_to_csv(table: LookupTable) -> str:
    """The table with a header row.

    `latency_ms` carries the calibration's slope, `entry_ms` does not. Lines that begin with `#`
    say what the figures are valid for and what a network costs beyond its ops.
    """
    slope = table.calibration.fit.slope if table.calibration else 1.0
    intercept_ms = table.calibration.fit.intercept if table.calibration else 0.0
    stream = io.StringIO()
    conditions = ", ".join(f"{name}={value}" for name, value in table.target.conditions().items())
    stream.write(f"# target {table.target.name}: {conditions}\n")
    stream.write(f"# network_ms = {intercept_ms!r} + sum of latency_ms over its ops\n")
    for caveat in table.caveats:
        stream.write(f"# {caveat}\n")
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
                entry.n_occurrences,
                entry.n_visits,
                entry.kind,
            )
        )
    return stream.getvalue()
