"""What `latlas doctor` finds out about measuring on this machine, per target of the coordinator."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from latlas_agent.advice import (
    Advice,
    busiest,
    core_advice,
    is_agent,
    list_processes,
    machine_advice,
)
from latlas_agent.android import Shell, find_shell, read_app_use, read_phone
from latlas_agent.conditions import Snapshot, take_snapshot
from latlas_agent.gpu import NVIDIA_PROVIDERS
from latlas_agent.gpu_advice import gpu_advice
from latlas_agent.noise import NoiseEstimate, measure_noise
from latlas_agent.phone_advice import phone_advice
from latlas_agent.probe import probe_hardware
from latlas_agent.watch import ReadGpu, open_gpu
from latlas_latency.measurement import Target
from latlas_latency.table import NOISY_SITTING
from latlas_ops.errors import LatlasError, RuntimeUnavailableError

_LOOK_S = 0.5


@dataclass(frozen=True)
class Finding:
    """One piece of advice.

    Attributes:
        target: the target that it concerns; empty if it concerns the machine.
        about: what it is about, in a word or two.
        text: the culprit and the way out, one line.
    """

    target: str
    about: str
    text: str


@dataclass(frozen=True)
class Noise:
    """The noise to expect on some cores.

    Attributes:
        cores: cores that the trial was pinned to; empty means none.
        targets: names of the targets here that are measured on them.
        estimate: what came out; None if it could not be measured.
        error: why not, else empty.
    """

    cores: tuple[int, ...]
    targets: tuple[str, ...]
    estimate: NoiseEstimate | None
    error: str = ""


def look_at_machine(
    root: Path,
    cores: Sequence[int],
    look_s: float = _LOOK_S,
    shell: Shell | None = None,
) -> list[Finding]:
    """What disturbs measurements on this machine, whatever the target; takes `look_s`.

    Args:
        root: the root directory.
        cores: cores that may be used.
        look_s: how long to watch what others do.
        shell: the shell of the phone that this is; looked for if None.
    """
    shell = shell or find_shell(root)

    def snapshot() -> Snapshot:
        return take_snapshot(root, cores, time.process_time_ns(), time.perf_counter_ns())

    processes, before = list_processes(root), snapshot()
    time.sleep(look_s)
    after, later_processes = snapshot(), list_processes(root)
    elapsed_ticks = (after.taken_ns - before.taken_ns) / 1e9 * os.sysconf("SC_CLK_TCK")
    culprits = busiest(root, processes, later_processes, elapsed_ticks)
    found = machine_advice(root, before, after, culprits, on_phone=shell is not None)
    if shell is not None:
        # Where the kernel's count is open to us it has said more precisely who is busy.
        apps = read_app_use(shell) if after.busy_ticks is None else []
        apps = [app for app in apps if app.pid != os.getpid() and not is_agent(root, app.pid)]
        found += phone_advice(root, cores, read_phone(shell), apps)
    return [Finding("", advice.about, advice.text) for advice in found]


def look_at_targets(
    root: Path,
    usable_cores: Sequence[int],
    targets: Iterable[Target],
    find_gpu: Callable[[Path], ReadGpu] | None = None,
) -> list[Finding]:
    """What concerns each target; the machine's own cores stand in where none is measured here.

    Args:
        root: the root directory.
        usable_cores: cores that may be used.
        targets: targets of the coordinator.
        find_gpu: finds the GPU of this machine; NVIDIA's and the kernel's ways if None.
    """
    here = probe_hardware(root)
    on_phone = find_shell(root) is not None
    findings = []
    n_here = 0
    for target in targets:
        if target.device_model != here.device_model:
            findings.append(
                Finding(
                    target.name,
                    "elsewhere",
                    f"is measured on {target.device_model}: run `latlas doctor` on such a board",
                )
            )
            continue
        n_here += 1
        found = [
            *_settings(target, usable_cores, here.power_mode),
            *(
                (advice.about, advice.text)
                for advice in core_advice(root, target.cores or usable_cores, on_phone=on_phone)
            ),
        ]
        if target.provider in NVIDIA_PROVIDERS:
            found += [
                (advice.about, advice.text) for advice in _look_at_gpu(root, find_gpu or _find_gpu)
            ]
        findings += [Finding(target.name, about, text) for about, text in found]
    if not n_here:
        findings += [
            Finding("", advice.about, advice.text)
            for advice in core_advice(root, usable_cores, on_phone=on_phone)
        ]
    return findings


def _find_gpu(root: Path) -> ReadGpu:
    return open_gpu(root, os.environ, own_pid=None)


def _look_at_gpu(root: Path, find_gpu: Callable[[Path], ReadGpu]) -> list[Advice]:
    """Advice on the GPU, or why nothing can be said of it."""
    try:
        return gpu_advice(root, find_gpu(root)())
    except RuntimeUnavailableError as error:
        return [
            Advice("GPU", f"its clock, heat and neighbours go unnoticed during visits: {error}")
        ]


def expect_noise(root: Path, targets: Iterable[Target]) -> list[Noise]:
    """The noise to expect on the cores of each target that is measured here.

    Some seconds for each distinct set of cores. Without a target here, on no cores in particular.

    Args:
        root: the root directory.
        targets: targets of the coordinator.
    """
    device_model = probe_hardware(root).device_model
    names: dict[tuple[int, ...], list[str]] = {}
    for target in targets:
        if target.device_model == device_model:
            names.setdefault(target.cores, []).append(target.name)
    found = []
    for cores, users in (names or {(): []}).items():
        try:
            found.append(Noise(cores, tuple(users), measure_noise(cores, root)))
        except LatlasError as error:
            found.append(Noise(cores, tuple(users), None, str(error)))
    return found


def describe_noise(noise: Noise) -> str:
    """One line: what to expect, and what to do if that is too much."""
    found = noise.estimate
    if found is None:
        return noise.error
    text = (
        f"{found.label_noise:.1%} label noise with {found.n_rounds} rounds, "
        f"{found.common_mode_free_noise:.1%} without what slowed all alike; "
        f"no label off by more than {found.worst_label_error:.1%}"
    ).replace("%", " %")
    if found.flags:
        flags = ", ".join(found.flags)
        text += f"; {found.n_flagged_visits} of {found.n_visits} visits flagged ({flags})"
    if found.common_mode_free_noise > NOISY_SITTING:
        text += (
            f"; above {NOISY_SITTING:.0%}, too much for a table".replace("%", " %")
            + ": follow the advice, or ask for more --rounds"
        )
    return text


def _settings(
    target: Target, usable_cores: Sequence[int], power_mode: str
) -> Iterable[tuple[str, str]]:
    """What is off about a target's own settings on this board."""
    if target.power_mode != power_mode:
        yield (
            "power mode",
            f"needs {target.power_mode}, the board is in {power_mode}: set it with nvpmodel, then "
            "restart the agent",
        )
    if not target.cores:
        yield (
            "pinning",
            "names no cores, so that its threads wander: start the agent with --cores, or add a "
            "target with --cores",
        )
        return
    missing = sorted(set(target.cores) - set(usable_cores))
    if missing:
        yield (
            "pinning",
            f"wants core {missing[0]}, which this machine does not let you use: add a target with "
            f"--cores among {', '.join(map(str, usable_cores))}",
        )
    elif set(target.cores) == set(usable_cores):
        yield (
            "pinning",
            "takes every core, so that the agent and the system interrupt it: add a target that "
            "leaves one free",
        )
    if target.threads > len(target.cores):
        yield (
            "pinning",
            f"runs {target.threads} threads on {len(target.cores)} cores, where they wait for each "
            "other: add a target with as many --cores as --threads",
        )
