"""The figures of a finished quickstart beside their bars, recomputed from its raw values.

    python bench/loop.py [FOLDER] [--json FILE]

Exit code 0 when every bar holds, 1 when one does not, 2 when there is no finished quickstart.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from _figures import EXIT_UNUSABLE, as_table, exit_code, write_json
from latlas.quickstart.results import Results
from latlas.report.figures import figures
from latlas_ops.errors import LatlasError


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, writes the JSON, and returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        shown = figures(Results.load(options.folder / "results.json"))
        if options.json is not None:
            write_json(shown, options.json)
    except (LatlasError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    print(as_table(shown))
    return exit_code(shown)


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
