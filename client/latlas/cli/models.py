"""What `latlas table` and `latlas predictor` have in common: latency models of the coordinator."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from latlas.cli.options import Commands, add_command, open_lab
from latlas.cli.output import local_time, percent, print_json, print_pairs, print_table
from latlas.cli.target import setup
from latlas.files import write_atomically
from latlas_latency.methods import REMARKS
from latlas_ops.errors import ConflictError, NotFoundError

if TYPE_CHECKING:
    from latlas.lab import Lab
    from latlas.records import ModelInfo
    from latlas_latency.table import LookupTable
    from latlas_latency.validation import Errors, Validation

TABLE = "table"
"""The `ModelInfo.kind` of lookup tables; every other kind is a predictor."""


def add_listing(group: Commands, what: str) -> None:
    """Adds `list` for tables or predictors."""
    command = add_command(group, "list", f"list {what}s")
    command.set_defaults(run=run_list, what=what)


def add_show(group: Commands, what: str) -> None:
    """Adds `show` for tables or predictors."""
    command = add_command(group, "show", f"what a {what} is valid for and how good it is")
    command.add_argument("name", metavar="NAME", help=f"name of the {what}")
    command.set_defaults(run=run_show, what=what)


def add_export(group: Commands, what: str, formats: tuple[str, ...]) -> None:
    """Adds `export` for tables or predictors."""
    command = add_command(group, "export", f"write a {what} to a file", json=False)
    command.add_argument("name", metavar="NAME", help=f"name of the {what}")
    command.add_argument(
        "--format",
        choices=formats,
        default=formats[0],
        help=f"form of the file (default: {formats[0]})",
    )
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="default: NAME and the format's ending"
    )
    command.add_argument("--force", action="store_true", help="replace a file that is there")
    command.set_defaults(run=run_export, what=what)


def is_a(info: ModelInfo, what: str) -> bool:
    """Whether a model is what the command group is about."""
    return (info.kind == TABLE) == (what == TABLE)


def run_list(args: argparse.Namespace) -> None:
    """Lists the tables or the predictors."""
    with open_lab(args) as lab:
        found = [info for info in lab.latency_models() if is_a(info, args.what)]
    if args.json:
        print_json(found)
        return
    print_table(
        (args.what.upper(), "KIND", "SPACE", "TARGET", "ENTRIES", "CALIBRATED", "MAPE", "MADE"),
        (
            (
                info.name,
                info.kind,
                info.space or "any",
                info.target.name,
                info.n_entries or "-",
                "yes" if info.calibrated else "no",
                percent(info.validation.mape) if info.validation else "-",
                local_time(info.created_ns),
            )
            for info in found
        ),
        empty=f"no {args.what} yet",
    )


def run_show(args: argparse.Namespace) -> None:
    """Shows one table or predictor."""
    with open_lab(args) as lab:
        info = find(lab, args.name, args.what)
        table = table_of(lab, info)
    print_info(info, args, table)


def run_export(args: argparse.Namespace) -> None:
    """Writes one table or predictor to a file."""
    if args.output is not None:
        _require_free(args.output, args.force)
    with open_lab(args) as lab:
        find(lab, args.name, args.what)
        data, file_name = lab.export(args.name, args.format)
    path: Path = args.output or Path(Path(file_name).name)
    _require_free(path, args.force)
    write_atomically(path, data)
    print(path)


def _require_free(path: Path, force: bool) -> None:
    if path.exists() and not force:
        raise ConflictError(f"{path} is there already; replace it with --force")


def find(lab: Lab, name: str, what: str) -> ModelInfo:
    """The model of a name.

    Raises:
        NotFoundError: there is none, or it is not what the command group is about.
    """
    info = lab.model_info(name)
    if not is_a(info, what):
        group = TABLE if info.kind == TABLE else "predictor"
        raise NotFoundError(
            f"{name!r} is not a {what} but a {group} ({info.kind}); see `latlas {group} show`"
        )
    return info


def table_of(lab: Lab, info: ModelInfo) -> LookupTable | None:
    """The table itself; None for a predictor."""
    if info.kind != TABLE:
        return None
    from latlas_latency.table import LookupTable

    table = lab.latency_model(info.name)
    assert isinstance(table, LookupTable)
    return table


def print_info(info: ModelInfo, args: argparse.Namespace, table: LookupTable | None = None) -> None:
    """Prints what a model is valid for and how good it is.

    Args:
        info: the model.
        args: of the command.
        table: the table itself, if how it was measured and what it lacks are to be shown.
    """
    from latlas.cli.coverage import coverage_record, print_coverage

    method = "" if table is None else table.method
    if args.json:
        record = vars(info)
        if table is not None:
            record = {**record, "method": method, "coverage": coverage_record(table)}
        print_json(record)
        return
    target = info.target
    print_pairs(
        (
            ("name", info.name),
            ("kind", info.kind),
            ("space", info.space or "any"),
            ("target", target.name),
            ("device model", target.device_model),
            ("runtime", f"{target.runtime} {target.runtime_version}, {target.provider}"),
            ("setup", setup(target)),
            ("entries", info.n_entries or "-"),
            *((("method", method),) if method else ()),
            ("calibrated", "yes" if info.calibrated else "no, sums of its entries are biased"),
            ("made", local_time(info.created_ns)),
        )
    )
    if method in REMARKS:
        print(REMARKS[method])
    print()
    found = info.validation
    if found is None:
        print("not validated: no network was measured that the fit has not seen")
    else:
        _print_validation(found, "table" if info.kind == TABLE else info.kind)
    if table is not None:
        print_coverage(table)


def _print_validation(found: Validation, what: str) -> None:
    when = f", {local_time(found.measured_ns)}" if found.measured_ns else ""
    print(f"On {found.n_networks} networks that no fit has seen{when}:")
    rows: list[tuple[str, Errors]] = [(what, found)]
    rows += [(f"  {part.name}", part) for part in found.parts]
    rows += [(baseline.name, baseline) for baseline in found.baselines]
    print_table(
        ("", "NETWORKS", "MAPE", "MAX", "IN 5 %", "IN 10 %", "SPEARMAN", "R2", "ORDER"),
        (
            (
                name,
                errors.n_networks,
                percent(errors.mape),
                percent(errors.max_error),
                percent(errors.share_within_5_percent),
                percent(errors.share_within_10_percent),
                f"{errors.spearman:.4f}",
                f"{errors.r2:.4f}",
                percent(errors.pair_order),
            )
            for name, errors in rows
        ),
        empty="",
    )
    session = found.session_scale - 1
    drift = "not known; `latlas table validate` asks ten networks"
    if math.isfinite(session):
        drift = f"{percent(abs(session))} {'slower' if session > 0 else 'faster'} than calibrated"
    print_pairs(
        (
            ("device in that session", drift),
            ("label noise", f"{percent(found.label_noise)} (one half of the rounds vs the other)"),
            ("common-mode-free noise", percent(found.common_mode_free_noise)),
            (
                "interval coverage",
                f"{percent(found.interval_coverage)} (promised {percent(found.interval_level)})",
            ),
            (
                "pairs of equal MACs",
                f"{found.n_pairs}; ORDER is the share that is put in the right order",
            ),
        )
    )
