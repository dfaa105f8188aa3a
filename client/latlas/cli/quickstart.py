"""`latlas quickstart`: the whole loop on this machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from latlas.cli.options import Commands, requiring
from latlas_ops.errors import InvalidInputError


def add_to(commands: Commands) -> None:
    """Adds `quickstart`."""
    summary = "the whole loop on this machine: profile, predict, train, search, extract, verify"
    command = commands.add_parser("quickstart", help=summary, description=summary)
    command.add_argument(
        "--folder",
        type=Path,
        default=Path("quickstart"),
        metavar="DIR",
        help="where everything is kept; what is there already is not done again "
        "(default: quickstart)",
    )
    command.add_argument(
        "--quick", action="store_true", help="do very little of everything; the figures mean little"
    )
    command.set_defaults(run=run, resume="the same command goes on where it stopped")


def run(args: argparse.Namespace) -> None:
    """Runs the quickstart."""
    if sys.platform != "linux":
        raise InvalidInputError(
            f"the quickstart runs on Linux, not on {sys.platform}; elsewhere, start `latlas serve` "
            "and `latlas-agent run` by hand"
        )
    with requiring("all"):
        from latlas.quickstart.run import run_quickstart
        from latlas.quickstart.settings import QUICK, QuickstartSettings

        settings = QUICK if args.quick else QuickstartSettings()
        run_quickstart(args.folder, settings=settings, stream=sys.stdout)
