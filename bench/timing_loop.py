"""What the agent's timing loop adds to an inference, and what it keeps.

    python bench/timing_loop.py [--quick] [--json FILE]

A bare loop (`for _ in range(n): session.run(None, inputs)`, the clock read around the whole of
it) and `time_runs`, from the worker's own session, take turns in one process on one core, the
order alternated; both run the same onnxruntime session. The cost of the loop is the difference of
the wall time per inference, from the first inference to the end of the last. What a visit costs
once, however many inferences it times, is shown beside it.

Exit code 0 when every bar holds, 1 when one does not, 2 when nothing can be measured here.
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from _figures import EXIT_UNUSABLE, as_table, exit_code, write_json
from latlas.report.figures import Figure
from latlas_agent.runtimes.onnxruntime import OnnxRuntime
from latlas_agent.timing import MAX_RUNS, time_runs
from latlas_agent.worker import pin, resident_bytes
from latlas_latency.measurement import Target
from latlas_latency.measurement.statistics import robust_standard_deviation
from latlas_ops import ArchBatch, Network, OpSpec, get_space
from latlas_ops.errors import LatlasError
from latlas_ops.writers.onnx_writer import write_onnx

MOST_ADDED_US = 1.0
MOST_STANDARD_ERROR_US = 0.5
"""Where it is larger, the machine is too busy for a verdict."""

MOST_GROWTH_BYTES = 8.0
"""One integer kept per visit would be 32 bytes; numpy's smallest array is 96."""

MOST_KEPT_BYTES_PER_RUN = 0.1
"""One number kept per inference would be 8 bytes."""

_BLOCK_NS = 10_000_000
"""Duration of one block of inferences: short beside the bursts of a shared machine."""

_SECONDS, _QUICK_SECONDS = 120.0, 20.0
"""Most measuring time per network."""

_SURE_US = 0.2
"""Measuring ends when what is added is known to this standard error."""

_LEAST_PAIRS = 200

_N_VISITS = 50
_MEDIAN_EFFICIENCY = math.sqrt(math.pi / 2)
"""Standard error of a median of normal values over that of their mean."""

Run = Callable[[], object]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Blocks of inferences in pairs, one bare and one under the timing loop.

    Attributes:
        bare_us: wall time per inference of the bare loop, `(n_pairs,)`.
        timed_us: wall time per inference of the loop of `time_runs`, `(n_pairs,)`.
        median_sample_us: median of the samples of each timed block, `(n_pairs,)`.
        mean_sample_us: their mean, `(n_pairs,)`.
    """

    bare_us: NDArray[np.float64]
    timed_us: NDArray[np.float64]
    median_sample_us: NDArray[np.float64]
    mean_sample_us: NDArray[np.float64]

    @property
    def added_us(self) -> NDArray[np.float64]:
        """What the loop adds to an inference, by each pair, `(n_pairs,)`."""
        return self.timed_us - self.bare_us

    @property
    def standard_error_us(self) -> float:
        """Standard error of the median of `added_us`."""
        spread_us = robust_standard_deviation(self.added_us)
        return _MEDIAN_EFFICIENCY * spread_us / math.sqrt(len(self.added_us))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the JSON, and returns the exit code."""
    options = _parser().parse_args(arguments)
    seconds = _QUICK_SECONDS if options.quick else _SECONDS
    try:
        pin([max(os.sched_getaffinity(0))])
        shown = []
        for name, network in _networks().items():
            with _session(network) as run:
                shown += cost_figures(name, measure_pairs(run, seconds))
                shown.append(Figure(f"{name}: once per visit", once_us(run), "µs"))
                if name == "one op":
                    growth = growth_figures(run)
        shown += [*growth, kept_per_run()]
        if options.json is not None:
            write_json(shown, options.json)
    except (LatlasError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    print(as_table(shown))
    return exit_code(shown)


def measure_pairs(run: functools.partial[object], most_seconds: float) -> Pairs:
    """Bare and timed blocks in turn, as many inferences in each, until the cost is known.

    One inference that is not counted precedes each block.
    """
    session_run, (outputs, inputs) = run.func, run.args

    def bare(n_runs: int) -> float:
        session_run(outputs, inputs)
        begin_ns = time.perf_counter_ns()
        for _ in range(n_runs):
            session_run(outputs, inputs)
        return (time.perf_counter_ns() - begin_ns) / n_runs

    def timed(n_runs: int) -> tuple[float, ...]:
        timing = time_runs(run, warmup_runs=1, min_runs=n_runs, min_duration_ns=0)
        samples_ns = timing.samples_ns
        return timing.duration_ns / n_runs, float(np.median(samples_ns)), float(samples_ns.mean())

    warm_ns = float(np.median([bare(10) for _ in range(20)]))
    n_runs = min(MAX_RUNS, max(5, round(_BLOCK_NS / warm_ns)))
    end_s = time.perf_counter() + most_seconds
    rows: list[tuple[float, ...]] = []
    while True:
        for _ in range(_LEAST_PAIRS // 2):
            bare_first = bare(n_runs)
            timed_second = timed(n_runs)
            timed_first = timed(n_runs)
            bare_second = bare(n_runs)
            rows += [(bare_first, *timed_second), (bare_second, *timed_first)]
        pairs = Pairs(*(np.array(rows).T / 1e3))
        if pairs.standard_error_us <= _SURE_US or time.perf_counter() >= end_s:
            return pairs


def once_us(run: Run) -> float:
    """Wall time of a call of `time_runs` outside its loop: what a visit costs once."""
    found = []
    for _ in range(200):
        begin_ns = time.perf_counter_ns()
        timing = time_runs(run, warmup_runs=0, min_runs=5, min_duration_ns=0)
        found.append(time.perf_counter_ns() - begin_ns - timing.duration_ns)
    return float(np.median(found)) / 1e3


def cost_figures(name: str, pairs: Pairs) -> list[Figure]:
    """What the loop adds to an inference, how sure that is, and what its samples overstate.

    A sample holds about one reading of the clock and the loop's call. Its median stands against
    the mean time of the bare loop, which slow inferences raise: on a busy machine the median
    sample lies below it.
    """
    values_us = {
        "bare loop, per inference": pairs.bare_us,
        "mean sample above the bare loop": pairs.mean_sample_us - pairs.bare_us,
        "median sample above the bare loop": pairs.median_sample_us - pairs.bare_us,
        "between two samples": pairs.timed_us - pairs.mean_sample_us,
    }
    added_us = pairs.added_us
    return [
        Figure(f"{name}: added per inference", float(np.median(added_us)), "µs", MOST_ADDED_US),
        Figure(
            f"{name}: standard error of that",
            pairs.standard_error_us,
            "µs",
            MOST_STANDARD_ERROR_US,
        ),
        Figure(f"{name}: spread of single pairs", robust_standard_deviation(added_us), "µs"),
        Figure(f"{name}: pairs", float(len(added_us))),
        *(Figure(f"{name}: {what}", float(np.median(us)), "µs") for what, us in values_us.items()),
    ]


def growth_figures(run: Run) -> list[Figure]:
    """What a visit leaves behind once its result is dropped.

    State is whatever Python and numpy hold after the visit and did not hold before it
    (tracemalloc), as the slope over 50 visits after 10 that fill caches; beside it what the
    whole process holds, the runtime included, without tracemalloc's own records.
    """

    def visit() -> None:
        time_runs(run, warmup_runs=2, min_runs=200, min_duration_ns=0)

    def growth(held_bytes: Callable[[], int]) -> float:
        for _ in range(10):
            visit()
        held = np.empty(_N_VISITS + 1)
        for index in range(len(held)):
            held[index] = held_bytes()
            visit()
        return float(np.polyfit(np.arange(len(held)), held, 1)[0])

    resident = growth(resident_bytes)
    tracemalloc.start()
    try:
        traced = growth(lambda: tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    return [
        Figure("memory: Python's growth per visit", round(traced, 3) + 0.0, "B", MOST_GROWTH_BYTES),
        Figure("memory: the process's growth per visit", round(resident, 3) + 0.0, "B"),
    ]


def kept_per_run() -> Figure:
    """What the running loop keeps for each inference it has timed (tracemalloc), the runtime away.

    Between the hundredth and the last inference of the longest visit. The room for the samples
    is taken before the first one.
    """
    first, last = 100, MAX_RUNS - 1
    held = np.zeros(2)
    numbers = iter(range(MAX_RUNS))

    def run() -> None:
        number = next(numbers)
        if number in (first, last):
            held[int(number == last)] = tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        time_runs(run, warmup_runs=0, min_runs=MAX_RUNS, min_duration_ns=0)
    finally:
        tracemalloc.stop()
    kept_bytes = float(held[1] - held[0]) / (last - first)
    return Figure("memory: kept per timed inference", kept_bytes, "B", MOST_KEPT_BYTES_PER_RUN)


def _networks() -> dict[str, Network]:
    """An op so small that a microsecond shows, and a network from the middle of a space."""
    space = get_space("digits")
    middle = ArchBatch(space, space.canonical(space.sizes[None] // 2))
    (arch,) = space.archs(middle)
    return {
        "one op": Network.chain([OpSpec.of("linear", (8,), out_features=8)]),
        "digits network": space.network(arch),
    }


@contextmanager
def _session(network: Network) -> Iterator[functools.partial[object]]:
    """The `run` of the worker's session of a network: a partial call of the bare session's."""
    runtime = OnnxRuntime()
    target = Target(
        name="here",
        device_model="this machine",
        runtime="onnxruntime",
        runtime_version=runtime.capability().version,
        provider="CPUExecutionProvider",
    )
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "network.onnx"
        program.write_bytes(write_onnx(network).model_bytes)
        run = runtime.load(program, target).run
    assert isinstance(run, functools.partial)
    yield run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/timing_loop.py", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument(
        "--quick", action="store_true", help="measure for seconds; the figures are less sure"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
