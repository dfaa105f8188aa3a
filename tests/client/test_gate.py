"""Requirements judged by intervals: noise alone hardly ever fails a program."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from latlas.gate import Judgement, Requirement, Verdict, judge, judge_error, overall
from latlas_latency.program_details import VisitTail
from latlas_ops.errors import InvalidInputError

BELOW_30 = Requirement("p95", 30.0, is_relative=False)
AT_MOST_3_PERCENT = Requirement("p50", 1.03, is_relative=True)


def tails(
    values: list[float],
    first_round: int = 0,
    *,
    n_runs: int = 100,
    board: str = "board",
    left_out: bool = False,
) -> list[VisitTail]:
    return [
        VisitTail(first_round + i, board, n_runs, value, value, value, left_out)
        for i, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([20.0 + i / 10 for i in range(20)], Verdict.PASS),
        ([40.0 + i / 10 for i in range(20)], Verdict.FAIL),
        ([25.0 + i for i in range(10)], Verdict.INCONCLUSIVE),
        ([20.0] * 18 + [90.0] * 2, Verdict.PASS),
        ([20.0] * 7, Verdict.INCONCLUSIVE),
        ([20.0] * 8, Verdict.PASS),
    ],
    ids=["below", "above", "around", "two bursts", "too few rounds", "just enough rounds"],
)
def test_the_whole_interval_decides(values: list[float], verdict: Verdict) -> None:
    found = judge(BELOW_30, tails(values))
    assert found.verdict is verdict
    assert found.n_rounds == len(values)
    assert found.lower <= found.value <= found.upper


def test_what_slows_the_device_for_a_while_slows_both_programs() -> None:
    drift = [1.0, 1.0, 1.3, 1.3, 1.3, 1.5, 1.5, 1.2, 1.0, 1.0]
    new, old = tails([101 * d for d in drift]), tails([100 * d for d in drift])
    found = judge(AT_MOST_3_PERCENT, new, old)
    assert found.verdict is Verdict.PASS
    assert found.value == pytest.approx(1.01)
    assert found.upper == pytest.approx(1.01)


def test_only_rounds_that_both_have_are_compared() -> None:
    found = judge(AT_MOST_3_PERCENT, tails([1.0] * 12), tails([1.0] * 12, first_round=3))
    assert found.n_rounds == 9
    with pytest.raises(InvalidInputError, match="no round was measured"):
        judge(AT_MOST_3_PERCENT, tails([1.0]), tails([1.0], first_round=3))


def test_disturbed_rounds_count_only_where_too_few_others_are_there() -> None:
    calm, disturbed = tails([20.0] * 8), tails([90.0] * 8, 9, left_out=True)
    assert judge(BELOW_30, [*calm, *disturbed]).n_rounds == 8
    assert judge(BELOW_30, [*calm[1:], *disturbed]).n_rounds == 15


def test_a_disturbed_visit_of_either_program_takes_its_round_along() -> None:
    new = tails([106.0] * 50)
    old = [*tails([120.0] * 20, left_out=True), *tails([100.0] * 30, 20)]
    found = judge(AT_MOST_3_PERCENT, new, old)
    assert (found.verdict, found.n_rounds) == (Verdict.FAIL, 30)
    assert found.value == pytest.approx(1.06)


def test_visits_of_different_boards_are_not_compared() -> None:
    new = tails([1.0] * 20)
    old = [*tails([1.0] * 9), *tails([1.0] * 11, 9, board="another")]
    assert judge(AT_MOST_3_PERCENT, new, old).n_rounds == 9


@pytest.mark.parametrize(("quantity", "least"), [("p95", 20), ("p99", 100)])
def test_a_tail_is_not_told_from_visits_of_few_inferences(quantity: str, least: int) -> None:
    """Inferences of 20 ms, one in twenty of 90: visits of five put their largest at 20 mostly."""
    requirement = Requirement(quantity, 30.0, is_relative=False)
    found = judge(requirement, tails([20.0] * 50, n_runs=least - 1))
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.note == (
        f"visits of {least - 1} inferences cannot tell {quantity}, which takes {least}"
    )
    assert judge(requirement, tails([20.0] * 50, n_runs=least)).verdict is Verdict.PASS


def _judged(rng: np.random.Generator, ratio: float) -> Judgement:
    """50 rounds with 1.5 % of noise and a burst in one visit of twenty."""
    noise = rng.normal(1, 0.015, (2, 50)) * np.where(rng.random((2, 50)) < 0.05, 1.5, 1)
    new, old = noise[0] * ratio, noise[1]
    return judge(AT_MOST_3_PERCENT, tails(new.tolist()), tails(old.tolist()))


def test_equal_programs_hardly_ever_fail_and_slower_ones_hardly_ever_pass() -> None:
    rng = np.random.default_rng(0)
    assert sum(_judged(rng, 1.0).verdict is Verdict.FAIL for _ in range(400)) == 0
    at_the_limit = [_judged(rng, 1.03).verdict for _ in range(400)]
    assert at_the_limit.count(Verdict.FAIL) <= 8
    assert at_the_limit.count(Verdict.PASS) <= 8
    assert sum(_judged(rng, 1.06).verdict is Verdict.FAIL for _ in range(400)) >= 390


@pytest.mark.parametrize(
    ("quantity", "limit", "message"),
    [
        ("p42", 1.0, "no latency is called 'p42'; there are p50, p95, p99, and error"),
        ("p50", 0.0, "below 0"),
    ],
)
def test_a_requirement_without_sense_is_refused(quantity: str, limit: float, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Requirement(quantity, limit, is_relative=False)


def test_an_error_of_outputs_is_judged_as_it_is() -> None:
    wanted = Requirement("error", 0.01, is_relative=False)
    assert judge_error(wanted, 0.009).verdict is Verdict.PASS
    assert judge_error(wanted, 0.01).verdict is Verdict.FAIL
    assert judge_error(wanted, float("inf")).verdict is Verdict.FAIL
    unknown = judge_error(wanted, None, "its outputs are not known")
    assert (unknown.verdict, unknown.note) == (Verdict.INCONCLUSIVE, "its outputs are not known")
    with pytest.raises(InvalidInputError, match="a share already"):
        Requirement("error", 1.01, is_relative=True)


def test_one_verdict_for_all() -> None:
    for verdicts in itertools.permutations(Verdict):
        assert overall(verdicts) is Verdict.FAIL
    assert overall([Verdict.PASS, Verdict.INCONCLUSIVE]) is Verdict.INCONCLUSIVE
    assert overall([Verdict.PASS, Verdict.PASS]) is Verdict.PASS
