"""`latlas campaign`: what is measured on which target."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from latlas.cli.options import (
    Commands,
    add_command,
    add_group,
    add_sampling,
    add_shapes,
    count,
    open_lab,
    positive,
    rising,
    sampling,
)
from latlas.cli.output import local_time, milliseconds, print_json, print_pairs, print_table
from latlas.cli.programs import read_program
from latlas_latency.methods import METHODS
from latlas_ops.errors import InvalidInputError

if TYPE_CHECKING:
    from latlas.lab import Lab
    from latlas.records import CampaignStatus

_MOST_FAILED = 3
"""Failed programs, and suspicions that are left, that are shown one by one."""


def add_to(commands: Commands) -> None:
    """Adds `campaign start`, `list`, `show`, `watch` and `cancel`."""
    group = add_group(commands, "campaign", "what is measured on which target")
    add_command(group, "list", "list campaigns").set_defaults(run=run_list)
    for name, summary, run in (
        ("show", "how far a campaign is and what it measured", run_show),
        ("watch", "show progress until a campaign ends", run_watch),
        ("cancel", "end a campaign; what was measured stays", run_cancel),
    ):
        command = add_command(group, name, summary)
        command.add_argument("name", metavar="NAME", help="name of the campaign")
        command.set_defaults(run=run)
    _add_start(group)


def _add_start(group: Commands) -> None:
    start = add_command(
        group, "start", "profile a search space, or measure programs; again: goes on with it"
    )
    start.add_argument("name", metavar="NAME", help="what to call the campaign")
    start.add_argument("--target", required=True, metavar="NAME", help="what to measure on")
    what = start.add_mutually_exclusive_group(required=True)
    what.add_argument("--space", metavar="NAME", help="profile this search space")
    what.add_argument(
        "--program",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="measure these programs, such as ONNX files",
    )
    start.add_argument("--watch", action="store_true", help="show progress until it ends")
    profile = start.add_argument_group("profiling a space")
    profile.add_argument(
        "--training-networks",
        type=count,
        default=160,
        metavar="N",
        help="whole networks that predictors learn from (default: 160)",
    )
    profile.add_argument(
        "--calibration-networks",
        type=count,
        default=10,
        metavar="N",
        help="whole networks that calibrate a table (default: 10)",
    )
    profile.add_argument(
        "--validation-networks",
        type=count,
        default=40,
        metavar="N",
        help="whole networks that no fit sees (default: 40)",
    )
    profile.add_argument(
        "--min-occurrences",
        type=positive,
        default=3,
        metavar="N",
        help="networks in which each distinct op is profiled at least (default: 3)",
    )
    profile.add_argument(
        "--resolutions",
        type=rising,
        default=(),
        metavar="N,N",
        help="measure ops at these input resolutions only; what lies between can be interpolated "
        "(default: all of the space)",
    )
    profile.add_argument(
        "--method",
        choices=METHODS,
        help="measure ops inside whole networks, in chains of their own, or alone, which is biased "
        "(default: in-situ where the runtime times single nodes, else chained)",
    )
    profile.add_argument(
        "--seed", type=count, default=0, metavar="N", help="of the drawn networks (default: 0)"
    )
    add_shapes(start)
    add_sampling(start)
    start.set_defaults(run=run_start)


def run_list(args: argparse.Namespace) -> None:
    """Lists every campaign."""
    with open_lab(args) as lab:
        statuses = lab.campaigns()
    if args.json:
        print_json(statuses)
        return
    print_table(
        ("CAMPAIGN", "TARGET", "MEASURES", "STATE", "VISITS", "FAILED", "SUSPICIOUS", "STARTED"),
        (
            (
                status.name,
                status.target,
                f"space {status.space}" if status.space else "programs",
                status.state,
                f"{status.n_visits_done}/{status.n_visits_wanted}",
                len(status.failed),
                status.suspicious,
                local_time(status.created_ns),
            )
            for status in statuses
        ),
        empty="no campaign yet; start one with `latlas campaign start NAME`",
    )


def run_show(args: argparse.Namespace) -> None:
    """Shows a campaign and its measurements."""
    with open_lab(args) as lab:
        status = lab.campaign(args.name)
        rows = lab.measurements(args.name)
    if args.json:
        measurements = [{"latency_ms": row.latency_ms, **dataclasses.asdict(row)} for row in rows]
        print_json({"campaign": status, "measurements": measurements})
        return
    _print_status(status)
    print()
    print_table(
        ("PROGRAM", "ROLE", "MODE", "VISITS", "LATENCY"),
        (
            (row.label, row.role, row.mode, len(row.visits), milliseconds(row.latency_ms))
            for row in rows
        ),
        empty="nothing to measure",
    )


def run_start(args: argparse.Namespace) -> None:
    """Starts a campaign, or finds it there."""
    if args.program and (args.method or args.resolutions):
        raise InvalidInputError(
            "--method and --resolutions say how a space is profiled: add --space"
        )
    if args.shapes and not args.program:
        raise InvalidInputError("--shape is about the inputs of programs: add --program")
    from latlas.cli.following import WRITING_PROGRAMS, told_when_slow

    programs = [(path, *read_program(path)) for path in args.program or ()]
    with open_lab(args) as lab:
        if args.space is not None:
            args.resume = (
                f"the coordinator goes on with {args.name!r}; `latlas campaign show {args.name}` "
                f"shows it, `latlas campaign cancel {args.name}` ends it"
            )
            with told_when_slow(WRITING_PROGRAMS):
                status = lab.start_profile(
                    args.name,
                    args.space,
                    args.target,
                    n_training_networks=args.training_networks,
                    n_calibration_networks=args.calibration_networks,
                    n_validation_networks=args.validation_networks,
                    min_occurrences=args.min_occurrences,
                    seed=args.seed,
                    method=args.method,
                    resolutions=args.resolutions,
                    sampling=sampling(args),
                )
        else:
            uploaded = [(lab.upload(data, fmt), path.name) for path, data, fmt in programs]
            status = lab.start_measure(
                args.name, args.target, uploaded, sampling(args), shapes=dict(args.shapes)
            )
        if args.watch:
            status = _follow(lab, status, args)
    _print(status, args)


def run_watch(args: argparse.Namespace) -> None:
    """Shows progress until a campaign ends."""
    with open_lab(args) as lab:
        status = _follow(lab, lab.campaign(args.name), args)
    _print(status, args)


def run_cancel(args: argparse.Namespace) -> None:
    """Ends a campaign."""
    with open_lab(args) as lab:
        status = lab.cancel(args.name)
    _print(status, args)


def _follow(lab: Lab, status: CampaignStatus, args: argparse.Namespace) -> CampaignStatus:
    from latlas.cli.following import follow

    args.resume = f"the campaign goes on; `latlas campaign watch {status.name}` shows it again"
    return follow(lab, status, f"campaign {status.name}")


def _print(status: CampaignStatus, args: argparse.Namespace) -> None:
    if args.json:
        print_json(status)
    else:
        _print_status(status)


def _print_status(status: CampaignStatus) -> None:
    print_pairs(
        (
            ("campaign", status.name),
            ("target", status.target),
            *((("space", status.space),) if status.space else ()),
            ("state", status.state),
            ("programs", status.n_tasks),
            ("visits", f"{status.n_visits_done} of {status.n_visits_wanted}"),
            ("started", local_time(status.created_ns)),
            *(("suspicious", line) for line in _suspicions(status)),
            *(("precision", line) for line in _precision(status)),
            *(("failed", f"{task.label}: {task.reason}") for task in status.failed[:_MOST_FAILED]),
        )
    )
    if len(status.failed) > _MOST_FAILED:
        print(f"and {len(status.failed) - _MOST_FAILED} more that failed; --json lists all")


def _suspicions(status: CampaignStatus) -> list[str]:
    """How much was suspicious, and some of what is left."""
    found = status.findings
    if found is None:
        return [status.suspicious]
    left = [one.text for one in found.suspicions if one.open][:_MOST_FAILED]
    more = [f"and {found.n_open - len(left)} more"] if found.n_open > len(left) else []
    return [found.summary, *left, *more]


def _precision(status: CampaignStatus) -> tuple[str, ...]:
    """How precise its figures are, and why more is not known."""
    found = status.findings
    return () if found is None else (*found.precision, *found.remarks)
