"""The coordinator's values to and from messages."""

from __future__ import annotations

from latlas_coordinator.domain import (
    AgentRecord,
    CampaignState,
    CampaignStatus,
    DeviceRecord,
    LatencyModelRecord,
    LeaseReference,
    MeasuredProgram,
    MeasurePlan,
    Plan,
    ProfilePlan,
    Report,
    Sampling,
    TaskFailure,
    ValidationPlan,
)
from latlas_coordinator.handlers.campaigns import CampaignDefinition
from latlas_coordinator.handlers.fleet import Greeting, Work
from latlas_coordinator.handlers.measurements import Measurement
from latlas_coordinator.handlers.suspicion import Requeued, Suspicions
from latlas_coordinator.handlers.targets import TargetRequest
from latlas_latency.judgement_wire import validation_to_message
from latlas_latency.model import Prediction
from latlas_latency.wire import (
    device_from_message,
    device_to_message,
    shapes_from_messages,
    shapes_to_messages,
    target_to_message,
    visit_from_message,
)
from latlas_ops.errors import InvalidInputError, LatlasError, ProtocolError, wire_code
from latlas_protos.v1 import fleet_pb2, measurement_pb2, query_pb2

_MAX_REASON_CHARACTERS = 2_000
_MOST_SUSPICIONS = 5

_STATES = {
    CampaignState.RUNNING: query_pb2.CAMPAIGN_STATE_RUNNING,
    CampaignState.FINISHED: query_pb2.CAMPAIGN_STATE_FINISHED,
    CampaignState.CANCELLED: query_pb2.CAMPAIGN_STATE_CANCELLED,
}


# -- fleet ---------------------------------------------------------------------------------


def greeting_from_message(message: fleet_pb2.Hello) -> Greeting:
    """An agent's hello; raises `InvalidInputError` if it lacks an identity or a device."""
    return Greeting(
        agent=AgentRecord(message.agent_id, message.epoch, message.agent_version),
        devices=tuple(device_from_message(device) for device in message.devices),
        held=tuple(reference_from_message(lease) for lease in message.held),
    )


def reference_from_message(message: fleet_pb2.LeaseReference) -> LeaseReference:
    """A lease as an agent names it."""
    return LeaseReference(message.lease_id, message.fencing_token)


def report_from_message(message: fleet_pb2.Report) -> Report:
    """What an agent reports; a malformed visit becomes the failure of its task.

    Raises:
        ProtocolError: there is neither a visit nor a failure in it.
    """
    kind = message.WhichOneof("outcome")
    lease = reference_from_message(message.lease)
    if kind == "failure":
        failure = TaskFailure(
            message.failure.task_id,
            message.failure.error_code,
            message.failure.reason[:_MAX_REASON_CHARACTERS],
        )
        return Report(message.sequence, lease, failure)
    if kind == "visit":
        try:
            return Report(message.sequence, lease, visit_from_message(message.visit))
        except LatlasError as error:
            reason = f"the agent reported a malformed visit: {error}"
            failure = TaskFailure(message.visit.task_id, wire_code(error), reason)
            return Report(message.sequence, lease, failure)
    raise ProtocolError(f"report {message.sequence} carries neither a visit nor a failure")


def lease_message(work: Work) -> fleet_pb2.CoordinatorMessage:
    """A lease with all that its device needs to know."""
    target = target_to_message(work.target)
    return fleet_pb2.CoordinatorMessage(
        lease=fleet_pb2.Lease(
            lease_id=work.lease.lease_id,
            fencing_token=work.lease.fencing_token,
            device_id=work.lease.device_id,
            deadline_ns=work.lease.deadline_ns,
            items=[
                fleet_pb2.LeaseItem(
                    task_id=item.task.task_id,
                    program_sha256=item.program.sha256,
                    program_format=item.program.format,
                    program_bytes=item.program.n_bytes,
                    target=target,
                    mode=item.task.mode,
                    rounds=item.rounds,
                    warmup_runs=item.task.sampling.warmup_runs,
                    min_runs=item.task.sampling.min_runs,
                    min_duration_ns=item.task.sampling.min_duration_ns,
                    timeout_ns=item.task.sampling.timeout_ns,
                    shapes=shapes_to_messages(work.shapes),
                )
                for item in work.items
            ],
        )
    )


def cancellation_message(lease_id: str, reason: str) -> fleet_pb2.CoordinatorMessage:
    """A lease that the agent is to drop."""
    return fleet_pb2.CoordinatorMessage(
        cancellation=fleet_pb2.LeaseCancellation(lease_id=lease_id, reason=reason)
    )


def extension_message(lease_id: str, deadline_ns: int) -> fleet_pb2.CoordinatorMessage:
    """A lease with a new deadline."""
    return fleet_pb2.CoordinatorMessage(
        extension=fleet_pb2.LeaseExtension(lease_id=lease_id, deadline_ns=deadline_ns)
    )


def acknowledgement_message(sequence: int) -> fleet_pb2.CoordinatorMessage:
    """Everything up to `sequence` is committed."""
    return fleet_pb2.CoordinatorMessage(
        acknowledgement=fleet_pb2.Acknowledgement(sequence=sequence)
    )


# -- query: requests -----------------------------------------------------------------------


def target_request_from_message(message: measurement_pb2.Target) -> TargetRequest:
    """A target with open fields."""
    return TargetRequest(
        name=message.name,
        device_model=message.device_model,
        runtime=message.runtime,
        runtime_version=message.runtime_version,
        provider=message.provider,
        power_mode=message.power_mode,
        execution=message.execution,
        precision=message.precision,
        graph_level=message.graph_level,
        threads=message.threads,
        cores=tuple(message.cores),
        batch=message.batch,
        allow_fallback=message.allow_fallback,
    )


def definition_from_message(message: query_pb2.StartCampaignRequest) -> CampaignDefinition:
    """What the user chose; raises `InvalidInputError` if a value is out of range."""
    if not message.target:
        raise InvalidInputError(f"campaign {message.name!r} needs a target")
    sampling = Sampling()
    if message.HasField("sampling"):
        given = message.sampling
        sampling = Sampling(
            n_rounds=given.n_rounds,
            warmup_runs=given.warmup_runs,
            min_runs=given.min_runs,
            min_duration_ns=given.min_duration_ns,
            timeout_ns=given.timeout_ns,
            n_extra_rounds=given.n_extra_rounds,
            time_budget_ns=given.time_budget_ns,
            target_error=given.target_error,
        )
    return CampaignDefinition(message.name, message.target, _plan(message), sampling)


def _plan(message: query_pb2.StartCampaignRequest) -> Plan:
    kind = message.WhichOneof("plan")
    if kind == "profile":
        return ProfilePlan(
            space=message.profile.space,
            n_training_networks=message.profile.n_training_networks,
            n_calibration_networks=message.profile.n_calibration_networks,
            n_validation_networks=message.profile.n_validation_networks,
            min_occurrences=message.profile.min_occurrences,
            seed=message.profile.seed,
            method=message.profile.method,
            resolutions=tuple(message.profile.resolutions),
        )
    if kind == "validation":
        return ValidationPlan(
            table=message.validation.table,
            n_random_networks=message.validation.n_random_networks,
            n_selected_networks=message.validation.n_selected_networks,
            n_spread_networks=message.validation.n_spread_networks,
            stand_alone=message.validation.stand_alone,
            seed=message.validation.seed,
        )
    if kind == "measure":
        return MeasurePlan(
            tuple(
                MeasuredProgram(program.sha256, program.label)
                for program in message.measure.programs
            ),
            with_nodes=message.measure.with_nodes,
            shapes=shapes_from_messages(message.measure.shapes),
        )
    raise InvalidInputError(
        f"campaign {message.name!r} needs a plan: profile, validation or measure"
    )


# -- query: answers ------------------------------------------------------------------------


def device_state_message(record: DeviceRecord) -> query_pb2.DeviceState:
    """A device and what it does."""
    return query_pb2.DeviceState(
        device=device_to_message(record.device),
        connected=record.connected,
        last_seen_ns=record.last_seen_ns,
        busy_with=record.busy_with,
    )


def campaign_message(status: CampaignStatus, *, in_full: bool = False) -> query_pb2.Campaign:
    """A campaign and its progress; unless in full, with the first open suspicions only."""
    campaign = status.campaign
    return query_pb2.Campaign(
        name=campaign.name,
        target=campaign.target,
        space=campaign.space,
        state=_STATES[campaign.state],
        created_ns=campaign.created_ns,
        n_tasks=status.n_tasks,
        n_visits_wanted=status.n_visits_wanted,
        n_visits_done=status.n_visits_done,
        failed=[
            query_pb2.FailedTask(
                task_id=failed.failure.task_id,
                label=failed.label,
                error_code=failed.failure.error_code,
                reason=failed.failure.reason,
            )
            for failed in status.failed
        ],
        findings=_findings_message(status, in_full),
    )


def _findings_message(status: CampaignStatus, in_full: bool) -> query_pb2.Findings | None:
    found = status.findings
    if found is None:
        return None
    shown = [one for one in found.suspicions if in_full or one.open]
    return query_pb2.Findings(
        suspicions=[
            query_pb2.Suspicion(
                kind=one.kind.value, text=one.text, revisited=one.revisited, open=one.open
            )
            for one in (shown if in_full else shown[:_MOST_SUSPICIONS])
        ],
        entry_error=found.entry_error,
        label_error=found.label_error,
        target_error=status.campaign.sampling.target_error,
        n_suspicions=len(found.suspicions),
        n_revisited=found.n_revisited,
        n_open=found.n_open,
        n_labels_unknown=found.n_labels_unknown,
        remarks=found.remarks,
    )


def measurement_message(measurement: Measurement) -> query_pb2.Measurement:
    """A task with its visits."""
    task = measurement.task
    return query_pb2.Measurement(
        task_id=task.task_id,
        label=task.label,
        role=task.role.value,
        mode=task.mode,
        subject=measurement.subject,
        genes=() if task.arch is None else task.arch.genes,
        visits=[
            query_pb2.VisitSummary(
                round=visit.round,
                device_id=visit.device_id,
                started_ns=visit.started_ns,
                median_ns=visit.median_ns,
                n_runs=visit.n_runs,
                left_out=visit in measurement.left_out,
                flags=flags,
            )
            for visit, flags in zip(measurement.visits, measurement.flags, strict=True)
        ],
    )


def latency_model_message(record: LatencyModelRecord) -> query_pb2.LatencyModelInfo:
    """A latency model and its errors; without validation networks there are none."""
    return query_pb2.LatencyModelInfo(
        name=record.name,
        kind=record.kind,
        space=record.space,
        target=target_to_message(record.target),
        created_ns=record.created_ns,
        n_entries=record.n_entries,
        calibrated=record.calibrated,
        validation=validation_to_message(record.validation),
    )


def suspicions_message(found: Suspicions, requeued: Requeued | None) -> query_pb2.Suspicions:
    """What cannot be right, and what is visited again because of it."""
    return query_pb2.Suspicions(
        breaks=[
            query_pb2.MonotonicityBreak(
                smaller_op_key=one.smaller.key,
                bigger_op_key=one.bigger.key,
                direction=one.direction,
                ratio=one.ratio,
                sigmas=one.sigmas,
            )
            for one in found.breaks
        ],
        stretches=[
            query_pb2.Stretch(
                device_id=one.device_id,
                first_visit_ns=one.first_visit_ns,
                last_visit_ns=one.last_visit_ns,
                ratio=one.ratio,
                n_visits=len(one.visits),
            )
            for one in found.stretches
        ],
        disagreements=[
            query_pb2.BoardDisagreement(
                label=found.labels[one.subject],
                faster_device_id=one.faster,
                slower_device_id=one.slower,
                ratio=one.ratio,
                sigmas=one.sigmas,
            )
            for one in found.disagreements
        ],
        campaign=requeued.campaign if requeued else "",
        n_visits_requeued=requeued.n_visits if requeued else 0,
    )


def prediction_message(prediction: Prediction) -> query_pb2.PredictResponse:
    """Predicted latencies."""
    return query_pb2.PredictResponse(
        mean_ms=prediction.mean_ms.tolist(),
        lower_ms=prediction.lower_ms.tolist(),
        upper_ms=prediction.upper_ms.tolist(),
        measured_ms=prediction.measured_ms.tolist(),
        interpolated_ms=prediction.interpolated_ms.tolist(),
        estimated_ms=prediction.estimated_ms.tolist(),
        level=prediction.level,
        missing_op_keys=[op.key for op in prediction.missing],
    )
