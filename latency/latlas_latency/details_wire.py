"""Program details to and from their messages."""

from __future__ import annotations

from latlas_latency.program_details import NodeTime, ProgramDetails, VisitTail
from latlas_latency.wire import opening_from_message, opening_to_message
from latlas_protos.v1 import query_pb2 as pb


def details_to_message(details: ProgramDetails) -> pb.ProgramDetails:
    """The details of a program as a message."""
    opening = details.opening
    return pb.ProgramDetails(
        label=details.label,
        p50_ns=details.p50_ns,
        p95_ns=details.p95_ns,
        p99_ns=details.p99_ns,
        n_runs=details.n_runs,
        visits=[pb.VisitTail(**vars(visit)) for visit in details.visits],
        opening=None if opening is None else opening_to_message(opening),
        nodes=[pb.NodeTime(**vars(node)) for node in details.nodes],
        profiled_ns=details.profiled_ns,
        table=details.table,
        covered=details.covered,
    )


def details_from_message(message: pb.ProgramDetails) -> ProgramDetails:
    """The details in a message."""
    opening = None
    if message.HasField("opening"):
        opening = opening_from_message(message.opening)
    return ProgramDetails(
        label=message.label,
        p50_ns=message.p50_ns,
        p95_ns=message.p95_ns,
        p99_ns=message.p99_ns,
        n_runs=message.n_runs,
        visits=tuple(
            VisitTail(
                round=visit.round,
                device_id=visit.device_id,
                n_runs=visit.n_runs,
                p50_ns=visit.p50_ns,
                p95_ns=visit.p95_ns,
                p99_ns=visit.p99_ns,
                left_out=visit.left_out,
            )
            for visit in message.visits
        ),
        opening=opening,
        nodes=tuple(
            NodeTime(node.node, node.place, node.median_ns, node.share, node.shapes)
            for node in message.nodes
        ),
        profiled_ns=message.profiled_ns,
        table=message.table,
        covered=message.covered if message.HasField("covered") else None,
    )
