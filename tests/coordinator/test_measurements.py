"""What models are made from is what listings say: one campaign, one judgement of every visit."""

import dataclasses

import pytest

from latlas_coordinator.domain import Role, Sampling
from latlas_coordinator.handlers import latency_models
from latlas_coordinator.handlers.campaigns import CampaignDefinition, start_campaign
from latlas_coordinator.handlers.measurements import list_measurements, read_observations
from latlas_coordinator.storage import open_store
from latlas_latency.measurement import Conditions

USUAL_MHZ, SLOW_MHZ = 2400.0, 1200.0


@pytest.fixture
def store(imagined, monkeypatch):
    """A finished campaign of three rounds; in two of them, cover networks met a slow clock."""
    taken = imagined._visit

    def visit(task, program, number, rng):
        slow = task.role is Role.COVER and number < 2
        conditions = Conditions(clock_mhz=SLOW_MHZ if slow else USUAL_MHZ)
        return dataclasses.replace(taken(task, program, number, rng), conditions=conditions)

    monkeypatch.setattr(imagined, "_visit", visit)
    opened = open_store(":memory:")
    imagined.connect(opened)
    start_campaign(opened, CampaignDefinition("p1", "bench-ort", imagined.plan, Sampling(3)), 0)
    imagined.measure(opened, "p1")
    yield opened
    opened.close()


@pytest.mark.parametrize("roles", [[Role.COVER], [Role.CALIBRATION, Role.COVER], list(Role)])
def test_models_leave_out_what_a_listing_says_whatever_roles_are_read(store, roles):
    listed = {one.task.task_id: one for one in list_measurements(store, "p1")}
    found = read_observations(store, "p1", roles)
    assert {task.role for task, _ in found} <= set(roles)
    for task, seen in found:
        left_out = {visit.round for visit in listed[task.task_id].left_out}
        assert left_out == ({0, 1} if task.role is Role.COVER else set())
        assert {visit.round for visit in seen.visits} == {0, 1, 2} - left_out
        assert seen.n_left_out == len(left_out)


def test_a_table_counts_as_left_out_what_the_listing_does(store):
    record = latency_models.build_table(store, "t1", "p1", now_ns=7)
    table = latency_models.ModelCache().get(store, record.name)
    listed = [visit for one in list_measurements(store, "p1") for visit in one.left_out]
    assert table.conditions.n_left_out == len(listed) > 0
