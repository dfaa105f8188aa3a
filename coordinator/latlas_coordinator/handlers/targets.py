"""Adding targets: what is left open is taken from the only connected device that fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from latlas_coordinator.domain import check_name
from latlas_coordinator.storage import Store
from latlas_latency.measurement import Device, RuntimeCapability, Target
from latlas_ops.errors import InvalidInputError, RuntimeUnavailableError


@dataclass(frozen=True)
class TargetRequest:
    """A target of which fields may be open: empty texts, zero threads, zero batch.

    Attributes: as in `Target`.
    """

    name: str
    device_model: str = ""
    runtime: str = ""
    runtime_version: str = ""
    provider: str = ""
    power_mode: str = ""
    execution: str = ""
    precision: str = ""
    graph_level: str = ""
    threads: int = 0
    cores: tuple[int, ...] = ()
    batch: int = 0
    allow_fallback: bool = False


def add_target(store: Store, request: TargetRequest) -> Target:
    """Completes a target and keeps it.

    Raises:
        InvalidInputError: a field is malformed, or several unlike devices fit.
        RuntimeUnavailableError: no connected device fits; the message says what is offered.
        ConflictError: the name stands for another target; the message names the field.
    """
    check_name("target", request.name)
    connected = [record.device for record in store.list_devices() if record.connected]
    target = complete_target(request, connected)
    store.add_target(target)
    return target


def complete_target(request: TargetRequest, devices: Sequence[Device]) -> Target:
    """The one target that agrees with a request and that one of `devices` can serve.

    An open device model, power mode, runtime and runtime version come from the device, an open
    provider is the runtime's plain one (see `plain_provider`), anything else open is the default
    of `Target`.

    Raises: as `add_target`, the conflict excepted.
    """
    if not devices:
        raise RuntimeUnavailableError(
            f"target {request.name!r} cannot be added while no device is connected: start "
            "latlas-agent on the board"
        )
    fitting: dict[str, Target] = {}
    objections = []
    for device in devices:
        for target in _completions(request, device):
            try:
                device.require_capable(target)
            except RuntimeUnavailableError as error:
                objections.append(str(error))
            else:
                fitting.setdefault(target.key, target)
    if not fitting:
        raise RuntimeUnavailableError("; ".join(dict.fromkeys(objections)))
    if len(fitting) > 1:
        field, values = _first_difference(list(fitting.values()))
        raise InvalidInputError(
            f"target {request.name!r} fits several devices or runtimes: {field} may be "
            f"{' or '.join(values)}; say which"
        )
    return next(iter(fitting.values()))


def plain_provider(capability: RuntimeCapability) -> str:
    """The provider that a runtime has wherever it runs: the CPU's if there is one, else the first.

    A faster one is never chosen unasked, for its figures would carry an unexpected meaning.
    """
    on_cpu = [name for name in capability.providers if name.lower().startswith("cpu")]
    return (on_cpu or list(capability.providers) or [""])[0]


def _completions(request: TargetRequest, device: Device) -> Iterator[Target]:
    """The request completed for each runtime of a device that it may mean."""
    named: list[RuntimeCapability | None] = [
        found for found in device.runtimes if request.runtime in ("", found.runtime)
    ]
    for capability in named or [None]:
        yield Target(
            name=request.name,
            device_model=request.device_model or device.device_model,
            runtime=capability.runtime if capability else request.runtime,
            runtime_version=request.runtime_version or (capability.version if capability else ""),
            provider=request.provider or (plain_provider(capability) if capability else ""),
            power_mode=request.power_mode or device.power_mode,
            execution=request.execution or Target.execution,
            precision=request.precision or Target.precision,
            graph_level=request.graph_level or Target.graph_level,
            threads=request.threads or Target.threads,
            cores=request.cores,
            batch=request.batch or Target.batch,
            allow_fallback=request.allow_fallback,
        )


def _first_difference(targets: Sequence[Target]) -> tuple[str, list[str]]:
    """The first field in which targets differ, and its values."""
    for field in targets[0].conditions():
        values = list(dict.fromkeys(repr(target.conditions()[field]) for target in targets))
        if len(values) > 1:
            return field, values
    raise AssertionError("targets with different keys differ in a field")
