"""Tasks whose visits disagree are visited again, within limits."""

import dataclasses

import pytest

from latlas_coordinator.domain import Role, Sampling, Task, TaskFailure, TaskProgress, VisitSummary
from latlas_coordinator.settling import extra_rounds
from latlas_latency.measurement import PLAIN, Conditions

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
    return extra_rounds([*CALM, *tasks], [*CALM_VISITS, *found])


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
    assert extra_rounds(CALM, [*CALM_VISITS, *fast]) == {}


def crowded(found):
    busy = Conditions(other_cpu_share=0.5, online_cores=2)
    return [dataclasses.replace(visit, conditions=busy) for visit in found]


def test_disturbed_visits_are_made_up_for():
    first, *others = visits("a", 500, 501, 502)
    assert wanted([task("a")], [*crowded([first]), *others]) == {"a": 1}


def test_a_device_that_is_always_disturbed_is_taken_as_it_is():
    found = crowded([*CALM_VISITS, *visits("a", 500, 501, 502)])
    assert extra_rounds([*CALM, task("a")], found) == {}
