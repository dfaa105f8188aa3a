"""`Device`: one board and what its agent can run on it."""

from __future__ import annotations

from dataclasses import dataclass

from latlas_latency.measurement.precision_rules import require_computed
from latlas_latency.measurement.target import Target
from latlas_ops.errors import RuntimeUnavailableError


@dataclass(frozen=True)
class RuntimeCapability:
    """What one runtime plug-in offers on a device.

    Attributes:
        runtime: name of the plug-in, for example `onnxruntime`.
        version: exact version of the runtime.
        providers: execution providers or delegates.
        precisions: precisions it computes in.
        graph_levels: graph-optimisation levels it offers.
        program_formats: formats of programs it loads, for example `onnx`.
        per_node_times: whether it can time single nodes of a network, where that is not compiled.
        executions: how it executes a network; eager alone where an older agent does not say.
    """

    runtime: str
    version: str
    providers: tuple[str, ...]
    precisions: tuple[str, ...]
    graph_levels: tuple[str, ...]
    program_formats: tuple[str, ...]
    per_node_times: bool
    executions: tuple[str, ...] = ("eager",)

    def times_nodes(self, target: Target) -> bool:
        """Whether it can time single nodes of a network on `target`."""
        return self.per_node_times and target.execution == "eager"


@dataclass(frozen=True)
class Device:
    """One board.

    Attributes:
        device_id: minted once and kept on the board.
        fingerprint: hash over serial number and hardware addresses.
        device_model: what equal boards share.
        host_name: for people.
        operating_system: name and release.
        architecture: instruction set, for example `x86_64`.
        n_cores: cores the agent may use.
        memory_bytes: physical memory.
        power_mode: the board's power mode, `default` where it has only one.
        runtimes: what can be run.
        cores: numbers of the cores that the agent may use, which need not follow on each other
            (some switched off, a container's share); empty where an older agent does not say.
    """

    device_id: str
    fingerprint: str
    device_model: str
    host_name: str
    operating_system: str
    architecture: str
    n_cores: int
    memory_bytes: int
    power_mode: str
    runtimes: tuple[RuntimeCapability, ...]
    cores: tuple[int, ...] = ()

    def require_capable(self, target: Target) -> RuntimeCapability:
        """The capability that serves a target.

        Raises:
            RuntimeUnavailableError: this device cannot serve it; the message names the field.
        """
        where = f"device {self.device_id} ({self.device_model})"
        for field, have, wanted in (
            ("device_model", self.device_model, target.device_model),
            ("power_mode", self.power_mode, target.power_mode),
        ):
            if have != wanted:
                raise RuntimeUnavailableError(
                    f"target {target.name!r} needs {field} {wanted!r}; {where} has {have!r}"
                )
        named = [found for found in self.runtimes if found.runtime == target.runtime]
        if not named:
            offered = ", ".join(found.runtime for found in self.runtimes) or "none"
            raise RuntimeUnavailableError(
                f"target {target.name!r} needs runtime {target.runtime!r}; "
                f"{where} offers: {offered}"
            )
        capability = named[0]
        if capability.version != target.runtime_version:
            raise RuntimeUnavailableError(
                f"target {target.name!r} needs {target.runtime} {target.runtime_version}; "
                f"{where} has {capability.version}"
            )
        require_computed(target)
        for field, offers, value in (
            ("provider", capability.providers, target.provider),
            ("execution", capability.executions, target.execution),
            ("precision", capability.precisions, target.precision),
            ("graph_level", capability.graph_levels, target.graph_level),
        ):
            if value not in offers:
                raise RuntimeUnavailableError(
                    f"target {target.name!r} needs {field} {value!r}; {target.runtime} on {where} "
                    f"offers: {', '.join(offers)}"
                )
        usable = self.cores or range(self.n_cores)
        missing = [core for core in target.cores if core not in usable]
        if missing:
            raise RuntimeUnavailableError(
                f"target {target.name!r} pins core {missing[0]}; {where} offers cores: "
                f"{', '.join(map(str, usable))}"
            )
        return capability
