"""How commands print: aligned columns for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal


def print_json(value: object) -> None:
    """Prints values, records and lists of them as JSON; what is not a number becomes null."""
    print(json.dumps(_plain(value), indent=2, allow_nan=False))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Prints left-aligned columns, or the line `empty` if there are no rows."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        print(empty)
        return
    lines = [list(headers), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    for line in lines:
        print("  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)).rstrip())


def print_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Prints one `name  value` line each, values aligned."""
    pairs = list(pairs)
    width = max((len(name) for name, _ in pairs), default=0)
    for name, value in pairs:
        print(f"{name:<{width}}  {value}".rstrip())


def local_time(ns: int) -> str:
    """A Unix time in nanoseconds as local date and time."""
    if ns <= 0:
        return "-"
    return datetime.fromtimestamp(ns / 1e9).strftime("%Y-%m-%d %H:%M:%S")


def milliseconds(value: float | None) -> str:
    """A latency with its unit."""
    return "-" if value is None else f"{value:.3f} ms"


def percent(value: float) -> str:
    """A fraction as per cent; `-` for what is not a number."""
    return f"{value:.1%}".replace("%", " %") if math.isfinite(value) else "-"


def magnitude(value: int) -> str:
    """A whole number of any size in the form `2.2e19`."""
    return f"{Decimal(value):.1e}".replace("e+", "e")
