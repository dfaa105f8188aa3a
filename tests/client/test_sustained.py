"""The first minute of a sustained measurement beside its last."""

from __future__ import annotations

import pytest

from latlas.records import VisitSummary
from latlas.sustained import sustained
from latlas_ops.errors import MeasurementError

SECOND_NS = 1_000_000_000


def visits(*medians_ms: float, throttled_from: int = 1000) -> list[VisitSummary]:
    """A visit a second, each a second long."""
    return [
        VisitSummary(
            number,
            "board",
            number * SECOND_NS,
            round(ms * 1e6),
            round(1000 / ms),
            left_out=number >= throttled_from,
            flags=("throttled",) if number >= throttled_from else (),
        )
        for number, ms in enumerate(medians_ms)
    ]


def test_a_minute_is_compared_with_a_minute() -> None:
    found = sustained(visits(*[10.0] * 300, *[20.0] * 300, throttled_from=250))
    assert found.duration_s == pytest.approx(600)
    assert (found.window_s, found.first_ms, found.last_ms, found.ratio) == (60, 10.0, 20.0, 2.0)
    assert (found.n_visits, found.n_throttled, found.first_throttled_s) == (600, 350, 250.0)


def test_a_short_measurement_is_compared_by_thirds() -> None:
    found = sustained(visits(10.0, 10.0, 11.0, 11.0, 12.0, 12.0))
    assert found.window_s == pytest.approx(2, abs=0.01)
    assert (found.first_ms, found.last_ms) == (10.0, 12.0)
    assert found.first_throttled_s is None


def test_too_few_visits_compare_nothing() -> None:
    with pytest.raises(MeasurementError, match="2 visits are too few"):
        sustained(visits(10.0, 10.0))
