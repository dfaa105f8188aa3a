"""The plots of the report: each takes `Results` and returns one inline `<svg>`."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from latlas.quickstart.results import Breakdown, Found, ModelFacts, Results
from latlas.report.figures import MODEL_NAMES, heading, model_name, number_text
from latlas.report.svg import COLOURS, render
from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import OpSpec

_BAND = 0.05
_MOST_CLOUD_POINTS = 1500
_MARKERS = {"table": "o", "mlp": "s"}
_KIND_COLOURS = {kind: COLOURS[f"kind-{kind}"] for kind in ("stem", "mbconv", "head")}
_LONGEST_LABEL = 34


def _colour(kind: str) -> str:
    return COLOURS[kind if kind in MODEL_NAMES else "accent"]


def latency_scatter(results: Results, model: ModelFacts) -> str:
    """Predicted against measured latency of the validation networks, one model.

    All models are drawn on the same axes, so that their panels compare; intervals may be cut.
    """
    low, high = _limits(
        [v for one in results.models for v in (*one.measured_ms, *one.predicted_ms)]
    )
    measured_ms = np.array(model.measured_ms)
    predicted_ms = np.array(model.predicted_ms)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        _diagonal(axes, low, high)
        ends = np.array([low, high])
        axes.fill_between(
            ends, (1 - _BAND) * ends, (1 + _BAND) * ends, color=COLOURS["muted"], alpha=0.16, lw=0
        )
        axes.vlines(
            measured_ms,
            model.lower_ms,
            model.upper_ms,
            color=_colour(model.kind),
            alpha=0.45,
            linewidth=1.2,
        )
        _points(axes, measured_ms, predicted_ms, _colour(model.kind))
        _square(axes, low, high, "ms")
        axes.set_title(f"{heading(model_name(model.kind))}: {100 * model.mape:.1f} %")

    return render(
        draw,
        width=270,
        height=285,
        name=f"latency-{model.kind}",
        description=(
            f"{model_name(model.kind)}: predicted against measured latency of "
            f"{len(measured_ms)} networks, mean error {100 * model.mape:.1f} percent"
        ),
    )


def pareto_front(results: Results, *, narrow: bool) -> str:
    """Accuracy against latency: random subnets, both fronts, budgets, the found subnets.

    Args:
        narrow: the variant for narrow screens.
    """

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        step = -(-len(results.random_latency_ms) // _MOST_CLOUD_POINTS) or 1
        axes.scatter(
            results.random_latency_ms[::step],
            100 * np.array(results.random_accuracy[::step]),
            s=9,
            color=COLOURS["cloud"],
            alpha=0.75,
            linewidths=0,
            label="random subnets, predicted",
        )
        for front in results.fronts:
            axes.plot(
                front.latency_ms,
                100 * np.array(front.accuracy),
                color=_colour(front.latency_model),
                linewidth=1.8,
                linestyle="-" if front.latency_model == "table" else (0, (5, 2)),
                label=f"front by the {_short_name(front.latency_model)}",
            )
        for index, budget_ms in enumerate(sorted({one.budget_ms for one in results.found})):
            axes.axvline(
                budget_ms,
                color=COLOURS["ink"],
                linewidth=1.0,
                linestyle=(0, (1, 2)),
                label="budget" if index == 0 else None,
            )
            axes.annotate(
                f"{budget_ms:.2f} ms",
                (budget_ms, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=9.5,
            )
        for one in results.found:
            _found_pair(axes, one)
        for kind in dict.fromkeys(one.latency_model for one in results.found):
            for what, face in (("predicted", COLOURS["paper"]), ("measured", _colour(kind))):
                axes.plot(
                    [],
                    [],
                    marker=_MARKERS.get(kind, "D"),
                    linestyle="none",
                    color=_colour(kind),
                    markersize=6,
                    markerfacecolor=face,
                    markeredgecolor=_colour(kind),
                    markeredgewidth=1.5,
                    label=f"found with the {_short_name(kind)}, {what}",
                )
        axes.margins(x=0.02)
        axes.set_ylim(bottom=_front_bottom(results))
        axes.set_xlabel("Latency (ms)")
        axes.set_ylabel("Accuracy (%)")
        figure.legend(loc="outside lower left", ncols=1 if narrow else 2)

    return render(
        draw,
        width=360 if narrow else 860,
        height=480 if narrow else 510,
        name="front-narrow" if narrow else "front",
        description=(
            "Accuracy against latency: random subnets, the Pareto fronts of both latency models, "
            "the budgets, and the found subnets as predicted and as measured"
        ),
    )


def accuracy_scatter(results: Results) -> str:
    """Predicted against measured accuracy of the held-out subnets."""
    measured = 100 * np.array(results.supernet.held_out_measured)
    predicted = 100 * np.array(results.supernet.held_out_predicted)
    low, high = _limits([*measured, *predicted])

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        _diagonal(axes, low, high)
        _points(axes, measured, predicted, COLOURS["accent"])
        _square(axes, low, high, "%")

    return render(
        draw,
        width=360,
        height=360,
        name="accuracy",
        description=(
            f"Predicted against measured accuracy of {len(measured)} held-out subnets, "
            f"Kendall tau {number_text(results.supernet.kendall_tau, '')}"
        ),
    )


def training_curve(results: Results) -> str:
    """Loss over training steps; each phase of progressive shrinking is named where it begins."""
    curve = results.supernet.curve

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for index, (phase, points) in enumerate(itertools.groupby(curve, lambda point: point[0])):
            steps, losses = np.array([(step, loss) for _, step, loss in points]).T
            if index:
                axes.axvline(float(steps[0]), color=COLOURS["muted"], linewidth=0.8)
            axes.plot(steps, losses, color=COLOURS["accent"], linewidth=1.5)
            axes.annotate(
                phase,
                (float(steps[0]), 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 4),
                textcoords="offset points",
                rotation=30,
                rotation_mode="anchor",
                fontsize=9.5,
            )
        axes.set_ylim(bottom=0)
        axes.set_xlabel("Training step")
        axes.set_ylabel("Loss")

    return render(
        draw,
        width=400,
        height=360,
        name="training",
        description=f"Training loss over {len(curve)} recorded steps of progressive shrinking",
    )


def op_breakdown(breakdown: Breakdown, name: str) -> str:
    """Latency of each op of a found network as horizontal bars, coloured by kind.

    Args:
        breakdown: ops in execution order, and what the network costs beyond them.
        name: unique on the page.
    """
    total_ms = breakdown.intercept_ms + sum(op.latency_ms for op in breakdown.ops)
    rows = [(op_label(op.op), op.kind, op.latency_ms) for op in breakdown.ops]
    rows.append(("call overhead", "overhead", breakdown.intercept_ms))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        named: set[str] = set()
        for position, (_, kind, latency_ms) in enumerate(rows):
            axes.barh(
                position,
                1e3 * latency_ms,
                height=0.72,
                color=COLOURS["kind-overhead"]
                if kind == "overhead"
                else _KIND_COLOURS.get(kind, COLOURS["kind-other"]),
                label=None if kind in named else kind,
            )
            axes.annotate(
                f"{1e3 * latency_ms:.0f}",
                (1e3 * max(latency_ms, 0), position),
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
            named.add(kind)
        axes.set_yticks(range(len(rows)), [label for label, _, _ in rows], fontsize=9)
        axes.tick_params(axis="y", length=0, labelcolor=COLOURS["ink"])
        axes.grid(visible=False, axis="y")
        axes.invert_yaxis()
        axes.margins(x=0.12, y=0.02)
        axes.set_xlabel("Latency by the table (µs)")
        figure.legend(loc="outside lower left", ncols=4)

    return render(
        draw,
        width=330,
        height=90 + 19 * len(rows),
        name=name,
        description=(
            f"Latency of the {len(breakdown.ops)} ops of the network found within "
            f"{breakdown.budget_ms:.2f} ms, {total_ms:.2f} ms in all"
        ),
    )


def op_label(op: str) -> str:
    """A short label of an op: from its canonical key where it is one, else the text cut short."""
    try:
        spec = OpSpec.from_key(op)
    except InvalidInputError:
        return op if len(op) <= _LONGEST_LABEL else op[: _LONGEST_LABEL - 1] + "…"
    side = "×".join(map(str, dict.fromkeys(spec.inputs[0][1:])))
    channels = f"{spec.inputs[0][0]}→{spec.outputs[0][0]}"
    words = [spec.kind, channels]
    values = dict(spec.attributes)
    if spec.kind in ("conv", "depthwise", "mbconv", "pool"):
        words.append(f"k{values['kernel']}")
    if spec.kind == "mbconv":
        words.append(f"({values['expanded_channels']})")
    if values.get("stride", 1) != 1:
        words.append(f"/{values['stride']}")
    if values.get("se_channels"):
        words.append("SE")
    return " ".join([*words, f"@{side}" if side else ""]).strip()


def _front_bottom(results: Results) -> float | None:
    """Lower end of the accuracy axis: the few worst random subnets may fall below it."""
    shown = [100 * accuracy for front in results.fronts for accuracy in front.accuracy]
    shown += [100 * one.measured_accuracy for one in results.found]
    if results.random_accuracy:
        shown.append(100 * float(np.quantile(results.random_accuracy, 0.02)))
    return min(shown) - 0.5 if shown else None


def _short_name(kind: str) -> str:
    return {"table": "table", "mlp": "MLP"}.get(kind, model_name(kind))


def _found_pair(axes: Axes, one: Found) -> None:
    """Predicted (hollow, with its interval) joined to measured (filled)."""
    colour, marker = _colour(one.latency_model), _MARKERS.get(one.latency_model, "D")
    predicted = (one.predicted_ms, 100 * one.predicted_accuracy)
    measured = (one.measured_ms, 100 * one.measured_accuracy)
    axes.hlines(predicted[1], one.lower_ms, one.upper_ms, color=colour, linewidth=1.2, alpha=0.8)
    axes.plot(*zip(predicted, measured, strict=True), color=colour, linewidth=1.2)
    for point, face in ((predicted, COLOURS["paper"]), (measured, colour)):
        axes.plot(
            *point,
            marker=marker,
            color=colour,
            markersize=6,
            markerfacecolor=face,
            markeredgecolor=colour,
            markeredgewidth=1.5,
            zorder=4,
        )


def _limits(values: list[float]) -> tuple[float, float]:
    """Axis limits around values, with a margin."""
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _diagonal(axes: Axes, low: float, high: float) -> None:
    axes.plot([low, high], [low, high], color=COLOURS["muted"], linewidth=0.9, zorder=1)


def _points(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str) -> None:
    axes.scatter(x, y, s=20, color=colour, edgecolors=COLOURS["paper"], linewidths=0.6, zorder=3)


def _square(axes: Axes, low: float, high: float, unit: str) -> None:
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    axes.set_aspect("equal")
    axes.set_xlabel(f"Measured ({unit})")
    axes.set_ylabel(f"Predicted ({unit})")
