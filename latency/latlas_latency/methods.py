"""The ways of measuring the ops of a lookup table, by name."""

from __future__ import annotations

from collections.abc import Mapping

from latlas_ops.errors import InvalidInputError

IN_SITU = "in-situ"
"""Node times of whole networks; needs a runtime that times single nodes."""

CHAINED = "chained"
"""Each op repeated inside one model, at several lengths; see `latlas_latency.chains`."""

ALONE = "alone"
"""Each op in a model of its own: the fallback, biased."""

METHODS = (IN_SITU, CHAINED, ALONE)

REMARKS: Mapping[str, str] = {
    CHAINED: "measured in chains: each op repeated inside models of its own, not in whole networks",
    ALONE: (
        "measured alone: each op in a model of its own, with its weights in the cache and the "
        "cost of a call on top"
    ),
}
"""What a reader of a table must know of a method that does not measure ops where they are used."""


def require_method(method: str) -> None:
    """Raises `InvalidInputError` unless `method` is one of `METHODS`."""
    if method not in METHODS:
        raise InvalidInputError(f"no method is called {method!r}; there are {', '.join(METHODS)}")
