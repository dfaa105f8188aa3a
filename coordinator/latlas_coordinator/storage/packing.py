"""Values to and from what a database column holds: JSON-ready values and compact bytes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latlas_coordinator.domain import (
    PLAN_KINDS,
    Findings,
    LeaseItem,
    MeasuredProgram,
    Plan,
    Suspicion,
    SuspicionKind,
    VisitKey,
    plan_kind,
)
from latlas_latency.formats.fields import Fields
from latlas_latency.formats.records import validation_from, validation_record
from latlas_latency.measurement import (
    WHOLE_NETWORK,
    Computed,
    Conditions,
    Device,
    Opening,
    OutputDigest,
    RuntimeCapability,
    Series,
)
from latlas_latency.validation import Validation
from latlas_ops.errors import LatlasError, StorageError
from latlas_ops.space import ArchConfig

Json = Any
"""What the JSON type of a column takes and gives."""

_NODES_VERSION = 1


def pack_program(data: bytes) -> bytes:
    """A program, compressed (zlib): those that the coordinator writes shrink to a fiftieth."""
    return zlib.compress(data, level=1)


def unpack_program(packed: bytes) -> bytes:
    """The inverse of `pack_program`; raises `StorageError` if the bytes are broken."""
    try:
        return zlib.decompress(packed)
    except zlib.error as error:
        raise StorageError(f"a stored program is broken: {error}") from error


def pack_samples(series: Series) -> bytes:
    """Samples of a whole network as little-endian int64."""
    return series.packed()


def unpack_samples(packed: bytes) -> Series:
    """The series of a whole network; raises `StorageError` if the bytes are broken."""
    try:
        return Series.unpack(WHOLE_NETWORK, packed)
    except LatlasError as error:
        raise StorageError(f"a stored visit is broken: {error}") from error


def pack_nodes(nodes: Sequence[Series]) -> bytes:
    """Series of nodes, all of one length, in one compressed block.

    Layout before compression (zlib): one line of JSON with `version`, `labels`, `nodes`, `places`
    and `shapes`, a line feed, then the samples `(n_nodes, n_runs)` as little-endian int64 in C
    order. Visits of earlier versions have no `places` or no `shapes`.
    """
    header = json.dumps(
        {
            "version": _NODES_VERSION,
            "labels": [series.label for series in nodes],
            "nodes": [series.node for series in nodes],
            "places": [series.place for series in nodes],
            "shapes": [series.shapes for series in nodes],
        },
        separators=(",", ":"),
    )
    samples = b"".join(series.packed() for series in nodes)
    return zlib.compress(header.encode() + b"\n" + samples, level=1)


def unpack_nodes(packed: bytes) -> tuple[Series, ...]:
    """The inverse of `pack_nodes`; raises `StorageError` if the bytes are broken or newer."""
    try:
        header_line, _, samples = zlib.decompress(packed).partition(b"\n")
        header = json.loads(header_line)
        if header["version"] != _NODES_VERSION:
            raise StorageError(
                f"stored node times have version {header['version']}, this Latlas reads "
                f"{_NODES_VERSION}: upgrade Latlas"
            )
        labels, nodes = header["labels"], header["nodes"]
        unknown = [""] * len(labels)
        places, shapes = header.get("places") or unknown, header.get("shapes") or unknown
        rows = np.frombuffer(samples, dtype="<i8").reshape(len(labels), -1)
        return tuple(
            Series(label, row, node, place, shape)
            for label, node, place, shape, row in zip(
                labels, nodes, places, shapes, rows, strict=True
            )
        )
    except (zlib.error, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"stored node times are broken: {error}") from error


def conditions_to_json(conditions: Conditions) -> Json:
    """Only the figures that are known."""
    return {name: value for name, value in vars(conditions).items() if value is not None}


def conditions_from_json(record: Mapping[str, Any]) -> Conditions:
    """Inverse of `conditions_to_json`; figures of a newer version are passed over."""
    known = {field.name for field in dataclasses.fields(Conditions)}
    return Conditions(**{name: value for name, value in record.items() if name in known})


def opening_to_json(opening: Opening) -> Json:
    """Every field that is known."""
    record = dataclasses.asdict(opening)
    return {name: value for name, value in record.items() if value is not None}


def opening_from_json(record: Mapping[str, Any]) -> Opening:
    """Inverse of `opening_to_json`; also of records made before programs told what they compute.

    Figures of a newer version are passed over.
    """
    computed = None
    if (found := record.get("computed")) is not None:
        outputs = (
            OutputDigest(tuple(one["shape"]), one["norm"], tuple(one["values"]), one["is_finite"])
            for one in found["outputs"]
        )
        computed = Computed(tuple(found["inputs"]), tuple(outputs))
    known = {field.name for field in dataclasses.fields(Opening)}
    kept = {name: value for name, value in record.items() if name in known}
    return Opening(**{**kept, "computed": computed})


def device_to_json(device: Device) -> Json:
    """Every field, capabilities as a list."""
    return dataclasses.asdict(device)


def device_from_json(record: Mapping[str, Any]) -> Device:
    """Inverse of `device_to_json`."""
    runtimes = []
    for found in record["runtimes"]:
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in found.items()
        }
        runtimes.append(RuntimeCapability(**values))
    cores = tuple(record.get("cores", ()))
    return Device(**{**record, "runtimes": tuple(runtimes), "cores": cores})


def plan_to_json(plan: Plan) -> Json:
    """The plan's fields and its kind."""
    return {"kind": plan_kind(plan), **dataclasses.asdict(plan)}


def plan_from_json(record: Mapping[str, Any]) -> Plan:
    """Inverse of `plan_to_json`."""
    fields: dict[str, Any] = {name: value for name, value in record.items() if name != "kind"}
    if "programs" in fields:
        fields["programs"] = tuple(MeasuredProgram(**program) for program in fields["programs"])
    if "shapes" in fields:
        fields["shapes"] = tuple((name, tuple(sizes)) for name, sizes in fields["shapes"])
    if "resolutions" in fields:
        fields["resolutions"] = tuple(fields["resolutions"])
    return PLAN_KINDS[record["kind"]](**fields)


def findings_to_json(findings: Findings) -> Json:
    """Every field; kinds of suspicions by name, doubtful visits by round."""
    suspicions = [
        {**vars(one), "kind": one.kind.value, "doubtful": _visit_keys_to_json(one.doubtful)}
        for one in findings.suspicions
    ]
    return {**vars(findings), "suspicions": suspicions, "remarks": list(findings.remarks)}


def findings_from_json(record: Mapping[str, Any] | None) -> Findings | None:
    """Inverse of `findings_to_json`; None, of a campaign not looked at yet, stays None."""
    if record is None:
        return None
    suspicions = tuple(
        Suspicion(
            **{
                **one,
                "kind": SuspicionKind(one["kind"]),
                "doubtful": _visit_keys_from_json(one["doubtful"]),
            }
        )
        for one in record["suspicions"]
    )
    remarks = tuple(record["remarks"])
    return Findings(**{**record, "suspicions": suspicions, "remarks": remarks})


def _visit_keys_to_json(visits: Sequence[VisitKey]) -> Json:
    """What all tasks begin with, and by round the rest of their names: a few bytes each.

    A stretch may be of thousands of visits, and findings are read with every listing.
    """
    common = _common_beginning([task_id for task_id, _ in visits])
    rounds: dict[str, list[str]] = {}
    for task_id, number in visits:
        rounds.setdefault(str(number), []).append(task_id[len(common) :])
    return {"tasks": common, "rounds": rounds}


def _common_beginning(names: Sequence[str]) -> str:
    """What all names begin with: what the first and the last in order do; empty for no names."""
    pairs = zip(min(names, default=""), max(names, default=""), strict=False)
    return "".join(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _visit_keys_from_json(record: Mapping[str, Any]) -> tuple[VisitKey, ...]:
    return tuple(
        (record["tasks"] + rest, int(number))
        for number, found in record["rounds"].items()
        for rest in found
    )


def arch_to_json(arch: ArchConfig | None) -> Json:
    """The architecture's fields; None stays None."""
    return None if arch is None else dataclasses.asdict(arch)


def arch_from_json(record: Mapping[str, Any] | None) -> ArchConfig | None:
    """Inverse of `arch_to_json`."""
    if record is None:
        return None
    return ArchConfig(record["space"], record["version"], tuple(record["genes"]))


def items_to_json(items: Sequence[LeaseItem]) -> Json:
    """Pairs of task and rounds."""
    return [[item.task_id, list(item.rounds)] for item in items]


def items_from_json(record: Sequence[Any]) -> tuple[LeaseItem, ...]:
    """Inverse of `items_to_json`."""
    return tuple(LeaseItem(task_id, tuple(rounds)) for task_id, rounds in record)


def validation_to_json(validation: Validation | None) -> Json:
    """As in the files of latency models."""
    return validation_record(validation)


def validation_from_json(record: Mapping[str, Any] | None) -> Validation | None:
    """Inverse of `validation_to_json`."""
    return validation_from(None if record is None else Fields(dict(record), "stored validation"))
