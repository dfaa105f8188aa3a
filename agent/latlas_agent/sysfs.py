"""Small reads from `/proc` and `/sys`, under a root directory that tests can point elsewhere."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/")
"""Where the kernel's files are on a real board."""


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
