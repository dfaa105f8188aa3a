"""`latlas compare MODEL`: one network on several targets, or against another; a gate for CI."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from latlas.cli.candidates import Candidate, with_errors
from latlas.cli.measure import checked_latency_ms, default_names
from latlas.cli.options import (
    Commands,
    add_command,
    add_sampling,
    add_shapes,
    duration_ns,
    open_lab,
    percentage,
    sampling,
)
from latlas.cli.output import print_json
from latlas.cli.programs import read_program
from latlas.cli.ranking import print_judgements, print_ranking, record
from latlas_ops.errors import InvalidInputError, LatlasError, NotFoundError, RuntimeUnavailableError

if TYPE_CHECKING:
    from latlas.gate import Judgement, Requirement, Verdict
    from latlas.lab import Lab
    from latlas.records import CampaignStatus, Sampling
    from latlas_latency.measurement.target import Target
    from latlas_latency.program_details import ProgramDetails

EXIT_FAIL, EXIT_INCONCLUSIVE = 1, 3

_REQUIREMENT = re.compile(r"\s*(\w+)\s*<\s*(\+?)\s*(.+)")
_SHARE = re.compile(r"\d*\.?\d+(?:e-?\d+)?")


@dataclass(frozen=True)
class _Model:
    """A model file on the coordinator."""

    path: Path
    program_format: str
    sha256: str


def add_to(commands: Commands) -> None:
    """Adds `compare`."""
    command = add_command(
        commands,
        "compare",
        "rank targets by the latency of a network, or judge it in CI: exit code 0 for pass, 1 for "
        "fail, 3 for inconclusive",
    )
    command.add_argument(
        "models",
        type=Path,
        nargs="+",
        metavar="MODEL",
        help="the network, as one file or one per format; every target takes the first that its "
        "runtime loads",
    )
    command.add_argument(
        "--targets", required=True, metavar="NAME,NAME", help="what to measure on, one or more"
    )
    command.add_argument(
        "--name",
        metavar="NAME",
        help="beginning of the campaigns' names; a new one measures anew (default: made from "
        "models and targets)",
    )
    command.add_argument(
        "--against",
        type=Path,
        metavar="MODEL",
        help="another network that is measured side by side with the first",
    )
    command.add_argument(
        "--require",
        type=requirement,
        action="append",
        default=[],
        metavar="LIMIT",
        help="what has to hold on every target, such as 'p95<30ms', with --against 'p50<+3%%', or "
        "'error<0.01' of the outputs; p50, p95, p99 and error are known; may be given several "
        "times",
    )
    add_shapes(command)
    add_sampling(command, careful=True, rounds=100)
    command.set_defaults(run=run)


def requirement(text: str) -> Requirement:
    """The requirement of `p95<30ms`, `p50<+3%` or `error<0.01`."""
    from latlas.gate import ERROR, Requirement

    match = _REQUIREMENT.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no requirement such as p95<30ms or p50<+3%")
    quantity, plus, limit = match.groups()
    try:
        if quantity == ERROR:
            return Requirement(quantity, _share(limit), is_relative=bool(plus))
        if plus:
            return Requirement(quantity, 1 + percentage(limit), is_relative=True)
        return Requirement(quantity, float(duration_ns(limit)), is_relative=False)
    except InvalidInputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _share(text: str) -> float:
    """0.01 of `0.01` and of `1%`."""
    text = text.strip()
    return float(text) if _SHARE.fullmatch(text) else percentage(text)


def run(args: argparse.Namespace) -> int:
    """Measures a model on every target and judges it; what is there is not measured again."""
    _require_sense(args)
    with open_lab(args) as lab:
        targets = _targets(lab, args.targets)
        models = [_upload(lab, path) for path in args.models]
        other = _upload(lab, args.against) if args.against else None
        started = [_start(lab, args, target, models, other) for target in targets]
        args.resume = "the measurements go on; the same command shows them"
        candidates = [
            _measured(lab, target, campaign, other is not None)
            for target, campaign in zip(targets, started, strict=True)
        ]
    candidates = with_errors(candidates)
    candidates.sort(key=lambda one: one.details.p50_ns if one.details else math.inf)
    judged = [(one, list(_judge(one, args.require))) for one in candidates]
    if args.json:
        print_json([record(one, judgements) for one, judgements in judged])
    else:
        print_ranking(candidates)
        print_judgements(judged)
    return _exit_code(judged, args.require)


def _require_sense(args: argparse.Namespace) -> None:
    for one in args.require:
        if one.is_relative and args.against is None:
            raise InvalidInputError("--require with a percentage needs --against MODEL")
    from latlas.gate import LEAST_ROUNDS

    compared = args.against or len(_names(args.targets)) > 1
    if any(one.is_of_outputs for one in args.require) and not compared:
        raise InvalidInputError(
            "--require with an error needs something to compare with: --against MODEL, or a second "
            "target"
        )
    if any(not one.is_of_outputs for one in args.require) and args.rounds < LEAST_ROUNDS:
        raise InvalidInputError(f"--require needs --rounds {LEAST_ROUNDS} or more")


def _names(names: str) -> list[str]:
    """Names between commas, each once."""
    return list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))


def _targets(lab: Lab, names: str) -> list[Target]:
    there = {target.name: target for target in lab.targets()}
    wanted = _names(names)
    for name in wanted:
        if name not in there:
            raise NotFoundError(f"no target {name!r}; there are: {', '.join(there) or 'none'}")
    if not wanted:
        raise InvalidInputError("--targets names no target")
    return [there[name] for name in wanted]


def _upload(lab: Lab, path: Path) -> _Model:
    data, program_format = read_program(path)
    return _Model(path, program_format, lab.upload(data, program_format))


def _start(
    lab: Lab,
    args: argparse.Namespace,
    target: Target,
    models: Sequence[_Model],
    other: _Model | None,
) -> CampaignStatus | LatlasError:
    """The campaign that measures on `target`, or why there can be none."""
    formats = _formats(lab, target)
    fitting = [model for model in models if not formats or model.program_format in formats]
    if not fitting:
        return RuntimeUnavailableError(
            f"{target.runtime} loads {', '.join(sorted(formats))}: give the network in that format"
        )
    programs = [(fitting[0].sha256, fitting[0].path.name)]
    if other is not None:
        if other.sha256 == programs[0][0]:
            raise InvalidInputError(f"--against {other.path}: that is the same file")
        programs.append((other.sha256, other.path.name))
    how = _enough_runs(sampling(args), args.require)
    try:
        named = default_names(programs, target.name, how, args.shapes, command="compare")
        for name in [f"{args.name}-{target.name}"] if args.name else named:
            status = lab.start_measure(name, target.name, programs, how, shapes=dict(args.shapes))
            if args.name or status.is_running or (status.n_visits_done and not status.failed):
                return status
    except RuntimeUnavailableError as error:
        return error
    raise AssertionError("names never run out")


def _enough_runs(how: Sampling, requirements: Sequence[Requirement]) -> Sampling:
    """A sampling whose visits can tell the percentiles that are asked for."""
    from latlas.gate import LEAST_RUNS

    least = max((LEAST_RUNS.get(one.quantity, 1) for one in requirements), default=1)
    return replace(how, min_runs=max(how.min_runs, least))


def _formats(lab: Lab, target: Target) -> set[str]:
    """What the target's runtime loads, as connected devices say; empty where none does."""
    found: set[str] = set()
    for state in lab.devices():
        if state.connected:
            with suppress(RuntimeUnavailableError):
                found.update(state.device.require_capable(target).program_formats)
    return found


def _measured(
    lab: Lab, target: Target, campaign: CampaignStatus | LatlasError, has_other: bool
) -> Candidate:
    from latlas.cli.following import follow

    if isinstance(campaign, LatlasError):
        return Candidate(target, None, None, str(campaign))
    status = follow(lab, campaign, f"measuring on {target.name}")
    try:
        for row in lab.measurements(status.name):
            checked_latency_ms(Path(row.label), status, row)
    except LatlasError as error:
        return Candidate(target, None, None, str(error))
    details, *others = lab.program_details(status.name)
    if others and not _common_rounds(details, others[0]):
        return Candidate(target, None, None, "no round was measured of both networks")
    return Candidate(target, details, others[0] if has_other else None)


def _common_rounds(one: ProgramDetails, other: ProgramDetails) -> set[tuple[int, str]]:
    first, second = (
        {(visit.round, visit.device_id) for visit in details.visits} for details in (one, other)
    )
    return first & second


def _judge(candidate: Candidate, requirements: Sequence[Requirement]) -> Iterator[Judgement]:
    from latlas.gate import judge, judge_error

    if candidate.details is None:
        return
    others = candidate.other.visits if candidate.other else ()
    for one in requirements:
        if not one.is_of_outputs:
            yield judge(one, candidate.details.visits, others)
        elif not candidate.is_reference:
            yield judge_error(one, candidate.error, candidate.error_reason)


def _exit_code(
    judged: Sequence[tuple[Candidate, list[Judgement]]], requirements: Sequence[Requirement]
) -> int:
    from latlas.gate import Verdict, overall

    verdicts: list[Verdict] = []
    for candidate, judgements in judged:
        verdicts += [judgement.verdict for judgement in judgements]
        if candidate.details is None:
            verdicts.append(Verdict.INCONCLUSIVE)
    if not requirements and any(candidate.details for candidate, _ in judged):
        return 0
    codes = {Verdict.PASS: 0, Verdict.FAIL: EXIT_FAIL, Verdict.INCONCLUSIVE: EXIT_INCONCLUSIVE}
    return codes[overall(verdicts)]
