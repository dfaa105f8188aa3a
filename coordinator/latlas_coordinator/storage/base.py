"""`Store`: the one interface to everything the coordinator keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence

from latlas_coordinator.domain import (
    AgentRecord,
    Campaign,
    CampaignStatus,
    DeviceRecord,
    Findings,
    LatencyModelRecord,
    LeaseRecord,
    LeaseReference,
    LeaseState,
    Looked,
    NewLease,
    ProgramRecord,
    RecordedBatch,
    ReportBatch,
    Role,
    Suspicion,
    Task,
    TaskFailure,
    TaskProgress,
    VisitSummary,
)
from latlas_latency.measurement import Device, Target, Visit


class Store(ABC):
    """Everything the coordinator keeps. Blocking; every method may be called from any thread.

    Each method is one transaction: it happens as a whole or not at all, and what has returned
    survives the end of the process. Missing things raise `NotFoundError`, contradictions
    `ConflictError`, an unreadable or unwritable medium `StorageError`.
    """

    @abstractmethod
    def close(self) -> None:
        """Releases connections and files; the store must not be used afterwards."""

    # -- agents and devices ----------------------------------------------------------------

    @abstractmethod
    def recover(self, deadline_ns: int) -> None:
        """To be called once when a coordinator starts.

        No agent is connected, and active leases are kept until `deadline_ns` at least, so that
        agents find time to come back with what they hold.
        """

    @abstractmethod
    def attach_agent(self, agent: AgentRecord, devices: Sequence[Device], now_ns: int) -> int:
        """Notes that an agent is connected with its devices.

        Leases that the agent held in an older epoch end as `SUPERSEDED`. Devices that this agent
        brought before and does not bring now count as disconnected.

        Returns:
            The last committed sequence of this agent and epoch; 0 if none.

        Raises:
            ConflictError: the agent is known with a newer epoch, or a device is connected
                through another agent.
        """

    @abstractmethod
    def detach_agent(self, agent_id: str, epoch: int, now_ns: int) -> None:
        """Notes that an agent's stream is gone; without effect if it is known with a newer epoch.

        Leases stay active until their deadline.
        """

    @abstractmethod
    def list_devices(self) -> list[DeviceRecord]:
        """Every device that was ever seen, by `device_id`."""

    # -- targets ---------------------------------------------------------------------------

    @abstractmethod
    def add_target(self, target: Target) -> None:
        """Keeps a target; without effect if the same is there.

        Raises:
            ConflictError: the name stands for other conditions; the message names the field.
        """

    @abstractmethod
    def get_target(self, name: str) -> Target:
        """The target of a name; raises `NotFoundError` listing those that exist."""

    @abstractmethod
    def list_targets(self) -> list[Target]:
        """Every target, by name."""

    # -- programs --------------------------------------------------------------------------

    @abstractmethod
    def put_program(self, record: ProgramRecord, data: bytes) -> None:
        """Keeps a program; without effect if it is there.

        A program that was uploaded first and is written by the coordinator later gains its
        network and tensor positions.

        Raises:
            CorruptProgramError: `data` does not have the hash or size that the record claims.
            ConflictError: it is there in another format.
        """

    @abstractmethod
    def get_program(self, sha256: str) -> ProgramRecord:
        """A program without its bytes; raises `NotFoundError`."""

    @abstractmethod
    def get_programs(self, sha256s: Collection[str]) -> dict[str, ProgramRecord]:
        """Several programs without their bytes; raises `NotFoundError` naming a missing one."""

    @abstractmethod
    def read_program(self, sha256: str) -> bytes:
        """The bytes of a program; raises `NotFoundError`."""

    # -- campaigns and tasks ---------------------------------------------------------------

    @abstractmethod
    def create_campaign(self, campaign: Campaign, tasks: Sequence[Task]) -> None:
        """Keeps a campaign with its tasks.

        Raises:
            ConflictError: a campaign of that name is there.
            NotFoundError: its target, or a program of a task, is not there.
        """

    @abstractmethod
    def get_campaign(self, name: str) -> CampaignStatus:
        """A campaign and its progress; raises `NotFoundError`."""

    @abstractmethod
    def list_campaigns(self) -> list[CampaignStatus]:
        """Every campaign with its progress, oldest first."""

    @abstractmethod
    def cancel_campaign(self, name: str) -> None:
        """Cancels a running campaign and its active leases; without effect on one that has ended.

        Raises:
            NotFoundError: no campaign has that name.
        """

    @abstractmethod
    def list_tasks(self, campaign: str) -> list[TaskProgress]:
        """The tasks of a campaign in the order of their creation; raises `NotFoundError`."""

    @abstractmethod
    def list_open_tasks(self) -> list[TaskProgress]:
        """Tasks of running campaigns that lack visits and were not given up.

        Oldest campaign first, within it in the order of creation.
        """

    @abstractmethod
    def give_up_task(self, failure: TaskFailure) -> None:
        """Marks a task as failed for good; raises `NotFoundError`."""

    @abstractmethod
    def list_complete_campaigns(self) -> list[Campaign]:
        """Running campaigns without open tasks, oldest first."""

    @abstractmethod
    def list_first_leases(self) -> dict[str, int]:
        """Running campaign → Unix time of its first lease; without those that had none yet."""

    @abstractmethod
    def end_rounds(self, campaign: str) -> bool:
        """Leaves every task of a campaign with the rounds that it has visits of, and at least one.

        Active leases of the campaign end as `CANCELLED` if any task wanted more.

        Returns:
            Whether any task wanted more.

        Raises:
            NotFoundError: no campaign has that name.
        """

    @abstractmethod
    def end_task_rounds(self, task_id: str) -> None:
        """Leaves a task with the rounds that it has visits of, and at least one.

        Raises:
            NotFoundError: there is no such task.
        """

    @abstractmethod
    def settle_campaign(
        self, name: str, findings: Findings, n_rounds: Mapping[str, int], looked: Looked
    ) -> bool:
        """Keeps what was found in a running campaign that is complete, and what follows from it.

        Its tasks are visited so many times more, by `task_id`; without any it ends as `FINISHED`.

        Returns:
            Whether it did so: a campaign that is not any more as it was looked at, or has ended or
            was given rounds meanwhile, is left alone.

        Raises:
            NotFoundError: no campaign has that name, or no task of it one of these identities.
        """

    @abstractmethod
    def add_rounds(
        self, campaign: str, n_rounds: Mapping[str, int], found: Sequence[Suspicion] = ()
    ) -> None:
        """Has tasks of a campaign visited so many times more; it runs again if it had finished.

        What was found joins its findings at once, see `Findings.joined_by`.

        Raises:
            NotFoundError: no campaign has that name, or no task of it one of these identities.
        """

    # -- leases ----------------------------------------------------------------------------

    @abstractmethod
    def create_lease(self, lease: NewLease) -> LeaseRecord:
        """Keeps a lease under a fencing token larger than every earlier one.

        Raises:
            ConflictError: the device holds an active lease, the campaign is not running, or the
                agent has a newer epoch.
        """

    @abstractmethod
    def list_active_leases(self) -> list[LeaseRecord]:
        """Active leases by fencing token. Tasks that failed under a lease are no longer in it."""

    @abstractmethod
    def get_lease(self, lease_id: str) -> LeaseRecord:
        """A lease with all its items, in whatever state; raises `NotFoundError`."""

    @abstractmethod
    def extend_leases(
        self,
        agent_id: str,
        epoch: int,
        leases: Sequence[LeaseReference],
        deadline_ns: int,
        now_ns: int,
    ) -> list[LeaseReference]:
        """Moves the deadlines of an agent's active leases and notes that it lives.

        Returns:
            Those of `leases` that are extended; the others are lost.
        """

    @abstractmethod
    def end_lease(self, lease_id: str, state: LeaseState) -> None:
        """Ends an active lease; without effect on one that has ended; raises `NotFoundError`."""

    @abstractmethod
    def finish_lease(self, agent_id: str, epoch: int, lease: LeaseReference) -> None:
        """Ends as `FINISHED` a lease of which its agent says that it has done all it can.

        Tasks of it that lack a visit they were leased for and report no failure count as failed
        under it, so that a lease that brings nothing is not given again for ever. Without effect
        on a lease that has ended or is not that agent's.
        """

    # -- visits ----------------------------------------------------------------------------

    @abstractmethod
    def record_reports(self, batches: Sequence[ReportBatch], now_ns: int) -> list[RecordedBatch]:
        """Commits the reports of several agents in one transaction.

        A report whose sequence was committed before is a duplicate. A report is refused for good
        if its lease is not active, or is not that agent's in that epoch under that token; if it
        is of a task, device, mode or round that was not leased; or if the round has a visit.
        Both count as committed: the sequence moves past them.

        Returns:
            One result per batch, in order.
        """

    @abstractmethod
    def list_visit_summaries(self, campaign: str) -> list[VisitSummary]:
        """Visits of a campaign by task and round; raises `NotFoundError`."""

    @abstractmethod
    def read_visits(
        self, campaign: str, roles: Collection[Role] | None = None
    ) -> dict[str, list[Visit]]:
        """Raw visits of a campaign.

        Args:
            campaign: its name.
            roles: only tasks of these roles; None for all.

        Returns:
            Task → its visits by round; tasks without a visit are absent.

        Raises:
            NotFoundError: no campaign has that name.
        """

    # -- latency models --------------------------------------------------------------------

    @abstractmethod
    def put_latency_model(self, record: LatencyModelRecord, data: bytes) -> None:
        """Keeps a latency model, in place of an earlier one made from the same things.

        Raises:
            ConflictError: the name stands for a model of another kind, space, campaign or
                target; the message names the field.
        """

    @abstractmethod
    def get_latency_model(self, name: str) -> LatencyModelRecord:
        """A model without its bytes; raises `NotFoundError` listing those that exist."""

    @abstractmethod
    def read_latency_model(self, name: str) -> bytes:
        """The bytes of a model; raises `NotFoundError`."""

    @abstractmethod
    def list_latency_models(self) -> list[LatencyModelRecord]:
        """Every latency model, by name."""
