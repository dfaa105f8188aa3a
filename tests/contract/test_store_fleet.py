"""What every store does with agents, devices, targets and leases."""

import dataclasses

import pytest

from latlas_coordinator.domain import AgentRecord, LeaseReference, LeaseState
from latlas_ops.errors import ConflictError, NotFoundError


def test_a_new_agent_starts_at_sequence_zero_and_brings_its_devices(fleet):
    assert fleet.store.attach_agent(AgentRecord("agent-b", 1, "0.1"), [], now_ns=1) == 0
    [found] = fleet.store.list_devices()
    assert found.device == fleet.device
    assert (found.agent_id, found.connected, found.busy_with) == ("agent-a", True, "")


def test_detaching_an_agent_disconnects_its_devices(fleet):
    fleet.store.detach_agent("agent-a", 1, now_ns=2_000)
    [found] = fleet.store.list_devices()
    assert not found.connected
    assert found.last_seen_ns == 2_000


def test_the_end_of_an_old_stream_does_not_disconnect_a_newer_epoch(fleet):
    newer = dataclasses.replace(fleet.agent, epoch=2)
    fleet.store.attach_agent(newer, [fleet.device], now_ns=1_500)
    fleet.store.detach_agent("agent-a", 1, now_ns=2_000)
    assert fleet.store.list_devices()[0].connected


def test_a_device_that_an_agent_no_longer_brings_is_disconnected(fleet):
    fleet.store.attach_agent(fleet.agent, [], now_ns=3_000)
    assert not fleet.store.list_devices()[0].connected


def test_an_older_epoch_of_a_known_agent_is_refused(fleet):
    fleet.store.attach_agent(dataclasses.replace(fleet.agent, epoch=7), [], now_ns=2)
    with pytest.raises(ConflictError, match="agent-a is known with epoch 7"):
        fleet.store.attach_agent(fleet.agent, [fleet.device], now_ns=3)


def test_two_agents_cannot_bring_one_device_at_once(fleet):
    other = AgentRecord("agent-b", 1, "0.1")
    with pytest.raises(ConflictError, match="device-a is connected through agent agent-a"):
        fleet.store.attach_agent(other, [fleet.device], now_ns=3)
    fleet.store.detach_agent("agent-a", 1, now_ns=4)
    fleet.store.attach_agent(other, [fleet.device], now_ns=5)
    assert fleet.store.list_devices()[0].agent_id == "agent-b"


def test_a_runtime_upgrade_keeps_the_device_and_changes_what_it_offers(fleet):
    upgraded = dataclasses.replace(
        fleet.device,
        runtimes=(dataclasses.replace(fleet.device.runtimes[0], version="1.33.0"),),
    )
    fleet.store.attach_agent(fleet.agent, [upgraded], now_ns=3)
    assert [found.device for found in fleet.store.list_devices()] == [upgraded]


def test_targets_are_kept_by_name(fleet, reopen):
    other = dataclasses.replace(fleet.target, name="a-two", threads=2, cores=(1, 0))
    fleet.store.add_target(other)
    store = reopen(fleet.store)
    assert store.list_targets() == [other, fleet.target]
    assert store.get_target("a-two") == other


def test_adding_a_target_twice_is_harmless_and_changing_it_names_the_field(fleet):
    fleet.store.add_target(fleet.target)
    with pytest.raises(ConflictError, match=r"'bench-ort' is there with threads 1, not 4"):
        fleet.store.add_target(dataclasses.replace(fleet.target, threads=4))


def test_a_missing_target_lists_those_that_exist(fleet):
    with pytest.raises(NotFoundError, match=r"no target 'x'; there are: bench-ort"):
        fleet.store.get_target("x")


def test_fencing_tokens_grow_and_survive(fleet, reopen):
    tasks = fleet.campaign()
    first = fleet.lease(tasks)
    fleet.store.end_lease(first.lease_id, LeaseState.EXPIRED)
    fleet.store = reopen(fleet.store)
    second = fleet.lease(tasks, "lease-2")
    assert second.fencing_token > first.fencing_token


def test_a_device_holds_one_lease_and_says_for_which_campaign(fleet):
    tasks = fleet.campaign()
    lease = fleet.lease(tasks)
    assert fleet.store.list_active_leases() == [lease]
    assert fleet.store.list_devices()[0].busy_with == "first"
    with pytest.raises(ConflictError, match="device-a holds lease lease-1"):
        fleet.lease(tasks, "lease-2")


def test_a_lease_of_a_cancelled_campaign_is_refused(fleet):
    tasks = fleet.campaign()
    fleet.store.cancel_campaign("first")
    with pytest.raises(ConflictError, match="'first' is not running"):
        fleet.lease(tasks)


def test_a_lease_for_an_epoch_that_is_over_is_refused(fleet):
    tasks = fleet.campaign()
    fleet.store.attach_agent(dataclasses.replace(fleet.agent, epoch=2), [fleet.device], now_ns=2)
    with pytest.raises(ConflictError, match="not in epoch 1"):
        fleet.lease(tasks)


def test_cancelling_a_campaign_cancels_its_leases(fleet):
    lease = fleet.lease(fleet.campaign())
    fleet.store.cancel_campaign("first")
    assert fleet.store.list_active_leases() == []
    assert fleet.store.get_lease(lease.lease_id).state is LeaseState.CANCELLED


def test_renewal_moves_deadlines_and_tells_which_leases_are_lost(fleet):
    lease = fleet.lease(fleet.campaign())
    lost = LeaseReference("lease-0", 99)
    stale = LeaseReference(lease.lease_id, lease.fencing_token - 1)
    extended = fleet.store.extend_leases(
        "agent-a", 1, [lost, lease.reference, stale], deadline_ns=500, now_ns=9_000
    )
    assert extended == [lease.reference]
    assert fleet.store.list_active_leases()[0].deadline_ns == 500
    assert fleet.store.list_devices()[0].last_seen_ns == 9_000


def test_another_agent_cannot_renew_a_lease(fleet):
    lease = fleet.lease(fleet.campaign())
    assert fleet.store.extend_leases("agent-b", 1, [lease.reference], 500, 1) == []


def test_a_newer_epoch_gives_up_the_leases_of_the_older(fleet):
    lease = fleet.lease(fleet.campaign())
    fleet.store.attach_agent(dataclasses.replace(fleet.agent, epoch=2), [fleet.device], now_ns=2)
    assert fleet.store.list_active_leases() == []
    assert fleet.store.get_lease(lease.lease_id).state is LeaseState.SUPERSEDED


def test_the_same_epoch_keeps_its_leases_when_it_attaches_again(fleet):
    lease = fleet.lease(fleet.campaign())
    fleet.store.detach_agent("agent-a", 1, now_ns=2)
    fleet.store.attach_agent(fleet.agent, [fleet.device], now_ns=3)
    assert fleet.store.list_active_leases() == [lease]


def test_ending_a_lease_twice_keeps_the_first_end(fleet):
    lease = fleet.lease(fleet.campaign())
    fleet.store.end_lease(lease.lease_id, LeaseState.EXPIRED)
    fleet.store.end_lease(lease.lease_id, LeaseState.FINISHED)
    assert fleet.store.get_lease(lease.lease_id).state is LeaseState.EXPIRED
    with pytest.raises(NotFoundError, match="no lease 'lease-9'"):
        fleet.store.end_lease("lease-9", LeaseState.EXPIRED)


def test_recovery_disconnects_everyone_and_gives_leases_time(fleet, reopen):
    lease = fleet.lease(fleet.campaign(), deadline_ns=100)
    store = reopen(fleet.store)
    store.recover(deadline_ns=9_000)
    assert not store.list_devices()[0].connected
    assert store.list_active_leases() == [dataclasses.replace(lease, deadline_ns=9_000)]
    store.recover(deadline_ns=50)
    assert store.list_active_leases()[0].deadline_ns == 9_000
