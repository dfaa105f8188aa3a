"""`latlas table`: latency lookup tables."""

from __future__ import annotations

import argparse
import hashlib
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from latlas.cli.models import (
    TABLE,
    add_export,
    add_listing,
    add_show,
    find,
    print_info,
    table_of,
)
from latlas.cli.options import (
    Commands,
    add_command,
    add_group,
    add_sampling,
    count,
    open_lab,
    positive,
    sampling,
)
from latlas.cli.output import local_time, percent, print_json, print_pairs, print_table
from latlas.files import read_file
from latlas_ops.errors import InvalidInputError, LatlasError
from latlas_ops.opspec import OpSpec

if TYPE_CHECKING:
    from latlas.lab import Lab
    from latlas_latency.revalidation import Revalidation

FORMATS = ("latlas", "csv", "ofa-yaml")
REVALIDATION_NETWORKS = 10


def add_to(commands: Commands) -> None:
    """Adds `table build`, `list`, `show`, `validate` and others."""
    group = add_group(commands, "table", "latency lookup tables")
    build = add_command(group, "build", "build a calibrated table from a campaign")
    build.add_argument("name", metavar="NAME", help="what to call the table")
    build.add_argument("--campaign", required=True, metavar="NAME", help="where it comes from")
    build.add_argument(
        "--interpolate",
        action="store_true",
        help="fill in ops that were not measured, where they lie between measured ones",
    )
    build.set_defaults(run=run_build)
    add_listing(group, TABLE)
    add_show(group, TABLE)
    _add_validate(group)
    _add_revalidate(group)
    suspects = add_command(
        group, "suspects", "what in a table, or in the visits behind it, cannot be right"
    )
    suspects.add_argument("name", metavar="NAME", help="name of the table")
    suspects.add_argument(
        "--requeue", action="store_true", help="have it visited once more; then build anew"
    )
    suspects.set_defaults(run=run_suspects)
    add_export(group, TABLE, FORMATS)
    load = add_command(group, "import", "hand a table's own file to the coordinator")
    load.add_argument("name", metavar="NAME", help="what to call the table")
    load.add_argument("file", type=Path, metavar="FILE", help="from `table export`")
    load.set_defaults(run=run_import)


def _add_validate(group: Commands) -> None:
    validate = add_command(
        group, "validate", "measure networks that a table was not made from, and show its errors"
    )
    validate.add_argument("name", metavar="NAME", help="name of the table")
    validate.add_argument(
        "--random-networks",
        type=count,
        default=30,
        metavar="N",
        help="networks drawn at random (default: 30)",
    )
    validate.add_argument(
        "--selected-networks",
        type=count,
        default=30,
        metavar="N",
        help="networks found by searches with this table, where it errs low (default: 30)",
    )
    validate.add_argument(
        "--no-stand-alone",
        action="store_true",
        help="do not measure every op alone for the baselines",
    )
    validate.add_argument(
        "--seed", type=count, default=0, metavar="N", help="of the drawn networks (default: 0)"
    )
    _add_campaign(validate)
    add_sampling(validate, careful=True)
    validate.set_defaults(run=run_validate)


def _add_revalidate(group: Commands) -> None:
    again = add_command(
        group, "revalidate", "whether a table still holds: valid, rescale, or rebuild"
    )
    again.add_argument("name", metavar="NAME", help="name of the table")
    again.add_argument(
        "--target",
        metavar="NAME",
        help="measure on this target, such as one with a newer runtime (default: the table's own)",
    )
    again.add_argument(
        "--save-as",
        metavar="NAME",
        help="keep the table for that target under this name, rescaled if that mends it",
    )
    again.add_argument(
        "--networks",
        type=positive,
        default=REVALIDATION_NETWORKS,
        metavar="N",
        help=f"networks to measure (default: {REVALIDATION_NETWORKS})",
    )
    again.add_argument(
        "--seed", type=count, default=0, metavar="N", help="of the drawn networks (default: 0)"
    )
    _add_campaign(again)
    add_sampling(again, careful=True)
    again.set_defaults(run=run_revalidate)


def _add_campaign(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--campaign",
        metavar="NAME",
        help="what to call the campaign that measures; one that is there is gone on with",
    )


def run_validate(args: argparse.Namespace) -> None:
    """Measures unseen networks and judges the table by them. Again: goes on, or shows it."""
    from latlas.cli.following import WRITING_PROGRAMS, follow, told_when_slow

    if not args.random_networks and not args.selected_networks:
        raise InvalidInputError("a validation needs at least one network: random or selected")
    with open_lab(args) as lab:
        info = find(lab, args.name, TABLE)
        how = sampling(args)
        wanted = (args.random_networks, args.selected_networks, args.no_stand_alone, args.seed)
        digest = hashlib.sha256(f"{args.name} {info.created_ns} {wanted} {how}".encode())
        args.resume = "the campaign goes on; the same command shows its result"
        with told_when_slow(WRITING_PROGRAMS):
            status = lab.start_validation(
                args.campaign or f"validate-{digest.hexdigest()[:12]}",
                args.name,
                info.target.name,
                n_random_networks=args.random_networks,
                n_selected_networks=args.selected_networks,
                stand_alone=not args.no_stand_alone,
                seed=args.seed,
                sampling=how,
            )
        follow(lab, status, f"validating {args.name}")
        info = lab.validate_table(args.name, status.name)
    print_info(info, args)


def run_revalidate(args: argparse.Namespace) -> None:
    """Measures a few networks and says whether the table still holds."""
    from latlas.cli.following import follow

    with open_lab(args) as lab:
        info = find(lab, args.name, TABLE)
        name = args.campaign or f"revalidate-{args.name}-{datetime.now():%Y%m%d-%H%M%S-%f}"
        status = lab.start_validation(
            name,
            args.name,
            args.target or info.target.name,
            n_random_networks=0,
            n_selected_networks=0,
            n_spread_networks=args.networks,
            stand_alone=False,
            seed=args.seed,
            sampling=sampling(args),
        )
        args.resume = f"the campaign goes on; add --campaign {name} to go on with it"
        follow(lab, status, f"revalidating {args.name}")
        found = lab.revalidate_table(args.name, status.name)
        if args.save_as:
            _save_as(lab, args, found, status.target)
    if args.json:
        print_json(found)
        return
    print_pairs(
        (
            ("table", args.name),
            ("target", status.target),
            ("verdict", found.verdict),
            ("reason", found.reason),
            ("networks", found.n_networks),
            ("measured / predicted", f"{found.scale:.3f}"),
            ("error as it is", percent(found.error_as_is)),
            ("error rescaled", percent(found.error_rescaled)),
            ("label noise", percent(found.noise)),
        )
    )


def _save_as(lab: Lab, args: argparse.Namespace, found: Revalidation, target_name: str) -> None:
    """Keeps the table as it holds for the target that it was revalidated on."""
    from latlas_latency.formats import dump_latency_model
    from latlas_latency.rescaling import carried_over
    from latlas_latency.table import LookupTable

    table = lab.latency_model(args.name)
    assert isinstance(table, LookupTable)
    (target,) = [target for target in lab.targets() if target.name == target_name]
    carried = carried_over(table, found, target)
    lab.import_latency_model(args.save_as, dump_latency_model(carried))


def run_suspects(args: argparse.Namespace) -> None:
    """Lists what looks wrong, and has it visited again if asked to."""
    with open_lab(args) as lab:
        found = lab.suspicions(args.name, requeue=args.requeue)
    if args.json:
        print_json(found)
        return
    print_table(
        ("SMALLER OP", "IS SLOWER THAN", "DIFFERS IN", "BY", "SIGMAS"),
        (
            (
                OpSpec.from_key(one.smaller_op_key),
                OpSpec.from_key(one.bigger_op_key),
                one.direction,
                percent(one.ratio - 1),
                f"{one.sigmas:.1f}",
            )
            for one in found.breaks
        ),
        empty="no entry is slower than that of a bigger op",
    )
    print()
    print_table(
        ("STRETCH OF VISITS FROM", "TO", "DEVICE", "VISITS", "SLOWER BY"),
        (
            (
                local_time(one.first_visit_ns),
                local_time(one.last_visit_ns),
                one.device_id,
                one.n_visits,
                percent(one.ratio - 1),
            )
            for one in found.stretches
        ),
        empty="no stretch of visits departs from the others",
    )
    print()
    print_table(
        ("PROGRAM", "FASTER ON", "SLOWER ON", "BY", "SIGMAS"),
        (
            (
                one.label,
                one.faster_device_id,
                one.slower_device_id,
                percent(one.ratio - 1),
                f"{one.sigmas:.1f}",
            )
            for one in found.disagreements
        ),
        empty="no two boards disagree",
    )
    if args.requeue:
        print()
        print(f"{found.n_visits_requeued} more visits in campaign {found.campaign}")


def run_build(args: argparse.Namespace) -> None:
    """Builds a table."""
    with open_lab(args) as lab:
        info = lab.build_table(args.name, args.campaign, args.interpolate)
        table = table_of(lab, info)
    print_info(info, args, table)


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
