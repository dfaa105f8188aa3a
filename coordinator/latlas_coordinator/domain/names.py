"""Names that users choose."""

from __future__ import annotations

import re

from latlas_ops.errors import InvalidInputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(what: str, name: str) -> str:
    """`name` unchanged; raises `InvalidInputError` unless it is one plain word."""
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            f"{what} name {name!r} must be at most 100 letters, digits, '.', '_' or '-' and start "
            "with a letter or digit"
        )
    return name
