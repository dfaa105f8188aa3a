"""What the pages say is in a package is in it."""

from __future__ import annotations

import pkgutil

NO_NAMES = {"latlas.db", "latlas.runtimes"}
"""A file, and the entry-point group of runtime plug-ins."""


def test_a_name_in_running_text_exists(dotted_name) -> None:
    if dotted_name.text not in NO_NAMES:
        pkgutil.resolve_name(dotted_name.text)
