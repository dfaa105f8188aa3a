"""Measurement values to and from their messages: the one place where they meet the wire."""

from __future__ import annotations

from collections.abc import Iterable

from latlas_latency.measurement.device import Device, RuntimeCapability
from latlas_latency.measurement.outputs import Computed, OutputDigest
from latlas_latency.measurement.target import Target
from latlas_latency.measurement.visit import (
    Conditions,
    InputShapes,
    Opening,
    Series,
    Visit,
    input_shapes,
)
from latlas_ops.errors import InvalidInputError
from latlas_protos.v1 import measurement_pb2 as pb

_CONDITION_FIELDS = (
    "clock_mhz",
    "temperature_celsius",
    "throttled",
    "load_1min",
    "other_cpu_share",
    "available_memory_bytes",
    "governor",
    "waiting_share",
    "memory_stall_share",
    "power_mode",
    "online_cores",
    "max_clock_mhz",
    "gpu_clock_mhz",
    "other_gpu_share",
    "other_gpu_memory_bytes",
    "available_gpu_memory_bytes",
)


def target_to_message(target: Target) -> pb.Target:
    """A target as a message."""
    return pb.Target(
        name=target.name,
        device_model=target.device_model,
        runtime=target.runtime,
        runtime_version=target.runtime_version,
        provider=target.provider,
        power_mode=target.power_mode,
        execution=target.execution,
        precision=target.precision,
        graph_level=target.graph_level,
        threads=target.threads,
        cores=target.cores,
        batch=target.batch,
        allow_fallback=target.allow_fallback,
    )


def target_from_message(message: pb.Target) -> Target:
    """The target of a message; raises `InvalidInputError` if a field is off."""
    return Target(
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


def shapes_to_messages(shapes: InputShapes) -> list[pb.InputShape]:
    """Shapes of inputs as messages."""
    return [pb.InputShape(name=name, sizes=sizes) for name, sizes in shapes]


def shapes_from_messages(messages: Iterable[pb.InputShape]) -> InputShapes:
    """The inverse; raises `InvalidInputError` if a shape is none."""
    return input_shapes({message.name: tuple(message.sizes) for message in messages})


def visit_to_message(visit: Visit) -> pb.Visit:
    """A visit as a message; samples packed."""
    known = {
        name: value
        for name in _CONDITION_FIELDS
        if (value := getattr(visit.conditions, name)) is not None
    }
    return pb.Visit(
        task_id=visit.task_id,
        device_id=visit.device_id,
        round=visit.round,
        mode=visit.mode,
        started_ns=visit.started_ns,
        duration_ns=visit.duration_ns,
        warmup_runs=visit.warmup_runs,
        series=[
            pb.Series(
                label=series.label,
                node=series.node,
                packed_samples_ns=series.packed(),
                place=series.place,
                shapes=series.shapes,
            )
            for series in visit.series
        ],
        conditions=pb.Conditions(**known),
        opening=None if visit.opening is None else opening_to_message(visit.opening),
    )


def visit_from_message(message: pb.Visit) -> Visit:
    """The visit of a message; raises `InvalidInputError` if it is not a valid one."""
    conditions = Conditions(
        **{
            name: getattr(message.conditions, name)
            for name in _CONDITION_FIELDS
            if message.conditions.HasField(name)  # type: ignore[arg-type]
        }
    )
    if not message.task_id or not message.device_id:
        raise InvalidInputError("a visit must name its task and its device")
    return Visit(
        task_id=message.task_id,
        device_id=message.device_id,
        round=message.round,
        mode=message.mode,
        started_ns=message.started_ns,
        duration_ns=message.duration_ns,
        warmup_runs=message.warmup_runs,
        series=tuple(
            Series.unpack(
                series.label, series.packed_samples_ns, series.node, series.place, series.shapes
            )
            for series in message.series
        ),
        conditions=conditions,
        opening=opening_from_message(message.opening) if message.HasField("opening") else None,
    )


def opening_to_message(opening: Opening) -> pb.Opening:
    """What it took to get a program going, as a message."""
    computed = opening.computed
    return pb.Opening(
        load_ns=opening.load_ns,
        first_run_ns=opening.first_run_ns,
        memory_bytes=opening.memory_bytes,
        computed=None
        if computed is None
        else pb.Computed(
            inputs=computed.inputs,
            outputs=[pb.OutputDigest(**vars(output)) for output in computed.outputs],
        ),
    )


def opening_from_message(message: pb.Opening) -> Opening:
    """The inverse of `opening_to_message`."""
    computed = None
    if message.HasField("computed"):
        found = message.computed
        outputs = (
            OutputDigest(tuple(one.shape), one.norm, tuple(one.values), one.is_finite)
            for one in found.outputs
        )
        computed = Computed(tuple(found.inputs), tuple(outputs))
    return Opening(message.load_ns, message.first_run_ns, message.memory_bytes, computed)


def device_to_message(device: Device) -> pb.Device:
    """A device as a message."""
    return pb.Device(
        device_id=device.device_id,
        fingerprint=device.fingerprint,
        device_model=device.device_model,
        host_name=device.host_name,
        operating_system=device.operating_system,
        architecture=device.architecture,
        n_cores=device.n_cores,
        memory_bytes=device.memory_bytes,
        power_mode=device.power_mode,
        runtimes=[
            pb.RuntimeCapability(
                runtime=found.runtime,
                version=found.version,
                providers=found.providers,
                precisions=found.precisions,
                graph_levels=found.graph_levels,
                program_formats=found.program_formats,
                per_node_times=found.per_node_times,
                executions=found.executions,
            )
            for found in device.runtimes
        ],
        cores=device.cores,
    )


def device_from_message(message: pb.Device) -> Device:
    """The device of a message; raises `InvalidInputError` if it has no identity."""
    if not message.device_id or not message.device_model:
        raise InvalidInputError("a device must have a device_id and a device_model")
    return Device(
        device_id=message.device_id,
        fingerprint=message.fingerprint,
        device_model=message.device_model,
        host_name=message.host_name,
        operating_system=message.operating_system,
        architecture=message.architecture,
        n_cores=message.n_cores,
        memory_bytes=message.memory_bytes,
        power_mode=message.power_mode,
        runtimes=tuple(
            RuntimeCapability(
                runtime=found.runtime,
                version=found.version,
                providers=tuple(found.providers),
                precisions=tuple(found.precisions),
                graph_levels=tuple(found.graph_levels),
                program_formats=tuple(found.program_formats),
                per_node_times=found.per_node_times,
                executions=tuple(found.executions) or ("eager",),
            )
            for found in message.runtimes
        ),
        cores=tuple(message.cores),
    )
