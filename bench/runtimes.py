"""What the runtimes agree on, and what an agent with each of them weighs.

    python bench/runtimes.py [--quick] [--docs] [--json FILE]

Agreement: every kind of op through every writer and runtime, in every precision, against torch in
double precision on the same weights. `--docs` also writes docs/agreement.md from it.

Environments: an agent with nothing but itself and with one runtime each, installed by pip into
an environment of its own: its size, how long `latlas-agent --version` takes, and which heavy
modules importing the agent loads.

Models that others made, and files that are none, are `bench/foreign_models.py`'s.

`--quick` leaves out compiled torch and all environments but the first; it says so. Exit code 0
when every bar holds, 1 when one does not, 2 when nothing can be measured here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from _agreement import Cell, Column, Table, as_markdown, columns, examples, kinds, measure
from _environments import ENVIRONMENTS, Environment, Installed, InstallError, install
from _figures import EXIT_UNUSABLE, as_table, exit_code, write_json
from latlas.progress import Progress
from latlas.report.figures import Figure
from latlas_ops.errors import LatlasError

PAGE = Path(__file__).resolve().parents[1] / "docs" / "agreement.md"

_PPM = 1e6


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the tables, writes the files, and returns the exit code."""
    options = _parser().parse_args(arguments)
    if options.docs and options.quick:
        _parser().error("--docs shows compiled torch too, which --quick leaves out")
    wanted = [] if options.docs else ENVIRONMENTS[:1] if options.quick else ENVIRONMENTS
    left_out = {} if options.docs else {one: "--quick" for one in ENVIRONMENTS if one not in wanted}
    left_out |= {one: one.unavailable for one in wanted if one.unavailable}
    try:
        table = _agreement(columns(slow=not options.quick))
        if options.docs:
            PAGE.write_text(as_markdown(table), encoding="utf-8")
        installed = list(_installed([one for one in wanted if one not in left_out]))
    except (LatlasError, InstallError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    _print_agreement(table)
    for environment, reason in left_out.items():
        print(f"environment {environment.title}: left out, {reason}")
    if options.quick:
        print("compiled torch: left out, --quick\n")
    shown = [*_agreement_figures(table), *_environment_figures(installed)]
    if options.json is not None:
        write_json(shown, options.json)
    print(as_table(shown))
    return exit_code(shown)


def _agreement(wanted: Sequence[Column]) -> Table:
    cells: dict[tuple[str, Column], Cell] = {}
    found = kinds()
    with Progress("kinds", total=len(found), stream=sys.stderr) as bar:
        for done, kind in enumerate(found, 1):
            for column in wanted:
                cells[kind, column] = measure(kind, column)
            bar.update(done)
    return cells


def _installed(environments: Sequence[Environment]) -> Iterator[tuple[Environment, Installed]]:
    if not environments:
        return
    with Progress("environments", total=len(environments), stream=sys.stderr) as bar:
        for done, environment in enumerate(environments, 1):
            yield environment, install(environment)
            bar.update(done)


def _columns_of(table: Table) -> list[Column]:
    return list(dict.fromkeys(column for _, column in table))


def _print_agreement(table: Table) -> None:
    width = max(map(len, kinds()))
    for column in _columns_of(table):
        print(f"{column.title}:")
        for kind in kinds():
            cell = table[kind, column]
            print(
                f"  {kind:<{width}}  {cell.reason if cell.error is None else f'{cell.error:.1e}'}"
            )
    print()


def _agreement_figures(table: Table) -> Iterator[Figure]:
    without = [kind for kind in kinds() if not examples(kind)]
    yield Figure("kinds without an example", float(len(without)), "", 0.0)
    for column in _columns_of(table):
        cells = [table[kind, column] for kind in kinds()]
        errors = [cell.error for cell in cells if cell.error is not None]
        yield Figure(f"{column.title}: kinds run", float(len(errors)))
        if errors:
            largest, most = _PPM * max(errors), _PPM * column.most_error
            yield Figure(f"{column.title}: largest error", largest, "ppm", most)


def _environment_figures(installed: Sequence[tuple[Environment, Installed]]) -> Iterator[Figure]:
    for environment, found in installed:
        name = f"environment {environment.title}"
        yield Figure(f"{name}: size", found.mebibytes, "MiB")
        yield Figure(f"{name}: latlas-agent --version", found.start_ms, "ms")
        yield Figure(f"{name}: heavy modules loaded", float(len(found.heavy)), "", 0.0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="What the runtimes agree on, and what an agent with each of them weighs."
    )
    parser.add_argument(
        "--quick", action="store_true", help="no compiled torch, one environment; within a minute"
    )
    parser.add_argument(
        "--docs",
        action="store_true",
        help="write docs/agreement.md, and leave out the environments",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
