"""`latlas measure MODEL`: how fast one whole network runs, measured."""

from __future__ import annotations

import argparse
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latlas.cli.options import Commands, add_command, add_sampling, open_lab, sampling
from latlas.cli.output import local_time, milliseconds, print_json, print_pairs
from latlas.cli.programs import read_program
from latlas_ops.errors import ConflictError, MeasurementError, from_wire

if TYPE_CHECKING:
    from latlas.records import CampaignStatus, Measurement, Sampling


def add_to(commands: Commands) -> None:
    """Adds `measure`."""
    command = add_command(commands, "measure", "measure a whole network on a target")
    command.add_argument("model", type=Path, metavar="MODEL", help="an ONNX or TFLite file")
    command.add_argument("--target", required=True, metavar="NAME", help="what to measure on")
    command.add_argument(
        "--name",
        metavar="NAME",
        help="name of the campaign; a new one measures anew (default: made from model and target)",
    )
    add_sampling(command, careful=True)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measures a model; what was measured before under the same name is only shown."""
    from latlas.cli.following import follow

    data, program_format = read_program(args.model)
    with open_lab(args) as lab:
        sha256 = lab.upload(data, program_format)
        how = sampling(args)
        programs = [(sha256, args.model.name)]
        for name in [args.name] if args.name else default_names(programs, args.target, how):
            status = lab.start_measure(name, args.target, programs, how)
            if status.is_running or (status.n_visits_done and not status.failed):
                break
        args.resume = "the measurement goes on; the same command shows it"
        status = follow(lab, status, f"measuring {args.model.name}")
        (row,) = lab.measurements(status.name)
    latency_ms = checked_latency_ms(args.model, status, row)
    if args.json:
        print_json(
            {
                "model": str(args.model),
                "sha256": sha256,
                "target": status.target,
                "campaign": status.name,
                "latency_ms": latency_ms,
                "visits": row.visits,
            }
        )
        return
    medians_ms = [visit.median_ns / 1e6 for visit in row.visits]
    n_runs = sum(visit.n_runs for visit in row.visits)
    print_pairs(
        (
            ("model", args.model),
            ("target", status.target),
            ("latency", f"{milliseconds(latency_ms)}, median of {len(row.visits)} visits"),
            ("visits", f"{milliseconds(min(medians_ms))} to {milliseconds(max(medians_ms))}"),
            ("inferences", n_runs),
            ("measured", local_time(row.visits[-1].started_ns)),
            ("campaign", status.name),
        )
    )


def default_names(programs: Sequence[tuple[str, str]], target: str, how: Sampling) -> Iterator[str]:
    """Names for the campaign, the same for the same programs, target and timing.

    The first makes sure that nothing is measured twice; the next ones are for trying again what
    failed.
    """
    digest = hashlib.sha256(f"{programs} {target} {how}".encode()).hexdigest()
    yield (first := f"measure-{digest[:12]}")
    for attempt in itertools.count(2):
        yield f"{first}-{attempt}"


def checked_latency_ms(model: Path, status: CampaignStatus, row: Measurement) -> float:
    """The latency, or the error that tells why there is none."""
    for task in status.failed:
        raise from_wire(task.error_code, f"{model}: {task.reason}")
    latency_ms = row.latency_ms
    if latency_ms is None:
        if status.state == "cancelled":
            raise ConflictError(
                f"campaign {status.name!r} was cancelled before {model} was measured; give "
                "another --name"
            )
        raise MeasurementError(f"campaign {status.name!r} ended without a visit of {model}")
    return latency_ms
