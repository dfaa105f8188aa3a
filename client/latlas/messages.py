"""Query messages to and from values: the one place where the client meets protobuf."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from latlas.records import (
    CANCELLED,
    FINISHED,
    RUNNING,
    BoardDisagreement,
    CampaignStatus,
    DeviceState,
    FailedTask,
    Findings,
    Measurement,
    ModelInfo,
    MonotonicityBreak,
    Sampling,
    Stretch,
    Suspicion,
    Suspicions,
    VisitSummary,
)
from latlas_latency.judgement_wire import validation_from_message
from latlas_latency.model import Milliseconds, Prediction
from latlas_latency.wire import device_from_message, target_from_message
from latlas_ops.errors import InvalidInputError, ProtocolError, SpaceMismatchError
from latlas_ops.network import Network
from latlas_ops.opspec import OpSpec
from latlas_ops.space import ArchBatch, ArchConfig
from latlas_protos.v1 import query_pb2 as pb

_Record = TypeVar("_Record", MonotonicityBreak, Stretch, BoardDisagreement)

_STATES = {
    pb.CAMPAIGN_STATE_RUNNING: RUNNING,
    pb.CAMPAIGN_STATE_FINISHED: FINISHED,
    pb.CAMPAIGN_STATE_CANCELLED: CANCELLED,
}


_ARCHS_PER_CALL = 1 << 18
_NETWORKS_PER_CALL = 1 << 11


def device_state(message: pb.DeviceState) -> DeviceState:
    """A device as the coordinator sees it."""
    return DeviceState(
        device=device_from_message(message.device),
        connected=message.connected,
        last_seen_ns=message.last_seen_ns,
        busy_with=message.busy_with,
    )


def sampling_message(sampling: Sampling) -> pb.Sampling:
    """How to time, as a message."""
    return pb.Sampling(
        n_rounds=sampling.n_rounds,
        warmup_runs=sampling.warmup_runs,
        min_runs=sampling.min_runs,
        min_duration_ns=sampling.min_duration_ns,
        timeout_ns=sampling.timeout_ns,
        n_extra_rounds=sampling.n_extra_rounds,
        time_budget_ns=sampling.time_budget_ns,
        target_error=sampling.target_error,
    )


def campaign_status(message: pb.Campaign) -> CampaignStatus:
    """How far a campaign is.

    Raises:
        ProtocolError: a state that this version does not know.
    """
    if message.state not in _STATES:
        raise ProtocolError(
            f"campaign {message.name!r} is in a state that this version of latlas does not know "
            f"({message.state}); update latlas"
        )
    return CampaignStatus(
        name=message.name,
        target=message.target,
        space=message.space,
        state=_STATES[message.state],
        created_ns=message.created_ns,
        n_tasks=message.n_tasks,
        n_visits_wanted=message.n_visits_wanted,
        n_visits_done=message.n_visits_done,
        failed=tuple(
            FailedTask(task.task_id, task.label, task.error_code, task.reason)
            for task in message.failed
        ),
        findings=_findings(message.findings) if message.HasField("findings") else None,
    )


def _findings(message: pb.Findings) -> Findings:
    return Findings(
        suspicions=tuple(
            Suspicion(one.kind, one.text, one.revisited, one.open) for one in message.suspicions
        ),
        entry_error=message.entry_error if message.HasField("entry_error") else None,
        label_error=message.label_error if message.HasField("label_error") else None,
        target_error=message.target_error,
        n_suspicions=message.n_suspicions,
        n_revisited=message.n_revisited,
        n_open=message.n_open,
        n_labels_unknown=message.n_labels_unknown,
        remarks=tuple(message.remarks),
    )


def measurement(message: pb.Measurement) -> Measurement:
    """A task with its visits, in order of round."""
    visits = [
        VisitSummary(
            visit.round,
            visit.device_id,
            visit.started_ns,
            visit.median_ns,
            visit.n_runs,
            visit.left_out,
            tuple(visit.flags),
        )
        for visit in message.visits
    ]
    return Measurement(
        task_id=message.task_id,
        label=message.label,
        role=message.role,
        mode=message.mode,
        subject=message.subject,
        genes=tuple(message.genes),
        visits=tuple(sorted(visits, key=lambda visit: (visit.round, visit.started_ns))),
    )


def model_info(message: pb.LatencyModelInfo) -> ModelInfo:
    """What a latency model is and how good it is."""
    return ModelInfo(
        name=message.name,
        kind=message.kind,
        space=message.space,
        target=target_from_message(message.target),
        created_ns=message.created_ns,
        n_entries=message.n_entries,
        calibrated=message.calibrated,
        validation=validation_from_message(message.validation),
    )


def suspicions(message: pb.Suspicions) -> Suspicions:
    """What in a table cannot be right."""

    def values(part: Any, kind: type[_Record]) -> _Record:
        return kind(**{field: getattr(part, field) for field in kind.__dataclass_fields__})

    return Suspicions(
        breaks=tuple(values(part, MonotonicityBreak) for part in message.breaks),
        stretches=tuple(values(part, Stretch) for part in message.stretches),
        disagreements=tuple(values(part, BoardDisagreement) for part in message.disagreements),
        campaign=message.campaign,
        n_visits_requeued=message.n_visits_requeued,
    )


def predict_requests(
    subjects: ArchBatch | Sequence[ArchConfig] | Sequence[Network],
) -> Iterator[pb.PredictRequest]:
    """The subjects in as many requests as keep each message well below the limit.

    Raises:
        InvalidInputError: there are none, or they are architectures and networks mixed.
        SpaceMismatchError: architectures of several spaces.
    """
    if not len(subjects):
        raise InvalidInputError("nothing to predict: no architecture and no network given")
    if isinstance(subjects, ArchBatch):
        space, version, genes = subjects.space.name, subjects.space.version, subjects.genes
    elif all(isinstance(subject, Network) for subject in subjects):
        networks = [subject.to_json() for subject in subjects if isinstance(subject, Network)]
        for start in range(0, len(networks), _NETWORKS_PER_CALL):
            part = networks[start : start + _NETWORKS_PER_CALL]
            yield pb.PredictRequest(networks=pb.Networks(json=part))
        return
    else:
        space, version, genes = _packed(subjects)
    for start in range(0, len(genes), _ARCHS_PER_CALL):
        rows = np.ascontiguousarray(genes[start : start + _ARCHS_PER_CALL], dtype=np.int8)
        yield pb.PredictRequest(
            architectures=pb.Architectures(
                space=space, version=version, n_archs=len(rows), packed_genes=rows.tobytes()
            )
        )


def _packed(
    subjects: Sequence[ArchConfig] | Sequence[Network],
) -> tuple[str, int, NDArray[np.int8]]:
    archs = [subject for subject in subjects if isinstance(subject, ArchConfig)]
    if len(archs) != len(subjects):
        raise InvalidInputError("a prediction is about architectures or networks, not a mixture")
    space, version, n_genes = archs[0].space, archs[0].version, len(archs[0].genes)
    for arch in archs:
        if (arch.space, arch.version) != (space, version):
            raise SpaceMismatchError(
                f"architectures of {space!r} version {version} and {arch.space!r} version "
                f"{arch.version} in one prediction"
            )
        if len(arch.genes) != n_genes:
            raise InvalidInputError(
                f"architectures with {n_genes} and {len(arch.genes)} genes in one prediction"
            )
    genes = np.array([arch.genes for arch in archs], dtype=np.int64)
    limits = np.iinfo(np.int8)
    wrong = genes[(genes < limits.min) | (genes > limits.max)]
    if wrong.size:
        raise InvalidInputError(f"space {space!r}: gene {wrong[0]} is no choice index")
    return space, version, genes.astype(np.int8)


def prediction(messages: list[pb.PredictResponse]) -> Prediction:
    """The answers to consecutive parts of one request as one prediction.

    Raises:
        ProtocolError: the coordinator answered with arrays of unlike lengths.
    """

    def joined(field: str) -> Milliseconds:
        return np.concatenate([np.asarray(getattr(part, field), np.float64) for part in messages])

    fields = {
        field: joined(field)
        for field in (
            "mean_ms",
            "lower_ms",
            "upper_ms",
            "measured_ms",
            "interpolated_ms",
            "estimated_ms",
        )
    }
    if len({len(values) for values in fields.values()}) != 1:
        raise ProtocolError("the coordinator answered a prediction with arrays of unlike lengths")
    missing = dict.fromkeys(key for part in messages for key in part.missing_op_keys)
    return Prediction(
        **fields,
        level=messages[0].level,
        missing=tuple(OpSpec.from_key(key) for key in missing),
    )
