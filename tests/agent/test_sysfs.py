from __future__ import annotations

import pytest

from latlas_agent.sysfs import plausible_celsius, to_float


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.52", 0.52), (" 38\n", 38.0), ("-7", -7.0), ("", None), ("hot", None)],
)
def test_a_number_is_read_and_any_other_text_is_none(text: str, value: float | None) -> None:
    assert to_float(text) == value


@pytest.mark.parametrize("text", ["nan", "inf", "-infinity", "1e999"])
def test_what_is_not_finite_is_no_number(text: str) -> None:
    assert to_float(text) is None


@pytest.mark.parametrize("value", [-273.1, -50.0, 200.0, 3276.7, None])
def test_a_temperature_that_no_board_survives_is_none(value: float | None) -> None:
    assert plausible_celsius(value) is None
    assert plausible_celsius(61.85) == 61.85
