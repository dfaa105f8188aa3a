"""Options that commands share, and how their values are read."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from latlas_ops.errors import InvalidInputError, MissingDependencyError

if TYPE_CHECKING:
    from latlas.lab import Lab
    from latlas.records import Sampling

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

COORDINATOR_VARIABLE = "LATLAS_COORDINATOR"

_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_CORES = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)
_MAX_CORES = 4096
_DURATION = re.compile(r"(\d{1,7}(?:\.\d{1,9})?)\s*(ns|us|ms|s|min|m|h)", re.ASCII)
_PERCENTAGE = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*%", re.ASCII)
_MAX_COUNT = 2**31 - 1

# Of `latlas.records`, which is loaded when a command runs; a test holds them together.
_MIN_RUNS, _CAREFUL_MIN_RUNS = 2, 5


class Parser(argparse.ArgumentParser):
    """Raises `InvalidInputError` with one line instead of printing the usage; no abbreviations."""

    def __init__(self, **settings: object) -> None:
        settings.setdefault("allow_abbrev", False)
        super().__init__(**settings)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """A malformed command line."""
        raise InvalidInputError(f"{message}; see `{self.prog} --help`")


def duration_ns(text: str) -> int:
    """Nanoseconds of `30ms`, `1.5s` and the like."""
    match = _DURATION.fullmatch(text.strip())
    value = round(float(match[1]) * _NANOSECONDS[match[2]]) if match else 0
    if value <= 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no duration above zero with a unit (ns, us, ms, s, m or h), such as 30ms"
        )
    return value


def count(text: str) -> int:
    """A whole number, at least 0 and of at most 31 bits."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    if len(text) > 10 or int(text) > _MAX_COUNT:
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is too large, at most {_MAX_COUNT}")
    return int(text)


def positive(text: str) -> int:
    """A whole number, at least 1."""
    value = count(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not at least 1")
    return value


def percentage(text: str) -> float:
    """A fraction of `0.5%` and the like, above 0 and below 100 %."""
    match = _PERCENTAGE.fullmatch(text.strip())
    # As decimals: 0.7 / 100 as binary fractions is another number than 0.007.
    value = float(Decimal(match[1]) / 100) if match else 0.0
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no percentage above 0 and below 100, such as 0.5%"
        )
    return value


def rising(text: str) -> tuple[int, ...]:
    """Whole numbers of `128,224`, at least 1 each; the smallest first and none twice."""
    return tuple(sorted({positive(part) for part in text.split(",")}))


def input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Name and shape of `images=1,3,224,224`."""
    name, equals, sizes = text.rpartition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape such as images=1,3,224,224")
    return name, tuple(positive(size.strip()) for size in sizes.split(","))


def add_shapes(parser: argparse.ArgumentParser) -> None:
    """`--shape NAME=1,3,224,224`, any number of times."""
    parser.add_argument(
        "--shape",
        dest="shapes",
        type=input_shape,
        action="append",
        default=[],
        metavar="INPUT=SIZES",
        help="shape of an input with free axes, such as images=1,3,224,224; a first axis that is "
        "free takes the target's batch by itself (may be given several times)",
    )


def port(text: str) -> int:
    """A port number; 0 stands for any that is free."""
    value = count(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not at most 65535")
    return value


def share(text: str) -> float:
    """A number strictly between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number between 0 and 1")
    return value


def cores(text: str) -> tuple[int, ...]:
    """Core numbers of `0,2-3`."""
    found: set[int] = set()
    for part in text.split(","):
        match = _CORES.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < _MAX_CORES:
            raise argparse.ArgumentTypeError(f"{text!r} is no list of cores such as 0,2-3")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def add_command(
    commands: Commands,
    name: str,
    summary: str,
    *,
    coordinator: bool = True,
    json: bool = True,
) -> argparse.ArgumentParser:
    """A command with the options that nearly all of them take."""
    parser = commands.add_parser(name, help=summary, description=summary)
    if coordinator:
        add_coordinator(parser)
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON; keys name their unit")
    return parser


def add_group(commands: Commands, name: str, summary: str) -> Commands:
    """A command that only groups others, such as `latlas table`."""
    parser = commands.add_parser(name, help=summary, description=summary)
    return parser.add_subparsers(metavar="COMMAND", dest="subcommand", required=True)


def add_coordinator(parser: argparse.ArgumentParser) -> None:
    """`--coordinator HOST:PORT`."""
    parser.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        default=os.environ.get(COORDINATOR_VARIABLE) or "127.0.0.1:7443",
        help=f"address of the coordinator (default: ${COORDINATOR_VARIABLE} or 127.0.0.1:7443)",
    )


def open_lab(args: argparse.Namespace) -> Lab:
    """The coordinator that the user named."""
    from latlas.lab import connect

    return connect(args.coordinator)


@contextmanager
def requiring(extra: str) -> Iterator[None]:
    """Turns a package that is missing into a `MissingDependencyError` that names the extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("latlas"):
            raise
        raise MissingDependencyError(
            f"this needs {error.name.partition('.')[0]}; install it with "
            f"pip install 'latlas[{extra}]'"
        ) from error


def add_sampling(
    parser: argparse.ArgumentParser,
    *,
    careful: bool = False,
    rounds: int = 4,
    min_duration: str = "30ms",
) -> None:
    """Options that say how every program is timed.

    Args:
        parser: the command.
        careful: whether the defaults are those of `latlas.records.CAREFUL`, not of `Sampling`.
        rounds: default of `--rounds`.
        min_duration: default of `--min-duration`.
    """
    min_runs = _CAREFUL_MIN_RUNS if careful else _MIN_RUNS
    group = parser.add_argument_group("timing")
    group.add_argument(
        "--rounds",
        type=positive,
        default=rounds,
        metavar="N",
        help=f"visits per program (default: {rounds})",
    )
    group.add_argument(
        "--extra-rounds",
        type=count,
        default=3,
        metavar="N",
        help="further visits at most, of a program that is suspicious or not yet precise enough "
        "(default: 3)",
    )
    group.add_argument(
        "--warmup-runs",
        type=count,
        default=2,
        metavar="N",
        help="inferences before each visit that are not timed (default: 2)",
    )
    group.add_argument(
        "--min-runs",
        type=positive,
        default=min_runs,
        metavar="N",
        help=f"least number of timed inferences in a visit (default: {min_runs})",
    )
    group.add_argument(
        "--min-duration",
        type=duration_ns,
        default=min_duration,
        metavar="TIME",
        help=f"least time of the timed inferences in a visit (default: {min_duration})",
    )
    group.add_argument(
        "--time-budget",
        type=duration_ns,
        metavar="TIME",
        help="end after this time with the rounds that are there; every program is visited once",
    )
    group.add_argument(
        "--target-error",
        type=percentage,
        metavar="PERCENT",
        help="visit again, within the extra rounds, what noise leaves less precise than this, such "
        "as 0.5%%; a table as it matters for networks (default: only what is suspicious)",
    )
    group.add_argument(
        "--timeout",
        type=duration_ns,
        default="120s",
        metavar="TIME",
        help="a visit that takes longer counts as hung (default: 120s)",
    )


def sampling(args: argparse.Namespace) -> Sampling:
    """How every program is timed, from the options of `add_sampling`."""
    from latlas.records import Sampling

    return Sampling(
        n_rounds=args.rounds,
        warmup_runs=args.warmup_runs,
        min_runs=args.min_runs,
        min_duration_ns=args.min_duration,
        timeout_ns=args.timeout,
        n_extra_rounds=args.extra_rounds,
        time_budget_ns=args.time_budget or 0,
        target_error=args.target_error or 0.0,
    )
