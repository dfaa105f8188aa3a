"""`latlas doctor`: what is installed here, who answers, and what would disturb measurements."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from latlas._version import __version__
from latlas.cli.options import Commands, add_command, open_lab
from latlas.cli.output import print_json, print_pairs
from latlas_ops.errors import LatlasError

if TYPE_CHECKING:
    from latlas.checkup import Finding, Noise
    from latlas_latency.measurement import Target

_ROOT = Path("/")
_REQUIREMENT = re.compile(r"(?P<package>[\w.-]+).*?(?:extra\s*==\s*['\"](?P<extra>[\w.-]+)['\"])?$")
_NOT_FOR_USERS = ("all", "dev")
_OWN_ENVIRONMENT = ("tflite",)
_GOVERNORS = "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"


@dataclass(frozen=True)
class Coordinator:
    """Whether a coordinator answers.

    Attributes:
        address: who was asked.
        reachable: whether it answered.
        n_devices: devices that it knows.
        n_connected_devices: those whose agent has a session now.
        error: why it did not answer, else empty.
    """

    address: str
    reachable: bool
    n_devices: int = 0
    n_connected_devices: int = 0
    error: str = ""


def add_to(commands: Commands) -> None:
    """Adds `doctor`."""
    command = add_command(
        commands,
        "doctor",
        "what is installed here, who answers, and what would disturb measurements on this machine",
    )
    command.add_argument(
        "--noise",
        action="store_true",
        help="also estimate the noise of labels measured here: a few seconds of full load, so not "
        "while a campaign runs on this machine",
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Prints the findings; nothing of it is an error."""
    extras = installed_extras(_requirements())
    governors = read_governors(Path("/sys"))
    usable_cores = _usable_cores()
    coordinator, targets = ask(args)
    findings, noises = _check_up(usable_cores, targets, noise=args.noise)
    if args.json:
        print_json(
            {
                "latlas": __version__,
                "python": platform.python_version(),
                "system": platform.platform(),
                "n_cores": os.cpu_count(),
                "usable_cores": usable_cores,
                "governors": governors,
                "extras": extras,
                "coordinator": coordinator,
                "advice": findings,
                "noise": noises,
            }
        )
        return
    if coordinator.reachable:
        answer = (
            f"answers; {coordinator.n_connected_devices} of {coordinator.n_devices} devices "
            "connected"
        )
    else:
        answer = coordinator.error
    print_pairs(
        (
            ("latlas", __version__),
            ("Python", f"{platform.python_version()} on {platform.platform()}"),
            ("cores", f"{len(usable_cores)} of {os.cpu_count()} usable"),
            ("governor", _describe_governors(governors)),
            *((f"extra {extra}", _describe(extra, found)) for extra, found in extras.items()),
            (f"coordinator {coordinator.address}", answer),
            *_describe_findings(findings),
            *_describe_noises(noises),
        )
    )


def ask(args: argparse.Namespace) -> tuple[Coordinator, list[Target]]:
    """Whether the coordinator that the user named answers, and its targets."""
    try:
        with open_lab(args) as lab:
            states, targets = lab.devices(), lab.targets()
    except LatlasError as error:
        return Coordinator(args.coordinator, reachable=False, error=str(error)), []
    connected = sum(state.connected for state in states)
    return Coordinator(args.coordinator, True, len(states), connected), targets


def installed_extras(requirements: Iterable[str]) -> dict[str, dict[str, str | None]]:
    """Per extra its packages with the version that is installed, None where it is missing.

    Args:
        requirements: as in the metadata of the distribution, for example
            `torch>=2.4; extra == "torch"`. Those without an extra are listed as `base`.
    """
    extras: dict[str, dict[str, str | None]] = {}
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is None or match["extra"] in _NOT_FOR_USERS:
            continue
        packages = extras.setdefault(match["extra"] or "base", {})
        packages[match["package"]] = _version(match["package"])
    return extras


def read_governors(system: Path) -> list[str]:
    """The distinct frequency governors of the cores; empty where the system has none."""
    found = set()
    for path in sorted(system.glob(_GOVERNORS)):
        try:
            found.add(path.read_text().strip())
        except OSError:
            continue
    return sorted(found)


def _check_up(
    usable_cores: Sequence[int], targets: Sequence[Target], *, noise: bool
) -> tuple[list[Finding] | None, list[Noise] | None]:
    """Advice, None where the system is not Linux; and the noise, None where nobody asked for it."""
    if sys.platform not in ("linux", "android"):
        return None, None
    from latlas.checkup import expect_noise, look_at_machine, look_at_targets

    findings = [
        *look_at_machine(_ROOT, usable_cores),
        *look_at_targets(_ROOT, usable_cores, targets),
    ]
    return findings, expect_noise(_ROOT, targets) if noise else None


def _describe_findings(findings: Sequence[Finding] | None) -> list[tuple[str, str]]:
    if findings is None:
        return [("advice", "only for machines that run Linux")]
    if not findings:
        return [("advice", "nothing seen that disturbs measurements")]
    return [
        (f"target {finding.target}" if finding.target else "advice", _line(finding))
        for finding in findings
    ]


def _line(finding: Finding) -> str:
    return f"{finding.about}: {finding.text}"


def _describe_noises(noises: Sequence[Noise] | None) -> list[tuple[str, str]]:
    if noises is None:
        return [("noise", "not measured; --noise takes some seconds of full load")]
    from latlas.checkup import describe_noise

    return [
        (f"noise {', '.join(noise.targets)}".rstrip(), describe_noise(noise)) for noise in noises
    ]


def _requirements() -> list[str]:
    try:
        return metadata.requires("latlas") or []
    except metadata.PackageNotFoundError:
        return []


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _usable_cores() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _describe_governors(governors: list[str]) -> str:
    if not governors:
        return "not told by this system"
    return ", ".join(governors)


def _describe(extra: str, packages: Mapping[str, str | None]) -> str:
    missing = [name for name, version in packages.items() if version is None]
    if missing:
        name = "latlas" if extra == "base" else f"latlas[{extra}]"
        where = " in an environment of its own" if extra in _OWN_ENVIRONMENT else ""
        return f"missing {', '.join(missing)}; pip install '{name}'{where}"
    return ", ".join(f"{name} {version}" for name, version in packages.items())
