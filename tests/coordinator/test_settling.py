"""What is visited again when a campaign's rounds are done: within limits, and once."""

import dataclasses
import math

import numpy as np
import pytest

from latlas_coordinator.domain import (
    Findings,
    Role,
    Sampling,
    SuspicionKind,
    Task,
    TaskFailure,
    TaskProgress,
    VisitSummary,
)
from latlas_coordinator.settling import Case, EntryEvidence, settle_figures, settle_visits
from latlas_coordinator.suspecting import replaced_visits
from latlas_latency.findings_in_words import precision_in_words
from latlas_latency.measurement import PLAIN, Conditions
from latlas_latency.precision import CoverNoise
from latlas_latency.suspicion import MonotonicityBreak
from latlas_ops.errors import InvalidInputError
from latlas_ops.opspec import OpSpec

SAMPLING = Sampling(n_rounds=3, n_extra_rounds=4)


def task(name, sampling=SAMPLING, **progress):
    return TaskProgress(
        Task(name, "c", "target", f"sha-{name}", PLAIN, Role.COVER, "", sampling), **progress
    )


def visits(name, *medians_ns, device="board"):
    return [
        VisitSummary(name, number, device, number, median_ns, 5)
        for number, median_ns in enumerate(medians_ns)
    ]


CALM = [task(f"calm {number}") for number in range(10)]
CALM_VISITS = [visit for one in CALM for visit in visits(one.task.task_id, 1000, 1001, 999)]


def wanted(tasks, found):
    return settle_visits(Case([*CALM, *tasks], [*CALM_VISITS, *found])).rounds


def test_visits_that_agree_need_no_more():
    assert wanted([], []) == {}


def test_a_visit_that_stands_out_is_made_up_for():
    assert wanted([task("a")], visits("a", 500, 502, 800)) == {"a": 1}


def test_visits_that_do_not_agree_at_all_are_all_repeated():
    assert wanted([task("a")], visits("a", 500, 600, 720)) == {"a": 2}
    again = [*visits("a", 500, 500, 600, 600)]
    assert wanted([task("a", n_extra_rounds=1)], again) == {"a": 3}


def test_there_is_an_end_to_it():
    found = visits("a", 500, 600, 700, 500, 600, 700)
    assert wanted([task("a", n_extra_rounds=3)], found) == {"a": 1}
    assert wanted([task("a", n_extra_rounds=4)], found) == {}


def test_on_request_a_task_gets_visits_beyond_its_extra_rounds():
    tasks = [task("a", n_extra_rounds=4), task("b", attempts=2), task("c", n_extra_rounds=2)]
    wanted = {"a": 2, "b": 2, "c": 2}
    assert Case(tasks, max_attempts=2).granted(wanted) == {"c": 2}
    assert Case(tasks, max_attempts=3, n_beyond=1).granted(wanted) == {"a": 1, "b": 2, "c": 2}


@pytest.mark.parametrize(
    "one",
    [
        task("a", Sampling(n_rounds=3)),
        task("a", failure=TaskFailure("a", "MeasurementError", "it crashed")),
    ],
    ids=["no extra rounds allowed", "given up"],
)
def test_some_tasks_are_left_as_they_are(one):
    assert wanted([one], visits("a", 500, 600, 700)) == {}


def test_boards_of_different_speed_do_not_disagree():
    fast = [visit for one in CALM for visit in visits(one.task.task_id, 700, 701, device="fast")]
    assert settle_visits(Case(CALM, [*CALM_VISITS, *fast])).rounds == {}


def crowded(found):
    busy = Conditions(other_cpu_share=0.5, online_cores=2)
    return [dataclasses.replace(visit, conditions=busy) for visit in found]


def test_disturbed_visits_are_made_up_for():
    first, *others = visits("a", 500, 501, 502)
    assert wanted([task("a")], [*crowded([first]), *others]) == {"a": 1}


def test_a_device_that_is_always_disturbed_is_taken_as_it_is():
    found = crowded([*CALM_VISITS, *visits("a", 500, 501, 502)])
    assert settle_visits(Case([*CALM, task("a")], found)).rounds == {}


# -- stretches ---------------------------------------------------------------------------------

MANY = 60


def series(n_rounds=3, slow=(), ratio=1.15, order=None, tasks=MANY):
    """Visits of many tasks in turn, some of them (by their place in time) slower than usual."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(n_rounds):
        for index in range(tasks):
            place = number * tasks + index
            factor = rng.normal(1, 0.005) * (ratio if place in slow else 1.0)
            median_ns = round(factor * 1e6 * (1 + index))
            found.append(VisitSummary(f"t{index}", number, "board", place, median_ns, 5))
    return found


def many(n_extra_rounds=0, **sampling):
    values = {"n_rounds": 3, "n_extra_rounds": 3} | sampling
    return [
        task(f"t{index}", Sampling(**values), n_extra_rounds=n_extra_rounds)
        for index in range(MANY)
    ]


def test_visits_of_a_stretch_are_taken_again():
    slow = range(MANY + 10, MANY + 40)
    decision = settle_visits(Case(many(), series(slow=slow)))
    assert decision.rounds == {f"t{index}": 1 for index in range(10, 40)}
    (found,) = decision.findings.suspicions
    assert (found.kind, found.revisited, found.open) == (SuspicionKind.STRETCH, True, True)
    assert (found.first_ns, found.last_ns) == (slow[0], slow[-1])
    assert "30 visits in a row on board were 14" in found.text


def test_a_stretch_whose_visits_were_taken_again_is_settled():
    slow = range(MANY + 10, MANY + 40)
    before = settle_visits(Case(many(), series(slow=slow))).findings
    again = [
        VisitSummary(f"t{index}", 3, "board", 1000 + index, 1_000_000 * (1 + index), 5)
        for index in range(10, 40)
    ]
    tasks = [task(f"t{i}", n_extra_rounds=int(10 <= i < 40)) for i in range(MANY)]
    decision = settle_visits(Case(tasks, [*series(slow=slow), *again], before))
    assert decision.rounds == {}
    (found,) = decision.findings.suspicions
    assert (found.revisited, found.open) == (True, False)


def test_a_stretch_beyond_the_allowance_is_kept_and_shown():
    slow = range(MANY + 10, MANY + 40)
    for case in (
        Case(many(n_extra_rounds=3), series(slow=slow)),
        Case(many(), series(slow=slow), may_revisit=False),
    ):
        decision = settle_visits(case)
        assert decision.rounds == {}
        (found,) = decision.findings.suspicions
        assert (found.revisited, found.open) == (False, True)


def test_a_slow_round_is_divided_out_and_not_taken_again():
    decision = settle_visits(Case(many(), series(slow=range(MANY, 2 * MANY))))
    assert decision.rounds == {}
    (found,) = decision.findings.suspicions
    assert (found.revisited, found.open) == (False, False)


def test_visits_that_count_as_good_are_never_passed_over():
    # From the middle of the third round to the end of the fourth, which is divided out.
    slow, sampling = range(2 * MANY + 30, 4 * MANY), {"n_rounds": 4}
    found = series(n_rounds=4, slow=slow, ratio=1.2)
    decision = settle_visits(Case(many(**sampling), found))
    assert decision.rounds == {f"t{index}": 1 for index in range(30, MANY)}
    again = [
        VisitSummary(f"t{index}", 4, "board", 1000 + index, 1_000_000 * (1 + index), 5)
        for index in range(30, MANY)
    ]
    tasks = [one.task for one in many(**sampling)]
    doubtful = decision.findings.doubtful
    assert replaced_visits(doubtful, tasks, found) == set(), "nothing is taken yet"
    replaced = replaced_visits(doubtful, tasks, [*found, *again])
    assert replaced == {(f"t{index}", 2) for index in range(30, MANY)}


# -- boards ------------------------------------------------------------------------------------


def two_boards(ratio=1.3):
    return [
        VisitSummary(
            f"t{index}", 2 * number + board, f"board {board}", 1000 * number + index,
            round(1e6 * (1 + 0.2 * board) * (ratio if board and not index else 1)
                  * (1 + 0.001 * ((7 * index + 3 * number + board) % 5))), 5)
        for number in range(2) for board in range(2) for index in range(30)
    ]  # fmt: skip


def test_a_task_that_boards_disagree_about_gets_two_more_visits_and_is_then_shown():
    tasks = [task(f"t{index}", Sampling(2, n_extra_rounds=5)) for index in range(30)]
    decision = settle_visits(Case(tasks, two_boards()))
    assert decision.rounds == {"t0": 2}
    (found,) = decision.findings.suspicions
    assert (found.kind, found.revisited, found.open) == (SuspicionKind.DISAGREEMENT, True, True)
    again = settle_visits(Case(tasks, two_boards(), decision.findings))
    assert again.rounds == {}
    assert again.findings == decision.findings
    settled = settle_visits(Case(tasks, two_boards(1.0), decision.findings)).findings
    assert [(one.revisited, one.open) for one in settled.suspicions] == [(True, False)]


# -- entries -----------------------------------------------------------------------------------

SMALL = OpSpec.of("linear", (8,), out_features=4)
BIG = OpSpec.of("linear", (8,), out_features=8)
FOUND = EntryEvidence((MonotonicityBreak(SMALL, BIG, "channels", 1.3, 9.0),), (("t3", "t5"),))


def figures(evidence, before=None, n_extra_rounds=0, visits=None, **sampling):
    case = Case(many(n_extra_rounds, **sampling), visits or series(), before or Findings())
    return settle_figures(case, case.before, evidence)


def test_covers_of_an_entry_that_is_slower_than_a_bigger_ones_are_visited_again_once():
    decision = figures(FOUND)
    assert decision.rounds == {"t3": 1, "t5": 1}
    (found,) = decision.findings.suspicions
    assert (found.kind, found.revisited, found.open) == (SuspicionKind.BREAK, True, True)
    assert "30.0 % slower than with " in found.text
    assert found.text.count("mbconv(") <= 1, "what the two share is said once"
    again = figures(FOUND, decision.findings)
    assert (again.rounds, again.findings.n_open) == ({}, 1)
    mended = figures(EntryEvidence(), again.findings).findings
    assert (len(mended.suspicions), mended.n_revisited, mended.n_open) == (1, 1, 0)


def test_an_entry_that_may_not_be_visited_again_is_shown():
    decision = figures(FOUND, n_extra_rounds=3)
    assert decision.rounds == {}
    assert (decision.findings.n_revisited, decision.findings.n_open) == (0, 1)


def test_without_a_table_breaks_found_before_stay_as_they_are():
    before = figures(FOUND).findings
    assert figures(None, before).findings.suspicions == before.suspicions


# -- precision ---------------------------------------------------------------------------------


def noise_of(*variances):
    noise = CoverNoise(np.array(variances), np.full(len(variances), 3))
    return EntryEvidence(noise=noise, covers=tuple(f"t{index}" for index in range(len(variances))))


NOISY = noise_of(1e-6, 4e-5, 1e-6, 8e-5)
"""Costs a network 0.73 %."""


def test_how_precise_entries_are_is_said_and_nothing_more_done_unless_asked_for():
    decision = figures(NOISY)
    assert decision.rounds == {}
    assert decision.findings.entry_error == pytest.approx(0.0073, rel=0.01)
    assert figures(noise_of(math.nan)).findings.entry_error is None


@pytest.mark.parametrize(
    ("target_error", "rounds"),
    [
        (0.0075, {}),
        (0.007, {"t3": 1}),
        (0.0066, {"t3": 1, "t1": 1}),
        (0.001, {"t3": 1, "t1": 1, "t0": 1, "t2": 1}),
    ],
)
def test_covers_that_bring_most_noise_are_visited_again_while_it_is_too_much(target_error, rounds):
    assert figures(NOISY, target_error=target_error).rounds == rounds


def test_the_target_error_is_bounded_by_the_extra_rounds_and_the_time():
    assert figures(NOISY, target_error=0.001, n_extra_rounds=3).rounds == {}
    case = Case(many(target_error=0.001), series(), may_revisit=False)
    assert settle_figures(case, Findings(), NOISY).rounds == {}


def test_breaks_come_before_precision():
    both = dataclasses.replace(NOISY, breaks=FOUND.breaks, holders=FOUND.holders)
    assert figures(both, target_error=0.001).rounds == {"t3": 1, "t5": 1}


def labelled(role, target_error):
    sampling = Sampling(3, n_extra_rounds=3, target_error=target_error)
    found = [task(f"t{index}", sampling) for index in range(MANY)]
    return [
        dataclasses.replace(one, task=dataclasses.replace(one.task, role=role)) for one in found
    ]


@pytest.mark.parametrize(
    ("role", "n_again"),
    [(Role.CALIBRATION, 1), (Role.MEASURED, 1), (Role.TRAINING, 0), (Role.ALONE, 0)],
)
def test_networks_whose_own_latency_is_too_noisy_are_visited_again(role, n_again):
    visits_of_all = series()
    for number, factor in ((7, 0.987), (MANY + 7, 1.013), (2 * MANY + 7, 0.987)):
        noisy = visits_of_all[number]
        visits_of_all[number] = dataclasses.replace(noisy, median_ns=int(factor * noisy.median_ns))
    case = Case(labelled(role, 0.007), visits_of_all)
    decision = settle_figures(case, Findings(), None)
    assert decision.rounds == {"t7": 1} if n_again else decision.rounds == {}
    calm = Case(labelled(role, 0.02), visits_of_all)
    assert settle_figures(calm, Findings(), None).rounds == {}


def test_a_burst_does_not_spoil_the_error_of_a_label():
    visits_of_all = series(n_rounds=4)
    burst = visits_of_all[MANY + 7]
    visits_of_all[MANY + 7] = dataclasses.replace(burst, median_ns=2 * burst.median_ns)
    case = Case(labelled(Role.CALIBRATION, 0.01), visits_of_all)
    decision = settle_figures(case, Findings(), None)
    assert decision.rounds == {}
    assert decision.findings.label_error < 0.01


def test_networks_whose_error_is_not_known_are_counted():
    busy = [
        dataclasses.replace(visit, conditions=Conditions(other_cpu_share=0.5, online_cores=2))
        if visit.task_id == "t7" else visit for visit in series()
    ]  # fmt: skip
    sampling = Sampling(3)
    tasks = [
        dataclasses.replace(one, task=dataclasses.replace(one.task, sampling=sampling))
        for one in labelled(Role.CALIBRATION, 0.0)
    ]
    found = settle_figures(Case(tasks, busy), Findings(), None).findings
    assert found.n_labels_unknown == 1
    (line,) = precision_in_words(None, found.label_error, 0.0, found.n_labels_unknown)
    assert line.endswith("; 1 network not known")


def test_a_task_that_fails_is_not_visited_again_for_ever():
    failure = TaskFailure("a", "MeasurementError", "it crashed")
    one = task("a", attempts=2, last_failure=failure)
    assert wanted([one], visits("a", 500, 502, 800)) == {}


def test_a_doubtful_visit_is_passed_over_only_where_another_stands_in_for_it():
    doubtful = {("a", 1), ("a", 2)}
    tasks = [task("a").task]
    busy = Conditions(other_cpu_share=0.5, online_cores=2)

    def replaced(*medians_ns, last=Conditions()):  # noqa: B008 - frozen
        of_a = visits("a", *medians_ns)
        of_a[-1] = dataclasses.replace(of_a[-1], conditions=last)
        return replaced_visits(doubtful, tasks, [*CALM_VISITS, *of_a])

    assert replaced(500, 600, 600) == set(), "further visits were ordered, and cut"
    assert replaced(500, 600, 600, 500) == {("a", 2)}
    assert replaced(500, 600, 600, 500, last=busy) == set()
    assert replaced(500, 600, 600, 500, 500) == doubtful


def test_a_target_error_needs_further_visits():
    with pytest.raises(InvalidInputError, match="needs n_extra_rounds of at least 1, not 0"):
        Sampling(3, target_error=0.005)


def test_a_target_error_needs_visits_that_tell_it():
    with pytest.raises(InvalidInputError, match="n_rounds of at least 3, not 2"):
        Sampling(2, target_error=0.005)
    for value in (-0.1, 1.0, math.nan):
        with pytest.raises(InvalidInputError, match="target_error must be a fraction"):
            Sampling(3, target_error=value)
