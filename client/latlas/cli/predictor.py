"""`latlas predictor`: latency predictors fitted to whole networks."""

from __future__ import annotations

import argparse

from latlas.cli.models import add_export, add_listing, add_show, print_info
from latlas.cli.options import Commands, add_command, add_group, count, open_lab

KINDS = ("mlp", "linear", "macs")
PREDICTOR = "predictor"


def add_to(commands: Commands) -> None:
    """Adds `predictor fit`, `list`, `show` and `export`."""
    group = add_group(commands, PREDICTOR, "latency predictors fitted to whole networks")
    fit = add_command(group, "fit", "fit a predictor to a campaign's training networks")
    fit.add_argument("name", metavar="NAME", help="what to call the predictor")
    fit.add_argument("--campaign", required=True, metavar="NAME", help="what it learns from")
    fit.add_argument("--kind", choices=KINDS, default="mlp", help="what to fit (default: mlp)")
    fit.add_argument("--seed", type=count, default=0, metavar="N", help="of the fit (default: 0)")
    fit.set_defaults(run=run_fit)
    add_listing(group, PREDICTOR)
    add_show(group, PREDICTOR)
    add_export(group, PREDICTOR, ("latlas",))


def run_fit(args: argparse.Namespace) -> None:
    """Fits a predictor."""
    with open_lab(args) as lab:
        info = lab.fit_predictor(args.name, args.campaign, args.kind, args.seed)
    print_info(info, args)
