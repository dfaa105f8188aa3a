"""`latlas target`: what a latency figure is valid for."""

from __future__ import annotations

import argparse

from latlas.cli.options import Commands, add_command, add_group, cores, open_lab, positive
from latlas.cli.output import print_json, print_pairs, print_table
from latlas_latency.measurement.target import EXECUTIONS, GRAPH_LEVELS, PRECISIONS, Target


def add_to(commands: Commands) -> None:
    """Adds `target add` and `target list`."""
    group = add_group(commands, "target", "what a latency figure is valid for")
    add_command(group, "list", "list targets").set_defaults(run=run_list)
    add = add_command(
        group, "add", "name a target; what is left out comes from the only connected device"
    )
    add.add_argument("name", metavar="NAME", help="for example pi5-ort-4t")
    add.add_argument(
        "--runtime",
        default="onnxruntime",
        metavar="RUNTIME",
        help="runtime plug-in of the agent (default: onnxruntime)",
    )
    add.add_argument(
        "--runtime-version", default="", metavar="VERSION", help="exact version of the runtime"
    )
    add.add_argument(
        "--device-model", default="", metavar="MODEL", help="as `latlas device list` shows it"
    )
    add.add_argument(
        "--provider", default="", metavar="PROVIDER", help="execution provider or delegate"
    )
    add.add_argument(
        "--power-mode", default="", metavar="MODE", help="as `latlas device show` shows it"
    )
    add.add_argument(
        "--execution",
        choices=EXECUTIONS,
        default="eager",
        help="whether the runtime compiles the program (default: eager)",
    )
    add.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="precision of the computation (default: fp32)",
    )
    add.add_argument(
        "--graph-level",
        choices=GRAPH_LEVELS,
        default="all",
        help="graph optimisations of the runtime (default: all)",
    )
    add.add_argument(
        "--threads",
        type=positive,
        default=1,
        metavar="N",
        help="threads that one inference may use (default: 1)",
    )
    add.add_argument(
        "--cores", type=cores, default=(), metavar="LIST", help="pin to these cores, such as 0,2-3"
    )
    add.add_argument(
        "--batch", type=positive, default=1, metavar="N", help="batch size (default: 1)"
    )
    add.add_argument(
        "--allow-fallback",
        action="store_true",
        help="accept that the provider hands nodes to another one",
    )
    add.set_defaults(run=run_add)


def run_list(args: argparse.Namespace) -> None:
    """Lists every target."""
    with open_lab(args) as lab:
        targets = lab.targets()
    if args.json:
        print_json([target.to_dict() for target in targets])
        return
    print_table(
        ("TARGET", "DEVICE MODEL", "RUNTIME", "PROVIDER", "SETUP"),
        (
            (
                target.name,
                target.device_model,
                f"{target.runtime} {target.runtime_version}",
                target.provider,
                setup(target),
            )
            for target in targets
        ),
        empty="no target yet; add one with `latlas target add NAME`",
    )


def run_add(args: argparse.Namespace) -> None:
    """Adds a target."""
    with open_lab(args) as lab:
        target = lab.add_target(
            args.name,
            runtime=args.runtime,
            device_model=args.device_model,
            runtime_version=args.runtime_version,
            provider=args.provider,
            power_mode=args.power_mode,
            execution=args.execution,
            precision=args.precision,
            graph_level=args.graph_level,
            threads=args.threads,
            cores=args.cores,
            batch=args.batch,
            allow_fallback=args.allow_fallback,
        )
    if args.json:
        print_json(target.to_dict())
    else:
        print_pairs((("target", target.name), *((k, v) for k, v in target.conditions().items())))


def setup(target: Target) -> str:
    """How the runtime is set up, in a few words."""
    parts = [
        target.precision,
        target.execution,
        f"graph {target.graph_level}",
        f"{target.threads} thread" + ("s" if target.threads > 1 else ""),
    ]
    if target.cores:
        parts.append("cores " + ",".join(map(str, target.cores)))
    if target.batch > 1:
        parts.append(f"batch {target.batch}")
    if target.power_mode != "default":
        parts.append(f"power {target.power_mode}")
    if target.allow_fallback:
        parts.append("fallback allowed")
    return ", ".join(parts)
