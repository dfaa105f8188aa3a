"""`latlas predict`: latencies of architectures from a table or predictor of the coordinator."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from latlas.cli.options import Commands, add_command, count, open_lab, positive, share
from latlas.cli.output import milliseconds, percent, print_json, print_table
from latlas.files import read_file
from latlas_ops import ArchConfig, get_space
from latlas_ops.errors import InvalidInputError, LatlasError, NotFoundError

if TYPE_CHECKING:
    from latlas.lab import Lab
    from latlas.records import ModelInfo


def add_to(commands: Commands) -> None:
    """Adds `predict`."""
    command = add_command(commands, "predict", "predict latencies with a table or predictor")
    command.add_argument("--model", required=True, metavar="NAME", help="table or predictor")
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--arch",
        nargs="+",
        type=Path,
        metavar="FILE",
        help='architectures, each a file with {"space": NAME, "version": N, "genes": [...]}',
    )
    what.add_argument(
        "--sample", type=positive, metavar="N", help="N random architectures of the model's space"
    )
    command.add_argument(
        "--seed", type=count, default=0, metavar="N", help="of --sample (default: 0)"
    )
    command.add_argument(
        "--target", metavar="NAME", help="refuse unless the model is valid for this target"
    )
    command.add_argument(
        "--level",
        type=share,
        default=0.9,
        metavar="SHARE",
        help="coverage of the interval (default: 0.9)",
    )
    command.add_argument(
        "--interpolate",
        action="store_true",
        help="interpolate ops that were not measured, where they lie between measured ones",
    )
    command.add_argument(
        "--allow-estimates",
        action="store_true",
        help="estimate ops that were never measured instead of refusing",
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Predicts and prints one row per architecture."""
    archs = [(str(path), read_arch(path)) for path in args.arch or ()]
    with open_lab(args) as lab:
        info = lab.model_info(args.model)
        if args.target is not None:
            require_target(lab, info, args.target)
        if args.sample is not None:
            archs = sample(info, args.sample, args.seed)
        found = lab.predict(
            info.name,
            [arch for _, arch in archs],
            args.level,
            args.allow_estimates,
            args.interpolate,
        )
    rows = [
        {
            "architecture": label,
            "genes": arch.genes,
            "mean_ms": float(found.mean_ms[index]),
            "lower_ms": float(found.lower_ms[index]),
            "upper_ms": float(found.upper_ms[index]),
            "measured_ms": float(found.measured_ms[index]),
            "interpolated_ms": float(found.interpolated_ms[index]),
            "estimated_ms": float(found.estimated_ms[index]),
        }
        for index, (label, arch) in enumerate(archs)
    ]
    if args.json:
        print_json(
            {
                "model": info.name,
                "target": info.target.to_dict(),
                "space": archs[0][1].space,
                "level": found.level,
                "predictions": rows,
                "missing_op_keys": [op.key for op in found.missing],
            }
        )
        return
    print(f"{info.kind} {info.name!r} for target {info.target.name}")
    print_table(
        (
            "ARCHITECTURE",
            "MEAN",
            f"{percent(found.level)} INTERVAL",
            "OF WHICH INTERPOLATED",
            "ESTIMATED",
        ),
        (
            (
                row["architecture"],
                milliseconds(found.mean_ms[index]),
                f"{milliseconds(found.lower_ms[index])} to {milliseconds(found.upper_ms[index])}",
                milliseconds(found.interpolated_ms[index]),
                milliseconds(found.estimated_ms[index]),
            )
            for index, row in enumerate(rows)
        ),
        empty="",
    )
    if found.missing:
        print(f"{len(found.missing)} ops were never measured, the first: {found.missing[0].key}")


def read_arch(path: Path) -> ArchConfig:
    """The architecture in a file, checked against the space that it names.

    Raises:
        LatlasError: it cannot be read, is malformed, or names an unknown space; the message
            starts with the file.
    """
    text = read_file(path).decode(errors="replace")
    try:
        return get_space(_declared_space(text)).arch_from_json(text)
    except LatlasError as error:
        raise type(error)(f"{path}: {error}") from error


def _declared_space(text: str) -> str:
    try:
        name = json.loads(text)["space"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidInputError(
            'not an architecture; expected {"space": NAME, "version": N, "genes": [...]}'
        ) from error
    if not isinstance(name, str):
        raise InvalidInputError(f"the name of a space is a string, not {name!r}")
    return name


def sample(info: ModelInfo, n_archs: int, seed: int) -> list[tuple[str, ArchConfig]]:
    """Random architectures of a model's space.

    Raises:
        InvalidInputError: the model is bound to no space.
    """
    if not info.space:
        raise InvalidInputError(
            f"model {info.name!r} is bound to no space to sample from; give --arch"
        )
    space = get_space(info.space)
    batch = space.sample(n_archs, np.random.default_rng(seed))
    return [(f"sample {index}", arch) for index, arch in enumerate(space.archs(batch))]


def require_target(lab: Lab, info: ModelInfo, name: str) -> None:
    """Refuses a model that was made for another target.

    Raises:
        NotFoundError: the coordinator has no such target.
        TargetMismatchError: the model is not for it; the message names the field.
    """
    targets = {target.name: target for target in lab.targets()}
    if name not in targets:
        there = ", ".join(targets) or "none"
        raise NotFoundError(f"no target {name!r} at {lab.address}; there are: {there}")
    info.target.require_same(targets[name])
