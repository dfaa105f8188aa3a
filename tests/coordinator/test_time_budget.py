"""A campaign with a time budget ends in time, with every task visited once at least."""

import itertools

import pytest

from latlas_coordinator.domain import Sampling
from latlas_coordinator.handlers.campaigns import CampaignDefinition, start_campaign
from latlas_coordinator.handlers.fleet import dispatch
from latlas_coordinator.scheduling import LeasePolicy
from latlas_coordinator.storage import open_store

POLICY = LeasePolicy(duration_ns=10_000)
BUDGET_NS = 500


@pytest.fixture
def store(imagined):
    opened = open_store(":memory:")
    imagined.connect(opened)
    sampling = Sampling(n_rounds=4, n_extra_rounds=3, time_budget_ns=BUDGET_NS)
    start_campaign(opened, CampaignDefinition("c", "bench-ort", imagined.plan, sampling), 0)
    yield opened
    opened.close()


def look(store, now_ns, numbers=itertools.count()):  # noqa: B008 - one counter for all
    return dispatch(store, now_ns, POLICY, lambda: f"lease-{next(numbers)}")


def test_time_runs_from_the_first_lease(store):
    first = look(store, 1_000)
    assert {item.rounds for item in first.work[0].items} == {(0, 1, 2, 3)}
    assert first.next_look_ns == 1_000 + BUDGET_NS


def test_when_time_is_up_the_rest_is_one_round_of_what_was_never_visited(store):
    look(store, 1_000)
    (after,) = look(store, 1_000 + BUDGET_NS).work
    assert {item.rounds for item in after.items} == {(0,)}
    (active,) = store.list_active_leases()
    assert active.lease_id == after.lease.lease_id
    # That lease is left alone, however often one looks.
    assert look(store, 1_100 + BUDGET_NS).work == ()
    assert [lease.lease_id for lease in store.list_active_leases()] == [active.lease_id]
