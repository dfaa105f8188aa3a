"""Who measures: agents and their devices, leases, and what is reported under them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from latlas_coordinator.domain.work import TaskFailure
from latlas_latency.measurement import Device, Visit


class LeaseState(Enum):
    """Where a lease stands. Reports count under an active one only."""

    ACTIVE = "active"
    FINISHED = "finished"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    """The agent came back with a newer epoch."""
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class LeaseItem:
    """A task within a lease and the rounds of it that are wanted, rising."""

    task_id: str
    rounds: tuple[int, ...]


@dataclass(frozen=True)
class LeaseReference:
    """A lease as an agent names it."""

    lease_id: str
    fencing_token: int


@dataclass(frozen=True)
class NewLease:
    """A lease before the store has given it its fencing token; attributes as in `LeaseRecord`."""

    lease_id: str
    agent_id: str
    epoch: int
    device_id: str
    campaign: str
    items: tuple[LeaseItem, ...]
    created_ns: int
    deadline_ns: int


@dataclass(frozen=True)
class LeaseRecord:
    """A batch of tasks of one campaign that one device interleaves in rounds.

    Attributes:
        lease_id: unique.
        fencing_token: grows with every lease.
        agent_id: the agent that holds it.
        epoch: the agent's epoch when it was given.
        device_id: the device that works on it.
        campaign: name of the campaign.
        items: the tasks.
        created_ns: Unix time at which it was given.
        deadline_ns: Unix time at which it is lost unless renewed.
        state: where it stands.
    """

    lease_id: str
    fencing_token: int
    agent_id: str
    epoch: int
    device_id: str
    campaign: str
    items: tuple[LeaseItem, ...]
    created_ns: int
    deadline_ns: int
    state: LeaseState = LeaseState.ACTIVE

    @property
    def reference(self) -> LeaseReference:
        """The lease as an agent names it."""
        return LeaseReference(self.lease_id, self.fencing_token)


@dataclass(frozen=True)
class Report:
    """What an agent says about one task: a visit, or why there is none.

    Attributes:
        sequence: from 1, without gaps, within one epoch of the agent.
        lease: the lease under which it was measured.
        outcome: the visit or the failure.
    """

    sequence: int
    lease: LeaseReference
    outcome: Visit | TaskFailure


@dataclass(frozen=True)
class ReportBatch:
    """Reports of one agent in one epoch, in rising sequence."""

    agent_id: str
    epoch: int
    reports: tuple[Report, ...]


@dataclass(frozen=True)
class RecordedBatch:
    """What became of a `ReportBatch`.

    Attributes:
        last_sequence: the agent's last committed sequence in this epoch.
        n_visits: visits recorded.
        n_failures: failures recorded.
        n_duplicates: reports that had been committed before.
        refused: reason per report that was refused for good.
    """

    last_sequence: int
    n_visits: int = 0
    n_failures: int = 0
    n_duplicates: int = 0
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class AgentRecord:
    """An agent process: identity, epoch (grows with every start), version."""

    agent_id: str
    epoch: int
    version: str


@dataclass(frozen=True)
class DeviceRecord:
    """A device that has been seen.

    Attributes:
        device: the board and what its agent can run on it.
        agent_id: the agent that brought it last.
        epoch: that agent's epoch.
        connected: whether that agent's stream is open.
        last_seen_ns: Unix time of the last sign of life.
        busy_with: campaign it holds a lease of; empty when idle.
    """

    device: Device
    agent_id: str
    epoch: int
    connected: bool
    last_seen_ns: int
    busy_with: str = ""
