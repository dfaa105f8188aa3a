"""What every benchmark does with its figures: one table, one JSON record, one exit code."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from latlas.report.figures import Figure

EXIT_FAILED = 1
"""A bar does not hold."""

EXIT_UNUSABLE = 2
"""There is nothing to judge."""


def as_table(shown: Sequence[Figure]) -> str:
    """One line per figure: name, value, bar, whether it holds; and a verdict."""
    rows = [("figure", "value", "bar", "holds")]
    for figure in shown:
        holds = {None: "", True: "yes", False: "NO"}[figure.holds]
        rows.append((figure.name, figure.value_text(), figure.bar_text(), holds))
    names, values, bars, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [
        f"{name:<{names}}  {value:>{values}}  {bar:>{bars}}  {holds}".rstrip()
        for name, value, bar, holds in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    held = [figure.holds for figure in shown if figure.holds is not None]
    lines += ["", f"{sum(held)} of {len(held)} bars hold"]
    return "\n".join(lines)


def as_record(shown: Sequence[Figure]) -> dict[str, list[dict[str, object]]]:
    """The figures as plain values for JSON, in the units of the table."""
    return {
        "figures": [
            {
                "name": figure.name,
                "value": _number(figure.value),
                "unit": figure.unit,
                "bar": figure.bar,
                "direction": None if figure.bar is None else figure.direction,
                "holds": None if figure.holds is None else bool(figure.holds),
            }
            for figure in shown
        ]
    }


def _number(value: float | None) -> float | None:
    """A plain number; None for what could not be determined, which JSON cannot hold."""
    return None if value is None or math.isnan(value) else float(value)


def write_json(shown: Sequence[Figure], path: Path) -> None:
    """Writes `as_record` to a file."""
    path.write_text(json.dumps(as_record(shown), indent=1, allow_nan=False) + "\n")


def exit_code(shown: Sequence[Figure]) -> int:
    """0 when every bar holds, else `EXIT_FAILED`."""
    return EXIT_FAILED if any(figure.holds is False for figure in shown) else 0
