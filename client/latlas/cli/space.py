"""`latlas space`: the built-in search spaces. Needs no coordinator."""

from __future__ import annotations

import argparse

from latlas.cli.options import Commands, add_command, add_group
from latlas.cli.output import magnitude, print_json, print_pairs, print_table
from latlas_ops import SPACE_NAMES, SearchSpace, get_space
from latlas_ops.spaces import space_names


def add_to(commands: Commands) -> None:
    """Adds `space list`, `space show` and `space count`."""
    group = add_group(commands, "space", "the built-in search spaces")
    listing = add_command(group, "list", "list search spaces", coordinator=False)
    listing.set_defaults(run=run_list)
    for name, summary, run in (
        ("show", "the choices and the ops of a space", run_show),
        ("count", "exact number of architectures of a space", run_count),
    ):
        command = add_command(group, name, summary, coordinator=False)
        command.add_argument("space", metavar="NAME", help=", ".join(SPACE_NAMES))
        command.set_defaults(run=run)


def run_list(args: argparse.Namespace) -> None:
    """Lists every space."""
    spaces = [get_space(name) for name in space_names()]
    if args.json:
        print_json([_summary(space) for space in spaces])
        return
    print_table(
        ("SPACE", "VERSION", "GENES", "RESOLUTIONS", "ARCHITECTURES"),
        (
            (
                space.name,
                space.version,
                len(space.genes),
                ", ".join(f"{side} px" for side in _resolutions(space)),
                magnitude(space.count().distinct),
            )
            for space in spaces
        ),
        empty="no search space is built in",
    )


def run_show(args: argparse.Namespace) -> None:
    """Shows the genes of a space."""
    space = get_space(args.space)
    genes = [
        {
            "name": gene.name,
            "choices": list(gene.labels or gene.choices),
            "matters_when": _condition(space, index),
        }
        for index, gene in enumerate(space.genes)
    ]
    if args.json:
        print_json({**_summary(space), "genes": genes})
        return
    print_pairs(
        (
            ("space", f"{space.name} (version {space.version})"),
            ("slots", f"{len(space.slots)} places for ops"),
            ("ops", f"{len(space.slot_entries.ops)} distinct"),
            ("architectures", f"{space.count().distinct:,}"),
        )
    )
    print()
    print_table(
        ("GENE", "CHOICES", "MATTERS WHEN"),
        (
            (gene["name"], ", ".join(map(str, gene["choices"])), gene["matters_when"] or "always")
            for gene in genes
        ),
        empty="it has no genes",
    )


def run_count(args: argparse.Namespace) -> None:
    """Counts the architectures of a space exactly."""
    space = get_space(args.space)
    count = space.count()
    if args.json:
        print_json(
            {
                "space": space.name,
                "version": space.version,
                "flat": count.flat,
                "distinct": count.distinct,
                "distinct_per_resolution": count.distinct_per_resolution,
            }
        )
        return
    print_pairs((("space", f"{space.name} (version {space.version})"),))
    numbers = (
        ("flat", count.flat, "product of all choices, those of absent layers included"),
        ("distinct", count.distinct, "networks that differ, inactive layers counted once"),
        (
            "distinct per resolution",
            count.distinct_per_resolution,
            "the same at one input resolution",
        ),
    )
    print_table(
        ("COUNT", "EXACTLY", "ABOUT", "WHAT IS COUNTED"),
        ((name, f"{value:,}", magnitude(value), what) for name, value, what in numbers),
        empty="",
    )


def _summary(space: SearchSpace) -> dict[str, object]:
    return {
        "space": space.name,
        "version": space.version,
        "n_genes": len(space.genes),
        "n_slots": len(space.slots),
        "resolutions_px": _resolutions(space),
        "n_architectures": space.count().distinct,
    }


def _resolutions(space: SearchSpace) -> list[int | float]:
    gene = space.resolution_gene
    return [] if gene is None else list(space.genes[gene].choices)


def _condition(space: SearchSpace, index: int) -> str:
    gene = space.genes[index]
    if gene.parent is None:
        return ""
    if gene.least_parent_choice == 0:
        return _condition(space, gene.parent)
    parent = space.genes[gene.parent]
    return f"{parent.name} >= {parent.choices[gene.least_parent_choice]}"
