"""The figures of a finished quickstart beside their bars, recomputed from its raw values.

    python bench/loop.py [FOLDER] [--json FILE]

Exit code 0 when every bar holds, 1 when one does not, 2 when there is no finished quickstart.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from latlas.quickstart.results import Results
from latlas.report.figures import Figure, figures
from latlas_ops.errors import LatlasError

EXIT_FAILED = 1
EXIT_UNUSABLE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, writes the JSON, and returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        shown = figures(Results.load(options.folder / "results.json"))
        if options.json is not None:
            options.json.write_text(json.dumps(as_record(shown), indent=1, allow_nan=False) + "\n")
    except (LatlasError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    print(as_table(shown))
    return EXIT_FAILED if any(figure.holds is False for figure in shown) else 0


def as_table(shown: Sequence[Figure]) -> str:
    """One line per figure: name, value, bar, whether it holds; and a verdict."""
    rows = [("figure", "value", "bar", "holds")]
    for figure in shown:
        holds = {None: "", True: "yes", False: "NO"}[figure.holds]
        rows.append((figure.name, figure.value_text(), figure.bar_text(), holds))
    names, values, bars, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [
        f"{name:<{names}}  {value:>{values}}  {bar:>{bars}}  {holds}".rstrip()
        for name, value, bar, holds in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    held = [figure.holds for figure in shown if figure.holds is not None]
    lines += ["", f"{sum(held)} of {len(held)} bars hold"]
    return "\n".join(lines)


def as_record(shown: Sequence[Figure]) -> dict[str, list[dict[str, object]]]:
    """The figures as plain values for JSON, in the units of the table."""
    return {
        "figures": [
            {
                "name": figure.name,
                "value": figure.value,
                "unit": figure.unit,
                "bar": figure.bar,
                "direction": None if figure.bar is None else figure.direction,
                "holds": figure.holds,
            }
            for figure in shown
        ]
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/loop.py", description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("quickstart"),
        help="folder of a finished `latlas quickstart` (default: quickstart)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="as in every benchmark; changes nothing here, where the work is reading a file",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
