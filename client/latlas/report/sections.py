"""The sections of the report page: each takes results and drawn plots and returns HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from latlas.quickstart.results import Found, ModelFacts, Results
from latlas.report.figures import Figure, heading, model_name, model_of_kind, number_text
from latlas.report.markup import count, escape, figure_with_title, mark, signed, swatch

_TERMS = (
    (
        "Measured latency",
        "The median over rounds of the median of each round's inferences. Rounds of all networks "
        "are interleaved, so that a disturbance of the device hits every network alike.",
    ),
    (
        "Label noise",
        "How far one half of the rounds lies from the other, the median over the networks. The "
        "measurements themselves agree no better than this, so a model's error is to be read "
        "beside it.",
    ),
    (
        "MAPE",
        "Mean absolute percentage error over the validation networks, which no model was fitted "
        "or calibrated on. Max is the largest such error.",
    ),
    (
        "Spearman, Kendall tau",
        "Rank correlations: 1 when the predictions put the networks in the measured order.",
    ),
    (
        "Interval",
        "Where the true latency lies with the stated probability. A budget is a hard limit on "
        "the upper end; coverage is the share of validation networks inside their interval.",
    ),
    (
        "Lookup table",
        "One entry per distinct op, measured inside whole networks, then calibrated on a few "
        "whole networks. Its sum predicts any network of the search space.",
    ),
    (
        "MLP predictor",
        "A neural network that learns whole-network latency from whole-network measurements.",
    ),
    (
        "Linear and MACs baselines",
        "A line through the architecture's numbers, and a line through its multiply-accumulate "
        "operations alone: what one would use without measuring ops.",
    ),
    (
        "Random search",
        "As many random subnets within the same budget as the evolutionary search scored; the "
        "best of them by predicted accuracy.",
    ),
    (
        "Accuracy",
        "Share of correctly classified images: measured on the test images, predicted for the "
        "validation images, which the predictor learned from. Both are distorted versions of "
        "digits that are in no other split. Subnets run with the supernet's weights, their "
        "batch-norm statistics calibrated, without further training.",
    ),
)


def latency_section(results: Results, scatters: str) -> str:
    """How well each latency model predicts the validation networks."""
    profile = results.profile
    level = 100 * model_of_kind(results, "table").interval_level
    rows = "\n".join(_model_row(model) for model in results.models)
    noise = (
        f'<tr class="noise"><th>Label noise</th><td>{100 * profile.label_noise:.1f}&nbsp;%</td>'
        f'<td colspan="6" class="left">{100 * profile.common_mode_free_noise:.1f}&nbsp;% '
        "with what all networks of a round share divided out</td></tr>"
    )
    return (
        "<section>\n<h2>How well latency is predicted</h2>\n"
        f"<p>{count(profile.n_distinct_ops, 'op')} measured in {profile.n_cover_networks} "
        f"networks; {profile.n_calibration_networks} networks calibrate the table, "
        f"{profile.n_training_networks} train the predictors. All figures below are on "
        f"{profile.n_validation_networks} further networks; {profile.n_rounds} rounds and "
        f"{profile.device_seconds:.0f} s on the device in all.</p>\n"
        '<div class="scroll"><table>\n<thead><tr><th>Latency model</th><th>MAPE</th><th>Max</th>'
        "<th>Spearman</th><th>R²</th><th>Within 5&nbsp;%</th><th>Within 10&nbsp;%</th>"
        f"<th>Coverage<br>({level:.0f}&nbsp;% promised)</th></tr></thead>\n"
        f"<tbody>\n{rows}\n{noise}\n</tbody>\n</table></div>\n"
        f'<figure><div class="plots four">{scatters}</div>\n<figcaption>Predicted against '
        f"measured latency in ms of the validation networks, with the mean error in the title. "
        f"Grey band: ±5&nbsp;%. Vertical lines: the {level:.0f}&nbsp;% interval of the "
        "prediction.</figcaption></figure>\n</section>"
    )


def _model_row(model: ModelFacts) -> str:
    cells = (
        f"{100 * model.mape:.1f}&nbsp;%",
        f"{100 * model.max_error:.1f}&nbsp;%",
        f"{model.spearman:.3f}",
        f"{model.r2:.3f}",
        f"{100 * model.share_within_5_percent:.0f}&nbsp;%",
        f"{100 * model.share_within_10_percent:.0f}&nbsp;%",
        f"{100 * model.interval_coverage:.0f}&nbsp;%",
    )
    return (
        f"<tr><th>{swatch(model.kind)}{escape(heading(model_name(model.kind)))}</th>"
        + "".join(f"<td>{cell}</td>" for cell in cells)
        + "</tr>"
    )


def search_section(results: Results, fronts: str) -> str:
    """The fronts and every network found, predicted and measured."""
    columns = (
        "Budget",
        "Searched with",
        "Latency predicted",
        "Latency measured",
        "Within budget",
        "Accuracy predicted",
        "Accuracy measured",
        "Random search: predicted",
        "Random search: measured",
    )
    head = "".join(f"<th>{column}</th>" for column in columns)
    rows = "\n".join(_found_row(one, columns) for one in results.found)
    return (
        "<section>\n<h2>What the search found</h2>\n"
        "<p>An evolutionary search under each latency budget, once with each latency model. "
        "Every network found was extracted from the supernet, exported to ONNX, and measured on "
        "the device again.</p>\n"
        f"<figure>{fronts}<figcaption>Hollow: predicted, with the interval whose upper end must "
        "stay within the budget. Filled: measured on the device and on the test images. The two "
        "are joined.</figcaption></figure>\n"
        f'<table class="cards found">\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n'
        "</table>\n</section>"
    )


def _found_row(one: Found, columns: Sequence[str]) -> str:
    excess = 100 * (one.measured_ms / one.budget_ms - 1)
    within = mark(True, "yes") if excess <= 0 else mark(False, f"no, {excess:.1f}&nbsp;% above")
    error = signed(100 * (one.predicted_ms / one.measured_ms - 1), 1)
    cells = (
        f"{swatch(one.latency_model)}{escape(model_name(one.latency_model))}",
        f"{one.predicted_ms:.2f}&nbsp;ms <small>{one.lower_ms:.2f} to {one.upper_ms:.2f}</small>",
        f"{one.measured_ms:.2f}&nbsp;ms <small>error {error}&nbsp;%</small>",
        within,
        f"{100 * one.predicted_accuracy:.1f}&nbsp;%",
        f"{100 * one.measured_accuracy:.1f}&nbsp;%",
        f"{100 * one.random_accuracy:.1f}&nbsp;%",
        f"{100 * one.random_measured_accuracy:.1f}&nbsp;%",
    )
    return (
        f"<tr><th>{one.budget_ms:.2f}&nbsp;ms</th>"
        + "".join(
            f'<td data-label="{column}"><span>{cell}</span></td>'
            for column, cell in zip(columns[1:], cells, strict=True)
        )
        + f'</tr>\n<tr class="more"><td colspan="{len(columns)}">'
        f"<code>{escape(one.onnx_file)}</code> {escape(one.description)}</td></tr>"
    )


def accuracy_section(results: Results, scatter: str, curve: str) -> str:
    """How well the accuracy predictor does, and the training behind it."""
    supernet = results.supernet
    return (
        "<section>\n<h2>How well accuracy is predicted</h2>\n"
        f"<p>The supernet was trained in {supernet.training_seconds:.0f} s by progressive "
        "shrinking. Its smallest subnet classifies "
        f"{100 * supernet.smallest_accuracy:.1f}&nbsp;% of {supernet.n_test_images} test images "
        f"correctly, its largest {100 * supernet.largest_accuracy:.1f}&nbsp;%. The accuracy "
        f"predictor learned the accuracy on {supernet.n_validation_images} other images from "
        f"{supernet.n_labelled} subnets; when each is predicted without its own label, Kendall's "
        f"tau is {number_text(supernet.kendall_tau, '')}.</p>\n"
        f'<div class="plots two">{figure_with_title("Accuracy of held-out subnets", scatter)}'
        f"{figure_with_title('Loss while shrinking, phase by phase', curve)}</div>\n</section>"
    )


def breakdown_section(breakdowns: Iterable[tuple[float, str]]) -> str:
    """Per-op breakdowns; `breakdowns` are pairs of a budget in ms and its drawn plot."""
    parts = [
        figure_with_title(f"Found within {budget_ms:.2f}&nbsp;ms", drawn)
        for budget_ms, drawn in breakdowns
    ]
    return (
        "<section>\n<h2>Where the time goes</h2>\n"
        "<p>The lookup table's entries of the networks found with it, op by op from input to "
        "output. Labels give kind, channels, kernel, expanded channels, stride, "
        "squeeze-and-excitation and the side of the input.</p>\n"
        f'<div class="plots three">{"".join(parts)}</div>\n</section>'
    )


def checks_section(shown: Sequence[Figure]) -> str:
    """Every figure beside its bar."""
    rows = "\n".join(
        f"<tr><th>{escape(heading(figure.name))}</th><td>{escape(figure.value_text())}</td>"
        f"<td>{escape(figure.bar_text())}</td><td>{_holds(figure)}</td></tr>"
        for figure in shown
    )
    return (
        '<section id="checks">\n<h2>Every figure beside its bar</h2>\n'
        '<table class="wrap">\n<thead><tr><th>Figure</th><th>Value</th><th>Bar</th>'
        f"<th>Holds</th></tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</section>"
    )


def _holds(figure: Figure) -> str:
    if figure.holds is None:
        return ""
    return mark(figure.holds, "yes" if figure.holds else "no")


def footer(results: Results) -> str:
    """What the figures mean and how to reproduce them."""
    terms = "".join(f"<dt>{term}</dt><dd>{meaning}</dd>" for term, meaning in _TERMS)
    profile = results.profile
    return (
        f'<footer>\n<h2>What the figures mean</h2>\n<dl class="terms">{terms}</dl>\n'
        f"<p>Profiling added {profile.profiler_us_per_node:.1f}&nbsp;µs to every node, which is "
        f"removed from the entries; {100 * profile.unattributed_share:.1f}&nbsp;% of the node time "
        f"belongs to no named op. Between the profiling and the verification the device drifted "
        f"by {signed(100 * results.session_drift, 1)}&nbsp;% (positive is slower).</p>\n"
        "<p>The figures are valid for the device and target named above, and for no other. "
        "To reproduce them, run <code>latlas quickstart</code>; "
        "<code>python bench/loop.py quickstart</code> recomputes every figure from the raw "
        "values in <code>results.json</code>, from which this page is made as well.</p>\n"
        "</footer>"
    )
