"""`latlas measure MODEL`: how fast one whole network runs, measured."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from latlas.cli.options import (
    Commands,
    add_command,
    add_sampling,
    add_shapes,
    duration_ns,
    open_lab,
    sampling,
)
from latlas.cli.output import (
    local_time,
    milliseconds,
    percent,
    print_json,
    print_pairs,
    print_table,
)
from latlas.cli.programs import read_program
from latlas_ops.errors import ConflictError, InvalidInputError, MeasurementError, from_wire

if TYPE_CHECKING:
    from latlas.records import CampaignStatus, Measurement, Sampling
    from latlas.sustained import Sustained
    from latlas_latency.program_details import ProgramDetails

_NS_PER_MS = 1e6
_NODES_SHOWN = 10
_SUSTAINED_VISIT_NS = 1_000_000_000
_LEAST_SUSTAINED_NS = 3_000_000_000


def add_to(commands: Commands) -> None:
    """Adds `measure`."""
    command = add_command(commands, "measure", "measure a whole network on a target")
    command.add_argument(
        "model", type=Path, metavar="MODEL", help="an ONNX or TFLite file, or an op graph"
    )
    command.add_argument("--target", required=True, metavar="NAME", help="what to measure on")
    command.add_argument(
        "--name",
        metavar="NAME",
        help="name of the campaign; a new one measures anew (default: made from model and target)",
    )
    command.add_argument(
        "--sustain",
        type=duration_ns,
        metavar="TIME",
        help="run it without a pause for so long, such as 10m, and compare the first minute with "
        "the last; --timeout counts, the other options of timing do not",
    )
    add_shapes(command)
    add_sampling(command, careful=True, min_duration="500ms")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Measures a model; what was measured before under the same name is only shown."""
    from latlas.cli.following import follow
    from latlas.sustained import sustained
    from latlas_latency.computed_precision import computed_shares

    data, program_format = read_program(args.model)
    how = _sustaining(args.sustain, args.timeout) if args.sustain else sampling(args)
    with open_lab(args) as lab:
        sha256 = lab.upload(data, program_format)
        programs = [(sha256, args.model.name)]
        command = "sustain" if args.sustain else "measure"
        named = default_names(programs, args.target, how, args.shapes, command=command)
        for name in [args.name] if args.name else named:
            status = lab.start_measure(
                name,
                args.target,
                programs,
                how,
                with_nodes=not args.sustain,
                shapes=dict(args.shapes),
            )
            if status.is_running or (status.n_visits_done and not status.failed):
                break
        args.resume = "the measurement goes on; the same command shows it"
        status = follow(lab, status, f"measuring {args.model.name}")
        row, *profiled = lab.measurements(status.name)
        latency_ms = checked_latency_ms(args.model, status, row)
        (details,) = lab.program_details(status.name)
    load = sustained(row.visits) if args.sustain else None
    no_nodes = _why_no_nodes(status, profiled)
    if args.json:
        print_json(
            {
                "model": str(args.model),
                "sha256": sha256,
                "target": status.target,
                "campaign": status.name,
                "latency_ms": latency_ms,
                "details": details,
                "computed": computed_shares(details.nodes),
                "sustained": load,
                "visits": row.visits,
            }
        )
        return
    print_pairs(_lines(args.model, status, row, details, load, no_nodes))
    if details.nodes:
        print()
        _print_nodes(details)


def _sustaining(duration_ns: int, timeout_ns: int) -> Sampling:
    """Visits of a second each, one after the other, without warm-up: nothing is to cool down."""
    from latlas.records import Sampling

    if duration_ns < _LEAST_SUSTAINED_NS:
        raise InvalidInputError("--sustain: a measurement of less than 3s compares nothing")
    return Sampling(
        n_rounds=math.ceil(duration_ns / _SUSTAINED_VISIT_NS),
        warmup_runs=0,
        min_runs=1,
        min_duration_ns=_SUSTAINED_VISIT_NS,
        timeout_ns=timeout_ns,
        n_extra_rounds=0,
        time_budget_ns=duration_ns,
    )


def default_names(
    programs: Sequence[tuple[str, str]],
    target: str,
    how: Sampling,
    shapes: Sequence[tuple[str, tuple[int, ...]]] = (),
    *,
    command: str = "measure",
) -> Iterator[str]:
    """Names for the campaign, the same for the same programs, target, timing, shapes and command.

    The first makes sure that nothing is measured twice; the next ones are for trying again what
    failed.
    """
    text = f"{programs} {target} {how} {sorted(shapes)}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    yield (first := f"{command}-{digest[:12]}")
    for attempt in itertools.count(2):
        yield f"{first}-{attempt}"


def checked_latency_ms(model: Path, status: CampaignStatus, row: Measurement) -> float:
    """The latency, or the error that tells why there is none."""
    for task in status.failed:
        if task.task_id == row.task_id:
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


def _why_no_nodes(status: CampaignStatus, profiled: Sequence[Measurement]) -> str:
    """Why node times are missing although they were asked for; empty where they are not."""
    ids = {row.task_id for row in profiled}
    return next((task.reason for task in status.failed if task.task_id in ids), "")


def _lines(
    model: Path,
    status: CampaignStatus,
    row: Measurement,
    details: ProgramDetails,
    load: Sustained | None,
    no_nodes: str,
) -> Iterator[tuple[str, object]]:
    """What is printed of a model, line by line."""
    from latlas_latency.computed_precision import computed_shares, precision_in_words

    kept = [visit for visit in row.visits if not visit.left_out]
    medians_ms = [visit.median_ns / _NS_PER_MS for visit in kept]
    n_left_out = len(row.visits) - len(kept)
    disturbed = f"; {n_left_out} more were disturbed and are left out" if n_left_out else ""
    yield "model", model
    yield "target", status.target
    yield "latency", f"{milliseconds(row.latency_ms)}, median of {len(kept)} visits"
    yield (
        "visits",
        f"{milliseconds(min(medians_ms))} to {milliseconds(max(medians_ms))}{disturbed}",
    )
    yield (
        "inferences",
        f"{details.n_runs}: p50 {milliseconds(details.p50_ns / _NS_PER_MS)}, "
        f"p95 {_percentile_ms('p95', details)}, p99 {_percentile_ms('p99', details)}",
    )
    if details.opening is not None:
        opening = details.opening
        yield (
            "first run",
            f"{milliseconds(opening.first_run_ns / _NS_PER_MS)}, after "
            f"{milliseconds(opening.load_ns / _NS_PER_MS)} of loading",
        )
        yield "memory", f"{opening.memory_bytes / 2**20:.1f} MiB more than before loading"
    if load is not None:
        yield (
            "sustained",
            f"{load.duration_s:.0f} s: {milliseconds(load.first_ms)} in the first "
            f"{load.window_s:.0f} s, {milliseconds(load.last_ms)} in the last "
            f"({load.ratio - 1:+.1%})".replace("%", " %"),
        )
        yield "throttled", _throttled(load)
    if details.covered is not None:
        yield (
            "table",
            f"{percent(details.covered)} of the nodes' time is in kernels that "
            f"{details.table!r} has measured",
        )
    places = Counter(node.place for node in details.nodes)
    if places:
        yield "nodes", ", ".join(f"{n} on {place or '?'}" for place, n in places.most_common())
    elif no_nodes:
        yield "nodes", f"not timed: {no_nodes}"
    shares = computed_shares(details.nodes)
    if shares is not None:
        yield "precision", precision_in_words(shares)
    yield "measured", local_time(row.visits[-1].started_ns)
    yield "campaign", status.name


def _percentile_ms(name: str, details: ProgramDetails) -> str:
    from latlas.gate import LEAST_RUNS

    value_ns: float = getattr(details, f"{name}_ns")
    if math.isnan(value_ns):
        return "- (this runtime tells no single inferences)"
    if details.n_runs < LEAST_RUNS[name]:
        return f"- (from {LEAST_RUNS[name]} inferences on)"
    return milliseconds(value_ns / _NS_PER_MS)


def _throttled(load: Sustained) -> str:
    if load.first_throttled_s is None:
        return f"no visit of {load.n_visits}, as far as the device tells"
    return (
        f"{load.n_throttled} of {load.n_visits} visits, the first after "
        f"{load.first_throttled_s:.0f} s"
    )


def _print_nodes(details: ProgramDetails) -> None:
    """The nodes that take longest."""
    slowest = sorted(details.nodes, key=lambda node: -node.median_ns)
    print_table(
        ("NODE", "PLACE", "TIME", "SHARE"),
        (
            (node.node, node.place, milliseconds(node.median_ns / _NS_PER_MS), percent(node.share))
            for node in slowest[:_NODES_SHOWN]
        ),
        empty="",
    )
    others = slowest[_NODES_SHOWN:]
    if others:
        share = percent(sum(node.share for node in others))
        print(f"{len(others)} more nodes take {share}; --json lists them all")
    if details.p50_ns > 0:
        excess = details.profiled_ns / details.p50_ns - 1
        print(f"While nodes were timed, an inference took {percent(excess)} longer.")
