"""What a quickstart says in plain words: one function per step, from the facts of `Results`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from latlas.progress import format_seconds
from latlas.quickstart.results import Found, Front, ModelFacts, ProfileFacts, SupernetFacts
from latlas.report.figures import heading, model_name, number_text

_FRONT_ROWS = 6


def tell_models(facts: ProfileFacts, models: Sequence[ModelFacts], stream: TextIO) -> None:
    """How much was measured, and the error of every latency model on unseen networks."""
    stream.write(
        f"  {facts.n_distinct_ops} ops in {facts.n_cover_networks} cover networks, "
        f"{facts.n_validation_networks} unseen networks, {facts.device_seconds:.0f} s of timing\n"
        f"  the profiler added {facts.profiler_us_per_node:.1f} us per node (removed); "
        f"{facts.unattributed_share:.2%} of node time belongs to no op\n"
        f"  label noise of this sitting {facts.label_noise:.2%} "
        f"({facts.common_mode_free_noise:.2%} without what all networks share)\n\n"
        f"  {'latency model':<20} {'MAPE':>7} {'max':>7} {'Spearman':>9} {'in 5 %':>7} "
        f"{'interval':>9}\n"
    )
    for model in models:
        stream.write(
            f"  {heading(model_name(model.kind)):<20} {model.mape:>7.2%} {model.max_error:>7.2%} "
            f"{model.spearman:>9.4f} {model.share_within_5_percent:>7.0%} "
            f"{model.interval_coverage:>9.0%}\n"
        )
    stream.write("\n")


def tell_supernet(facts: SupernetFacts, stream: TextIO) -> None:
    """How accurate the subnets are, and how well that is predicted."""
    stream.write(
        f"  trained in {format_seconds(facts.training_seconds)}; of {facts.n_test_images} test "
        f"images the smallest subnet classifies {facts.smallest_accuracy:.1%} correctly, the "
        f"largest {facts.largest_accuracy:.1%}\n"
        f"  accuracy predictor: Kendall tau {number_text(facts.kendall_tau, '')} on "
        f"{facts.n_labelled} labelled subnets, each predicted without its own label\n\n"
    )


def tell_fronts(fronts: Sequence[Front], stream: TextIO) -> None:
    """The Pareto front of every latency model, thinned to a few rows."""
    for front in fronts:
        stream.write(
            f"  Pareto front with the {model_name(front.latency_model)}, "
            f"{len(front.latency_ms)} networks\n"
        )
        last = len(front.latency_ms) - 1
        shown = sorted({round(last * row / (_FRONT_ROWS - 1)) for row in range(_FRONT_ROWS)})
        latencies = "".join(f"{front.latency_ms[index]:>8.2f}" for index in shown)
        accuracies = "".join(f"{front.accuracy[index]:>8.1%}" for index in shown)
        stream.write(f"    {'ms':<10}{latencies}\n    {'accuracy':<10}{accuracies}\n")
    stream.write("\n")


def drift_text(drift: float) -> str:
    """The drift of a sitting in words; positive is slower."""
    change = "slower" if drift > 0 else "faster"
    return f"the device runs {abs(drift):.1%} {change} than while it was profiled"


def tell_found(found: Sequence[Found], drift: float, stream: TextIO) -> None:
    """Prediction and truth side by side for every network found."""
    stream.write(
        f"  {drift_text(drift)}\n\n"
        f"  {'':<17} {'latency in ms':^29}  {'accuracy':^19}  {'random search':^19}\n"
        f"  {'budget, model':<17} {'predicted':>9} {'at most':>8} {'measured':>9}   "
        f"{'predicted':>9} {'measured':>9}  {'predicted':>9} {'measured':>9}\n"
    )
    for one in found:
        over = "  over budget" if one.measured_ms > one.budget_ms else ""
        stream.write(
            f"  {f'{one.budget_ms:.2f} ms, {one.latency_model}':<17} {one.predicted_ms:>9.3f} "
            f"{one.upper_ms:>8.3f} {one.measured_ms:>9.3f}   {one.predicted_accuracy:>9.1%} "
            f"{one.measured_accuracy:>9.1%}  {one.random_accuracy:>9.1%} "
            f"{one.random_measured_accuracy:>9.1%}{over}\n"
        )
    stream.write("\n")
