"""The report page of a finished quickstart: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from latlas.files import write_atomically
from latlas.quickstart.results import Results
from latlas.report import sections
from latlas.report.figures import (
    Figure,
    accuracy_error_points,
    figures,
    model_name,
    model_of_kind,
    number_text,
    place,
)
from latlas.report.markup import count, escape, signed
from latlas_ops.errors import MissingDependencyError


def write_report(results: Results, path: Path) -> None:
    """Writes the report page, one self-contained HTML file, whole or not at all.

    Equal results give equal bytes.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        InvalidInputError: the results lack the table's figures.
    """
    write_atomically(path, report_html(results).encode())


def report_html(results: Results) -> str:
    """The report page as text; raises what `write_report` raises."""
    try:
        from latlas.report import plots
    except ImportError as error:
        raise MissingDependencyError(
            "the report page draws with matplotlib; install it with: pip install 'latlas[nas]'"
        ) from error

    shown = figures(results)
    title = f"Latlas: {results.device.device_model}, {_target_name(results)}"
    style = resources.files("latlas.report").joinpath("report.css").read_text(encoding="utf-8")
    scatters = "".join(plots.latency_scatter(results, model) for model in results.models)
    fronts = (
        f'<div class="wide">{plots.pareto_front(results, narrow=False)}</div>'
        f'<div class="narrow">{plots.pareto_front(results, narrow=True)}</div>'
    )
    breakdowns = [
        (row.budget_ms, plots.op_breakdown(row, f"ops{index}"))
        for index, row in enumerate(results.breakdowns)
    ]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{style}</style>",
            "</head>",
            "<body>",
            _header(results, shown),
            "<main>",
            sections.latency_section(results, scatters),
            sections.search_section(results, fronts),
            sections.accuracy_section(
                results, plots.accuracy_scatter(results), plots.training_curve(results)
            ),
            sections.breakdown_section(breakdowns),
            sections.checks_section(shown),
            "</main>",
            sections.footer(results),
            "</body>",
            "</html>",
            "",
        ]
    )


def _header(results: Results, shown: Sequence[Figure]) -> str:
    target = results.device.target
    facts = [
        _target_name(results),
        f"{target.get('runtime')} {target.get('runtime_version')}",
        str(target.get("provider")),
        str(target.get("precision")),
        count(int(target.get("threads", 1)), "thread"),
        f"batch {target.get('batch')}",
        results.device.operating_system,
    ]
    chips = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    return (
        '<header>\n<p class="eyebrow">Latlas quickstart: measured, predicted, searched, '
        "verified</p>\n"
        f"<h1>Latency on {escape(results.device.device_model)}</h1>\n"
        f'<ul class="target">{chips}</ul>\n'
        f'<p class="lead">{_headline(results)}</p>\n'
        f'<p class="lead">{_verdict(results, shown)}</p>\n'
        f"{_tiles(results)}\n</header>"
    )


def _headline(results: Results) -> str:
    table = model_of_kind(results, "table")
    noise = 100 * results.profile.label_noise
    return (
        f"The lookup table predicts {len(table.measured_ms)} networks it has never seen within "
        f"<strong>{100 * table.mape:.1f}&nbsp;%</strong> on average, "
        f"{100 * table.max_error:.1f}&nbsp;% at worst. The measurements themselves agree within "
        f"{noise:.1f}&nbsp;%: the label noise."
    )


def _verdict(results: Results, shown: Sequence[Figure]) -> str:
    over = [one for one in results.found if one.measured_ms > one.budget_ms]
    n_found = len(results.found)
    if over:
        cases = "; ".join(
            f"{escape(place(one))} the device took {one.measured_ms:.2f}&nbsp;ms" for one in over
        )
        budgets = (
            f"{n_found - len(over)} of {n_found} networks found by the search kept their latency "
            f"budget on the device. Above it: at {cases}."
        )
    elif not n_found:
        budgets = "No network was searched for."
    else:
        budgets = (
            f"All {n_found} networks found by the search kept their latency budget on the device."
        )
    checks = [figure for figure in shown if figure.bar is not None]
    failed = [figure for figure in checks if not figure.holds]
    if not failed:
        return f'{budgets} <a href="#checks">All {len(checks)} checks hold.</a>'
    return (
        f'{budgets} <strong class="no">{count(len(failed), "check")} of {len(checks)} '
        f"{'does' if len(failed) == 1 else 'do'} not hold</strong>: "
        f"{escape('; '.join(figure.name for figure in failed))}. "
        f'<a href="#checks">All checks</a>'
    )


def _tiles(results: Results) -> str:
    table = model_of_kind(results, "table")
    supernet = results.supernet
    n_within = sum(one.measured_ms <= one.budget_ms for one in results.found)
    others = ", ".join(
        f"{escape(model_name(model.kind))} {100 * model.mape:.1f}&nbsp;%"
        for model in results.models
        if model.kind != "table"
    )
    gains = [100 * (one.predicted_accuracy - one.random_accuracy) for one in results.found]
    error = accuracy_error_points(results.found)
    minutes = sum(results.step_seconds.values()) / 60
    steps = ", ".join(
        f"{escape(name)} {seconds:.0f} s" for name, seconds in results.step_seconds.items()
    )
    tiles = (
        ("Table error, unseen networks", f"{100 * table.mape:.1f}&nbsp;%", others),
        (
            "Found networks within budget",
            f"{n_within} of {len(results.found)}",
            "measured on the device",
        ),
        (
            "Accuracy points above random search",
            signed(min(gains), 1) if gains else "none",
            "at the least, as predicted, at equal evaluations",
        ),
        (
            "Accuracy predictor, Kendall tau",
            number_text(supernet.kendall_tau, ""),
            "" if error is None else f"found networks off by {error:.1f}&nbsp;points on average",
        ),
        ("Time of all steps", f"{minutes:.1f}&nbsp;min", steps),
    )
    return (
        '<dl class="tiles">'
        + "".join(
            f'<div><dt>{label}</dt><dd class="figure">{figure}</dd>'
            f'<dd class="note">{note}</dd></div>'
            for label, figure, note in tiles
        )
        + "</dl>"
    )


def _target_name(results: Results) -> str:
    return str(results.device.target.get("name", "unnamed target"))
