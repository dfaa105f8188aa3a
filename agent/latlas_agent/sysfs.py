"""Small reads from `/proc` and `/sys`, under a root directory that tests can point elsewhere.

And how figures in what a system prints are read: what makes no sense is None, and nothing raises.
"""

from __future__ import annotations

import math
from pathlib import Path

ROOT = Path("/")
"""Where the kernel's files are on a real board."""

_PLAUSIBLE_CELSIUS = (-50.0, 200.0)


def to_float(text: str) -> float | None:
    """The finite number that a text is; None if it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def plausible_celsius(value: float | None) -> float | None:
    """A temperature between -50 and 200 °C; None if it is another, as of a broken sensor."""
    low, high = _PLAUSIBLE_CELSIUS
    return value if value is not None and low < value < high else None


def read_text(path: Path) -> str | None:
    """The text of a file without surrounding white space and NULs; None if unreadable or empty."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.strip("\0 \t\r\n") or None


def read_int(path: Path, base: int = 10) -> int | None:
    """The integer in a file; None if there is none."""
    text = read_text(path)
    try:
        return None if text is None else int(text, base)
    except ValueError:
        return None


def read_fields(path: Path, separator: str = ":") -> dict[str, str]:
    """Lines `key: value` of a file, the first of each key; empty if unreadable."""
    fields: dict[str, str] = {}
    for line in (read_text(path) or "").splitlines():
        key, found, value = line.partition(separator)
        if found:
            fields.setdefault(key.strip(), value.strip())
    return fields


def read_meminfo_bytes(root: Path, field: str) -> int | None:
    """A field of `/proc/meminfo` in bytes; None if it is not there."""
    words = read_fields(root / "proc/meminfo").get(field, "").split()
    return int(words[0]) * 1024 if words and words[0].isdigit() else None


def read_nvpmodel(root: Path) -> str | None:
    """The power mode that `nvpmodel` set on a Jetson board; None elsewhere."""
    mode = read_fields(root / "var/lib/nvpmodel/status").get("pmode", "")
    return f"nvpmodel-{int(mode)}" if mode.isdigit() else None
