"""`latlas serve`: the coordinator."""

from __future__ import annotations

import argparse
from pathlib import Path

from latlas.cli.options import Commands, port, requiring


def add_to(commands: Commands) -> None:
    """Adds `serve`."""
    summary = "run a coordinator until it is interrupted"
    command = commands.add_parser("serve", help=summary, description=summary)
    command.add_argument(
        "--database",
        type=Path,
        default=Path("latlas.db"),
        metavar="FILE",
        help="where everything is stored; made if it is not there (default: latlas.db)",
    )
    command.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)"
    )
    command.add_argument(
        "--port",
        type=port,
        default=7443,
        metavar="PORT",
        help="of agents, command line and library; 0 takes a free one (default: 7443)",
    )
    command.add_argument(
        "--http-port",
        type=port,
        default=7480,
        metavar="PORT",
        help="of the web page; 0 takes a free one (default: 7480)",
    )
    command.add_argument(
        "--insecure",
        action="store_true",
        help="listen beyond this machine although nothing is encrypted or checked",
    )
    command.add_argument(
        "--ready-file",
        type=Path,
        metavar="FILE",
        help="write the addresses there as JSON as soon as it answers",
    )
    command.set_defaults(run=run, resume="start it again with the same --database")


def run(args: argparse.Namespace) -> None:
    """Runs a coordinator."""
    with requiring("coordinator"):
        from latlas_coordinator.server import run_server

        run_server(
            args.database,
            host=args.host,
            port=args.port,
            http_port=args.http_port,
            insecure=args.insecure,
            ready_file=args.ready_file,
        )
