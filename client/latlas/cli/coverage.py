"""How much of its space a table has measured, and how far interpolating the rest would err."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from latlas.cli.output import percent, print_table
from latlas_latency.interpolation import RESOLUTION
from latlas_ops.errors import NotFoundError
from latlas_ops.opspec import OpSpec
from latlas_ops.spaces import get_space

if TYPE_CHECKING:
    from latlas_latency.interpolation_error import InterpolationCheck, InterpolationError
    from latlas_latency.table import LookupTable


def coverage_record(table: LookupTable) -> dict[str, object]:
    """A table's coverage for JSON.

    `n_missing` counts ops of its space without an entry, `n_between` those of them that could be
    interpolated; both are null where the space is not known. `errors` come from entries left out,
    `check` from whole networks with interpolated ops.
    """
    missing = _missing(table)
    return {
        "n_interpolated": table.n_interpolated,
        "n_missing": None if missing is None else len(missing),
        "n_between": None if missing is None else _n_between(table, missing),
        "errors": table.interpolation.errors,
        "check": table.interpolation_check,
    }


def print_coverage(table: LookupTable) -> None:
    """Prints what is missing, what is interpolated, and the errors of interpolating."""
    print()
    for line in _lines(table):
        print(line)
    print("Entries left out and interpolated between the others:")
    print_table(
        ("OVER", "KIND", "ENTRIES", "MEDIAN", "90 % WITHIN", "EACH", "IN COMMON"),
        (_row(error, table.interpolation_check) for error in table.interpolation.errors),
        empty="",
    )


def _lines(table: LookupTable) -> Iterator[str]:
    if table.n_interpolated:
        yield f"{table.n_interpolated} of {len(table.entries)} entries are interpolated."
    missing = _missing(table)
    if missing:
        yield (
            f"{len(missing)} ops of the space were not measured; {_n_between(table, missing)} of "
            "them lie between measured ones, so that --interpolate can fill them in."
        )
    check = table.interpolation_check
    if check is not None:
        yield (
            f"{check.n_networks} whole networks with interpolated ops: mean absolute error "
            f"{percent(check.mape)}."
        )


def _row(error: InterpolationError, check: InterpolationCheck | None) -> tuple[object, ...]:
    assumed = "" if error.known else " (assumed)"
    told = check is not None and error.axis == RESOLUTION
    return (
        error.axis,
        error.kind,
        error.n_entries,
        "-" if math.isnan(error.median) else percent(error.median),
        "-" if math.isnan(error.p90) else percent(error.p90),
        percent(error.scatter) + assumed,
        percent(error.shared) + ("" if told else assumed),
    )


def _missing(table: LookupTable) -> tuple[OpSpec, ...] | None:
    """Ops of the table's space that it has no entry for; None if the space is not known."""
    try:
        return None if table.space is None else table.missing(get_space(table.space.name))
    except NotFoundError:
        return None


def _n_between(table: LookupTable, missing: tuple[OpSpec, ...]) -> int:
    return sum(map(table.interpolation.reaches, missing))
