"""Figures are recomputed from raw values and held against their bars."""

from __future__ import annotations

import dataclasses

import pytest

from latlas.quickstart.results import Results
from latlas.report.figures import Figure, figures
from latlas_ops.errors import InvalidInputError


def _by_name(results: Results) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures(results)}


def test_names_are_unique_and_a_good_quickstart_holds_every_bar(results: Results) -> None:
    shown = figures(results)
    assert len({figure.name for figure in shown}) == len(shown)
    assert all(figure.holds for figure in shown if figure.bar is not None)


def test_a_stated_error_does_not_hide_the_raw_values(results: Results) -> None:
    table = results.models[0]
    doubled = dataclasses.replace(table, predicted_ms=[2 * v for v in table.measured_ms])
    figure = _by_name(dataclasses.replace(results, models=[doubled, *results.models[1:]]))[
        "lookup table: MAPE"
    ]
    assert figure.value == pytest.approx(100)
    assert figure.holds is False


def test_the_bar_of_the_table_follows_the_label_noise(results: Results) -> None:
    quiet, noisy = (
        dataclasses.replace(
            results, profile=dataclasses.replace(results.profile, label_noise=noise)
        )
        for noise in (0.015, 0.035)
    )
    assert _by_name(quiet)["lookup table: MAPE"].bar == 4.0
    assert _by_name(noisy)["lookup table: MAPE"].bar == pytest.approx(7.0)


def test_baselines_have_no_bar(results: Results) -> None:
    shown = _by_name(results)
    for name in ("MLP predictor: MAPE", "linear baseline: MAPE", "MACs baseline: MAPE"):
        assert shown[name].bar is None
        assert shown[name].holds is None


def test_a_network_over_its_budget_and_a_tie_with_random_search_do_not_hold(
    results: Results,
) -> None:
    first = results.found[0]
    worse = dataclasses.replace(
        first, measured_ms=first.budget_ms * 1.01, random_accuracy=first.predicted_accuracy
    )
    shown = figures(dataclasses.replace(results, found=[worse, *results.found[1:]]))
    assert [figure.name for figure in shown if figure.holds is False] == [
        "search minus random search at 1.60 ms with the lookup table: predicted accuracy",
        "measured latency at 1.60 ms with the lookup table",
    ]


def test_a_search_that_never_ran_does_not_hold(results: Results) -> None:
    shown = _by_name(dataclasses.replace(results, found=[]))
    assert shown["budgets searched with the lookup table"].holds is False
    assert shown["budgets searched with the MLP predictor"].holds is False


def test_an_undetermined_rank_correlation_does_not_hold(results: Results) -> None:
    constant = dataclasses.replace(results.supernet, held_out_predicted=[0.9] * 30)
    figure = _by_name(dataclasses.replace(results, supernet=constant))[
        "accuracy predictor: Kendall tau on held-out subnets"
    ]
    assert (figure.value, figure.holds) == (None, False)
    assert figure.value_text() == "not determined"


def test_results_without_a_table_are_refused(results: Results) -> None:
    with pytest.raises(InvalidInputError, match=r"no latency model .table.*mlp"):
        figures(dataclasses.replace(results, models=results.models[1:]))
