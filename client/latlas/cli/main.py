"""`latlas`, the command line. Errors are one line on stderr and exit code 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from latlas._version import __version__
from latlas.cli import (
    campaign,
    compare,
    device,
    doctor,
    measure,
    predict,
    predictor,
    quantise,
    quickstart,
    serve,
    space,
    table,
    target,
)
from latlas.cli.options import Parser
from latlas_ops.errors import LatlasError

SPACES_VARIABLE = "LATLAS_SPACES"
"""Environment variable: files of one's own search spaces, separated as in PATH."""

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

_COMMANDS = (
    quickstart,
    serve,
    doctor,
    device,
    target,
    space,
    campaign,
    table,
    predictor,
    predict,
    measure,
    compare,
    quantise,
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command; the chosen command is the attribute `run`."""
    parser = Parser(
        prog="latlas",
        description="Measure operators on real devices, predict whole networks, search under a "
        "latency budget.",
    )
    parser.add_argument("--version", action="version", version=f"latlas {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="command")
    for module in _COMMANDS:
        module.add_to(commands)
    return parser


def _register_own_spaces(paths: str) -> None:
    """Makes the spaces of some files known by name; without any, nothing is loaded."""
    for path in filter(None, paths.split(os.pathsep)):
        from latlas_ops import load_space, register_space

        register_space(load_space(path))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code, which commands that judge say themselves."""
    # gRPC's own log lines would stand between the user and the one line that matters.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    parser = build_parser()
    args = argparse.Namespace()
    judged: int | None = None
    try:
        parser.parse_args(argv, args)
        if args.command is None:
            parser.print_help()
        else:
            _register_own_spaces(os.environ.get(SPACES_VARIABLE, ""))
            judged = args.run(args)
        sys.stdout.flush()
    except LatlasError as error:
        print(f"latlas: {error}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        # Commands that leave something running say in `resume` how to come back to it.
        resume = getattr(args, "resume", "run the same command again")
        print(f"\nlatlas: interrupted; {resume}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader went away, as `head` does; what is still buffered must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except SystemExit as ended:  # --help and --version
        return ended.code if isinstance(ended.code, int) else 0
    return judged or 0


if __name__ == "__main__":
    sys.exit(main())
