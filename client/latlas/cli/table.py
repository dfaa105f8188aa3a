"""`latlas table`: latency lookup tables."""

from __future__ import annotations

import argparse
from pathlib import Path

from latlas.cli.models import TABLE, add_export, add_listing, add_show, print_info
from latlas.cli.options import Commands, add_command, add_group, open_lab
from latlas.files import read_file
from latlas_ops.errors import InvalidInputError, LatlasError

FORMATS = ("latlas", "csv", "ofa-yaml")


def add_to(commands: Commands) -> None:
    """Adds `table build`, `list`, `show`, `export` and `import`."""
    group = add_group(commands, "table", "latency lookup tables")
    build = add_command(group, "build", "build a calibrated table from a campaign")
    build.add_argument("name", metavar="NAME", help="what to call the table")
    build.add_argument("--campaign", required=True, metavar="NAME", help="where it comes from")
    build.set_defaults(run=run_build)
    add_listing(group, TABLE)
    add_show(group, TABLE)
    add_export(group, TABLE, FORMATS)
    load = add_command(group, "import", "hand a table's own file to the coordinator")
    load.add_argument("name", metavar="NAME", help="what to call the table")
    load.add_argument("file", type=Path, metavar="FILE", help="from `table export`")
    load.set_defaults(run=run_import)


def run_build(args: argparse.Namespace) -> None:
    """Builds a table."""
    with open_lab(args) as lab:
        info = lab.build_table(args.name, args.campaign)
    print_info(info, args)


def run_import(args: argparse.Namespace) -> None:
    """Imports a table. The file is checked before anything is sent."""
    data = read_file(args.file)
    from latlas_latency.formats import load_latency_model
    from latlas_latency.table import LookupTable

    try:
        model = load_latency_model(data)
    except LatlasError as error:
        raise type(error)(f"{args.file}: {error}") from error
    if not isinstance(model, LookupTable):
        raise InvalidInputError(f"{args.file} holds a predictor, not a table")
    with open_lab(args) as lab:
        info = lab.import_latency_model(args.name, data)
    print_info(info, args)
