"""Tables on other runtimes and spaces than `additivity.py`'s: the same discipline, one session.

    python bench/elsewhere.py [FOLDER] [--cases NAME,NAME] [--quick] [--json FILE] [--figures-only]

Every case starts a coordinator and an agent of its own, profiles a space (op by op in whole
networks where the runtime times nodes, else in chains), builds the table, and measures 60 networks
that it was not made from: half random, half found by searches with the table itself. A sitting
noisier than 2 % is measured again, up to three times. All raw samples stay in FOLDER; a case that
is finished is not measured again.

Exit code 0 when every bar holds, 1 when one does not, 2 when there is nothing to judge.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from _figures import EXIT_UNUSABLE, as_table, exit_code, write_json
from _sessions import QUICK, Amounts, measure_session, open_stores
from additivity import LEAST_WITHIN_5, MOST_MAPE_NOISES, Judged, judge, print_errors
from latlas.report.figures import Figure
from latlas_latency.baselines import MACS_AFFINE
from latlas_latency.comparison import validate
from latlas_latency.table import NOISY_SITTING
from latlas_ops.errors import InvalidInputError, LatlasError
from latlas_ops.spaces import get_space

MOST_DEVICE_SECONDS = 120.0
_FAST_MS = 2.0


@dataclass(frozen=True)
class Case:
    """A space on a runtime, and how well its table is to predict.

    Attributes:
        name: for `--cases`, and of its folder.
        space, runtime: what is measured.
        most_mape, most_error: fractions; the mean error may reach 1.5 times the noise.
        most_error_of_fast: the same as `most_error`, for networks below 2 ms.
    """

    name: str
    space: str
    runtime: str
    most_mape: float
    most_error: float
    most_error_of_fast: float


CASES = (
    Case("torch", "ofa-mobilenetv3", "torch", 0.013, 0.05, 0.05),
    Case("litert", "ofa-mobilenetv3", "litert", 0.012, 0.05, 0.05),
    Case("encoder-pre-norm", "encoder-pre-norm", "onnxruntime", 0.015, 0.08, 0.10),
    Case("encoder-post-norm", "encoder-post-norm", "onnxruntime", 0.015, 0.08, 0.10),
    Case("ofa-resnet50", "ofa-resnet50", "onnxruntime", 0.006, 0.015, 0.015),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is missing, prints the tables, writes the JSON, and returns the exit code."""
    options = _parser().parse_args(arguments)
    amounts = QUICK if options.quick else Amounts(n_training=0, stand_alone=False)
    try:
        cases = _chosen(options.cases, quick=options.quick)
        if not options.figures_only:
            for case in cases:
                _measure(options.folder, case, amounts)
        with ExitStack() as stack:
            stores = open_stores(options.folder, stack)
            judged = {
                case: one
                for case in cases
                if case.name in stores
                for one in judge(case.name, stores[case.name])
            }
            print_errors(list(judged.values()))
            shown = [figure for case, one in judged.items() for figure in _figures(case, one)]
        if options.json is not None:
            write_json(shown, options.json)
    except (LatlasError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    print(as_table(shown))
    return exit_code(shown)


def _chosen(names: str, *, quick: bool) -> list[Case]:
    known = {case.name: case for case in CASES}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise InvalidInputError(f"no case {name!r}; there are {', '.join(known)}")
    if not wanted:
        return [known["encoder-pre-norm"]] if quick else list(CASES)
    return [known[name] for name in wanted]


def _measure(folder: Path, case: Case, amounts: Amounts) -> None:
    print(f"{case.name}:", flush=True)
    wanted = dataclasses.replace(amounts, space=case.space, runtime=case.runtime, levels=("all",))
    measure_session(folder / case.name, wanted, sys.stdout)


def _figures(case: Case, one: Judged) -> Iterator[Figure]:
    found, name = one.validation, case.name
    noise = found.common_mode_free_noise
    latencies_ms = [seen.latency_ms for seen in one.unseen]
    fastest_ms, slowest_ms = min(latencies_ms), max(latencies_ms)
    most_mape = 100 * max(case.most_mape, MOST_MAPE_NOISES * noise)
    within_5 = 100 * found.share_within_5_percent
    yield Figure(f"{name}: networks", found.n_networks)
    yield Figure(f"{name}: the fastest", fastest_ms, "ms")
    yield Figure(f"{name}: the slowest", slowest_ms, "ms")
    yield Figure(f"{name}: entries", float(len(one.table.entries)))
    yield Figure(f"{name}: common-mode-free noise", 100 * noise, "%", 100 * NOISY_SITTING)
    yield Figure(f"{name}: MAPE", 100 * found.mape, "%", most_mape)
    fast = [seen for seen in one.unseen if seen.latency_ms < _FAST_MS]
    slow = [seen for seen in one.unseen if seen.latency_ms >= _FAST_MS]
    space = get_space(case.space)
    for what, part, most in (
        (f"below {_FAST_MS:g} ms", fast, case.most_error_of_fast),
        (f"from {_FAST_MS:g} ms on", slow, case.most_error),
    ):
        if part:
            error = validate(one.table, part, space, anchors=one.anchors).max_error
            yield Figure(f"{name}: greatest error {what}", 100 * error, "%", 100 * most)
    yield Figure(f"{name}: within 5 %", within_5, "%", 100 * LEAST_WITHIN_5, "at least")
    macs = one.baseline(MACS_AFFINE)
    if macs is not None:
        yield Figure(f"{name}: MAPE of MACs", 100 * macs.mape, "%")
        yield Figure(f"{name}: MAPE over that of MACs", found.mape / macs.mape, "", 1.0)
    yield Figure(f"{name}: device time", one.device_seconds, "s", MOST_DEVICE_SECONDS)
    yield Figure(f"{name}: wall time", one.wall_seconds, "s")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/elsewhere.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("elsewhere"),
        help="where cases keep their raw samples (default: elsewhere)",
    )
    parser.add_argument(
        "--cases",
        default="",
        metavar="NAME,NAME",
        help=f"some of {', '.join(case.name for case in CASES)} (default: all)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--quick", action="store_true", help="one short session of one case")
    parser.add_argument(
        "--figures-only", action="store_true", help="measure nothing; judge what is there"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
