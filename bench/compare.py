"""How often `latlas compare` judges rightly: equal programs, and programs that are 5 % slower.

    python bench/compare.py [--comparisons N] [--quick] [--json FILE]

Every comparison measures two programs as `latlas compare --against` does, round by round, in the
agent's own worker with sessions that are opened anew: one network of the space `digits`, written
twice with weights of its own each, which take equally long. They are judged by `p50<+2.5%` as they
are, and once more after each inference of the first took 5 % longer.

Exit code 0 when every bar holds, 1 when one does not, 2 when there is nothing to judge.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from _figures import EXIT_UNUSABLE, as_table, exit_code, write_json
from latlas.gate import Judgement, Requirement, Verdict, judge
from latlas.progress import Progress
from latlas.report.figures import Figure
from latlas_agent.runtimes.onnxruntime import OnnxRuntime
from latlas_agent.watch import open_watch
from latlas_agent.worker import VisitOrder, Worker, pin
from latlas_latency.measurement import PLAIN, Target, UsualClocks, Visit, kept_visits
from latlas_latency.program_details import VisitTail, program_details
from latlas_ops import get_space
from latlas_ops.errors import LatlasError
from latlas_ops.writers.onnx_writer import write_onnx

REQUIREMENT = Requirement("p50", 1.025, is_relative=True)
SLOWER = 1.05
MOST_FALSE_FAILURES, LEAST_CAUGHT = 0.01, 0.95
WARMUP_RUNS, MIN_RUNS = 2, 5
_SESSION_BYTES = 1 << 30


@dataclass(frozen=True)
class Amounts:
    """How much is measured: comparisons, rounds in each, and the least time of a visit."""

    n_comparisons: int = 100
    n_rounds: int = 100
    min_duration_ns: int = 30_000_000


QUICK = Amounts(n_comparisons=5)


@dataclass(frozen=True)
class Compared:
    """One comparison, judged as measured and with the first program made slower."""

    equal: Judgement
    slower: Judgement


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the JSON, and returns the exit code."""
    options = _parser().parse_args(arguments)
    amounts = QUICK if options.quick else Amounts(n_comparisons=options.comparisons)
    try:
        shown = list(figures(measure(amounts)))
        if options.json is not None:
            write_json(shown, options.json)
    except (LatlasError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    print(as_table(shown))
    return exit_code(shown)


def measure(amounts: Amounts) -> list[Compared]:
    """All comparisons in this process, confined to one core."""
    core = max(os.sched_getaffinity(0))
    pin([core])
    runtime = OnnxRuntime()
    target = Target(
        name="here",
        device_model="this machine",
        runtime="onnxruntime",
        runtime_version=runtime.capability().version,
        provider="CPUExecutionProvider",
        threads=1,
        cores=(core,),
    )
    space = get_space("digits")
    archs = space.archs(space.sample(amounts.n_comparisons, np.random.default_rng(0)))
    compared = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Progress("comparing", total=len(archs), stream=sys.stderr) as bar,
    ):
        for number, arch in enumerate(archs, 1):
            programs = [Path(folder) / f"{number}-{seed}.onnx" for seed in range(2)]
            for seed, program in enumerate(programs):
                program.write_bytes(write_onnx(space.network(arch), seed=seed).model_bytes)
            worker = Worker(
                runtime,
                target,
                device_id="here",
                watch=open_watch(Path("/"), [core], target.provider, os.environ),
                scratch=Path(folder),
                session_budget_bytes=_SESSION_BYTES,
            )
            compared.append(_compare(worker, programs, amounts, number))
            bar.update(number)
    return compared


def _compare(worker: Worker, programs: Sequence[Path], amounts: Amounts, seed: int) -> Compared:
    rng = np.random.default_rng(seed)
    visits: list[list[Visit]] = [[] for _ in programs]
    for round_ in range(amounts.n_rounds):
        for index in rng.permutation(len(programs)).tolist():
            order = VisitOrder(
                task_id=str(index),
                program=programs[index],
                mode=PLAIN,
                round=round_,
                warmup_runs=WARMUP_RUNS,
                min_runs=MIN_RUNS,
                min_duration_ns=amounts.min_duration_ns,
            )
            visits[index].append(worker.visit(order))
    usual = UsualClocks.of(visit for found in visits for visit in found)
    new, old = (_tails(found, usual) for found in visits)
    return Compared(
        equal=judge(REQUIREMENT, new, old),
        slower=judge(REQUIREMENT, [_slowed(visit) for visit in new], old),
    )


def _tails(visits: Sequence[Visit], usual: Mapping[str, UsualClocks]) -> tuple[VisitTail, ...]:
    selection = kept_visits(visits, usual=usual)
    return program_details("", selection.kept, (), selection.left_out).visits


def _slowed(visit: VisitTail) -> VisitTail:
    return replace(visit, p50_ns=visit.p50_ns * SLOWER)


def figures(compared: Sequence[Compared]) -> Iterator[Figure]:
    """How often each verdict was given, and how wide the intervals were."""
    n_compared = len(compared)
    yield Figure("comparisons", float(n_compared))
    verdicts = Counter(one.equal.verdict for one in compared)
    false_failures = 100 * verdicts[Verdict.FAIL] / n_compared
    yield Figure("equal programs that fail", false_failures, "%", 100 * MOST_FALSE_FAILURES)
    yield Figure("equal programs that pass", 100 * verdicts[Verdict.PASS] / n_compared, "%")
    slower = Counter(one.slower.verdict for one in compared)
    caught = 100 * slower[Verdict.FAIL] / n_compared
    yield Figure("programs 5 % slower that fail", caught, "%", 100 * LEAST_CAUGHT, "at least")
    yield Figure("programs 5 % slower that pass", 100 * slower[Verdict.PASS] / n_compared, "%")
    ratios = [one.equal.value for one in compared]
    yield Figure("equal programs differ, median", 100 * _median_distance(ratios), "%")
    widths = [one.equal.upper - one.equal.lower for one in compared]
    yield Figure("width of the interval, median", 100 * float(np.median(widths)), "%")


def _median_distance(ratios: Sequence[float]) -> float:
    return float(np.median(np.abs(np.array(ratios) - 1)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="How often `latlas compare` judges equal and slower programs rightly."
    )
    parser.add_argument("--comparisons", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--quick", action="store_true", help="within a minute, figures mean little")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
