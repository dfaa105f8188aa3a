"""The figures of a finished quickstart, each beside its bar, from the raw arrays of `Results`.

The report page and `bench/loop.py` show these. Nothing here copies a figure that `Results`
merely states where the raw values are there too, so record and figure cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from latlas.quickstart.results import Found, ModelFacts, Results
from latlas_latency.measurement.statistics import mape, spearman
from latlas_ops.errors import InvalidInputError

Direction = Literal["at least", "at most", "above"]

MODEL_NAMES = {
    "table": "lookup table",
    "mlp": "MLP predictor",
    "linear": "linear baseline",
    "macs": "MACs baseline",
}
"""What people call a latency model; another kind is shown by its own name."""

LEAST_VALIDATION_NETWORKS = 30
TABLE_MAPE_PERCENT = 4.0
TABLE_MAPE_NOISES = 2.0
LEAST_TABLE_SPEARMAN = 0.97
LEAST_KENDALL_TAU = 0.5
LEAST_ACCURACY_RANGE_POINTS = 5.0
LEAST_BUDGETS = 3
MOST_MINUTES = 8.0

_HOLDS: dict[Direction, Callable[[float, float], bool]] = {
    "at least": lambda value, bar: value >= bar,
    "at most": lambda value, bar: value <= bar,
    "above": lambda value, bar: value > bar,
}


@dataclass(frozen=True)
class Figure:
    """One figure and, where there is one, the bar that it is held against.

    Attributes:
        name: what the figure is.
        value: the figure in `unit`; None where the record does not determine it.
        unit: `%`, `points` (of accuracy, in percent), `ms`, `min`, or empty for plain numbers.
        bar: the bar in the same unit, None where the figure is only shown.
        direction: how the value must stand to the bar.
    """

    name: str
    value: float | None
    unit: str = ""
    bar: float | None = None
    direction: Direction = "at most"

    @property
    def holds(self) -> bool | None:
        """Whether the value keeps the bar; None without a bar, False without a value."""
        if self.bar is None:
            return None
        return self.value is not None and _HOLDS[self.direction](self.value, self.bar)

    def value_text(self) -> str:
        """The value with its unit, for people."""
        return number_text(self.value, self.unit)

    def bar_text(self) -> str:
        """The bar with its direction and unit, for people; empty without a bar."""
        return "" if self.bar is None else f"{self.direction} {number_text(self.bar, self.unit)}"


def number_text(value: float | None, unit: str) -> str:
    """A number with the decimals its unit deserves: `1.32 %`, `2.40 ms`, `40`."""
    if value is None:
        return "not determined"
    if unit:
        return f"{value:.2f} {unit}"
    return f"{value:.0f}" if float(value).is_integer() and abs(value) >= 2 else f"{value:.3f}"


def model_name(kind: str) -> str:
    """The name of a latency model inside a sentence."""
    return MODEL_NAMES.get(kind, kind)


def heading(text: str) -> str:
    """`text` with a capital at its beginning."""
    return text[:1].upper() + text[1:]


def model_of_kind(results: Results, kind: str) -> ModelFacts:
    """The facts of one latency model.

    Raises:
        InvalidInputError: the results hold no model of that kind.
    """
    for model in results.models:
        if model.kind == kind:
            return model
    present = ", ".join(model.kind for model in results.models) or "none"
    raise InvalidInputError(f"the results hold no latency model {kind!r}; they hold: {present}")


def table_mape_bar_percent(results: Results) -> float:
    """The bar of the table's error: 4 %, or twice the label noise where that is larger."""
    return max(TABLE_MAPE_PERCENT, TABLE_MAPE_NOISES * 100 * results.profile.label_noise)


def figures(results: Results) -> list[Figure]:
    """Every figure of a finished quickstart, in the order in which they are shown.

    Raises:
        InvalidInputError: the results hold no table, or arrays that do not belong together.
    """
    return [
        *_latency_figures(results),
        *_accuracy_figures(results),
        *_search_figures(results.found, results.supernet.n_test_images),
        *_verification_figures(results.found),
        Figure("time of all steps", sum(results.step_seconds.values()) / 60, "min", MOST_MINUTES),
    ]


def _latency_figures(results: Results) -> list[Figure]:
    table = model_of_kind(results, "table")
    measured_ms, predicted_ms = table.measured_ms, table.predicted_ms
    shown = [
        Figure(
            "validation networks that no fit has seen",
            len(measured_ms),
            bar=LEAST_VALIDATION_NETWORKS,
            direction="at least",
        ),
        Figure("the fastest of them", min(measured_ms), "ms"),
        Figure("the slowest of them", max(measured_ms), "ms"),
        Figure("of them between 1 and 5 ms", 100 * _share_within(measured_ms, 1.0, 5.0), "%"),
        Figure("label noise", _finite(100 * results.profile.label_noise), "%"),
        Figure(
            "label noise free of the common mode",
            _finite(100 * results.profile.common_mode_free_noise),
            "%",
        ),
        Figure(
            f"{model_name('table')}: MAPE",
            _finite(100 * mape(measured_ms, predicted_ms)),
            "%",
            table_mape_bar_percent(results),
        ),
        Figure(
            f"{model_name('table')}: Spearman",
            _finite(spearman(measured_ms, predicted_ms)),
            bar=LEAST_TABLE_SPEARMAN,
            direction="at least",
        ),
    ]
    for model in results.models:
        if model.kind != "table":
            error = 100 * mape(model.measured_ms, model.predicted_ms)
            shown.append(Figure(f"{model_name(model.kind)}: MAPE", _finite(error), "%"))
    return shown


def _share_within(values: Sequence[float], least: float, most: float) -> float:
    return sum(least <= value <= most for value in values) / len(values)


def _accuracy_figures(results: Results) -> list[Figure]:
    supernet = results.supernet
    return [
        Figure("subnets held out from the accuracy predictor", supernet.n_labelled),
        Figure(
            "accuracy predictor: Kendall tau on held-out subnets",
            supernet.kendall_tau,
            bar=LEAST_KENDALL_TAU,
            direction="at least",
        ),
        Figure(
            "accuracy of the largest subnet over the smallest",
            100 * (supernet.largest_accuracy - supernet.smallest_accuracy),
            "points",
            LEAST_ACCURACY_RANGE_POINTS,
            "at least",
        ),
    ]


def _search_figures(found: Sequence[Found], n_test_images: int) -> list[Figure]:
    shown = [
        Figure(
            f"budgets searched with the {model_name(kind)}",
            len({one.budget_ms for one in found if one.latency_model == kind}),
            bar=LEAST_BUDGETS,
            direction="at least",
        )
        for kind in ("table", "mlp")
    ]
    for one in found:
        where = f"search minus random search at {place(one)}"
        shown += [
            Figure(
                f"{where}: predicted accuracy",
                100 * (one.predicted_accuracy - one.random_accuracy),
                "points",
                0.0,
                "above",
            ),
            Figure(
                f"{where}: measured accuracy",
                100 * (one.measured_accuracy - one.random_measured_accuracy),
                "points",
            ),
        ]
    shares = [one.measured_accuracy for one in found]
    # Of two independent measurements; the same images for both make it smaller.
    error = max((math.sqrt(2 * share * (1 - share) / n_test_images) for share in shares), default=0)
    shown.append(
        Figure(
            "standard error of a difference in measured accuracy, at most", 100 * error, "points"
        )
    )
    return shown


def _verification_figures(found: Sequence[Found]) -> list[Figure]:
    shown = [
        Figure(f"measured latency at {place(one)}", one.measured_ms, "ms", one.budget_ms)
        for one in found
    ]
    for kind in sorted({one.latency_model for one in found}, reverse=True):
        error = _latency_error([one for one in found if one.latency_model == kind])
        shown.append(
            Figure(f"latency of the found subnets by the {model_name(kind)}: MAPE", error, "%")
        )
    error = accuracy_error_points(found)
    shown.append(Figure("accuracy of the found subnets: mean absolute error", error, "points"))
    return shown


def _latency_error(found: Sequence[Found]) -> float | None:
    measured_ms = [one.measured_ms for one in found]
    return _finite(100 * mape(measured_ms, [one.predicted_ms for one in found]))


def accuracy_error_points(found: Sequence[Found]) -> float | None:
    """Mean absolute error of the predicted accuracies, in points; None without subnets."""
    errors = [abs(one.predicted_accuracy - one.measured_accuracy) for one in found]
    return 100 * sum(errors) / len(errors) if errors else None


def place(one: Found) -> str:
    """Where a subnet was found: budget and latency model."""
    return f"{one.budget_ms:.2f} ms with the {model_name(one.latency_model)}"


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
