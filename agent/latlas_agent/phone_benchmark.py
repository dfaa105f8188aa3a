"""What TFLite's `benchmark_model` prints, of several releases, as figures.

The tool prints no single runs, only what they come to: count, mean, extremes, and from some release
on the median; of nodes nothing but the mean. Nothing here makes samples up: a visit holds one per
series, which is the median of its runs where the tool tells it, and their mean elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from latlas_latency.measurement import PROFILED, WHOLE_NETWORK, Series
from latlas_ops.errors import MeasurementError

WHOLE, PART, NONE = "whole", "part", "none"
"""How much of a program a delegate took."""

_NS_PER_US = 1_000.0
_NS_PER_MS = 1_000_000.0
_PRINTED_HALF_NS = 500.0  # times are printed in milliseconds with three digits
_SHARE_HALF = 0.5e-5  # shares are printed in per cent with three digits

_NUMBER = r"([-+.\w]+)"
_RUNS = re.compile(r"^(?:INFO: )?count=(\d+)(.*)$", re.M)
_PROFILED_RUNS = re.compile(r"^Timings \(microseconds\): count=(\d+)(.*)$", re.M)
_PAIR = re.compile(r"(\w+)=([-+.\de]+)")
_SUMMARY = re.compile(r"^(?:INFO: )?(?:Average inference|Inference) timings in us: (.*)$", re.M)
_INIT, _FIRST = (re.compile(rf"{name}: {_NUMBER}") for name in ("Init", "First inference"))
_MEMORY = re.compile(rf"footprint[^\n]*\(MB\): init={_NUMBER} overall={_NUMBER}")
_BYTES_PER_MB = 1 << 20

_REGULAR = "Profiling Info for Regular Benchmark Runs"
_ROW = re.compile(
    r"^\s*(?P<type>\S.*?)\s+(?:[\d.]+\s+)*?(?P<ms>[\d.]+)\s+(?P<share>[-+.\w]+)%\s+[-+.\w]+%\s+"
    r"[\d.]+\s+(?P<calls>\d+)\s+(?P<name>\S.*?)\s*$"
)
_TYPE_ROW = re.compile(
    r"^\s*(?P<type>\S.*?)\s+(?P<count>\d+)\s+(?P<ms>[\d.]+)\s+[-+.\w]+%\s+[-+.\w]+%\s+"
    r"[\d.]+\s+\d+\s*$"
)
_PLACEMENTS = (
    ("will be completely executed by the delegate", WHOLE),
    ("will be partially executed by the delegate", PART),
    ("will not be executed by the delegate", NONE),
    ("Disallowed CPU fallback detected", PART),
)


@dataclass(frozen=True)
class RunStatistics:
    """What the tool tells of a number of runs.

    Attributes:
        n_runs: how many there were.
        average_ns: their mean.
        first_ns: the first one.
        median_ns: their median; None where the release does not print it.
    """

    n_runs: int
    average_ns: float
    first_ns: float
    median_ns: float | None


@dataclass(frozen=True)
class NodeTime:
    """One row of the table in run order.

    Attributes:
        kind: the node's type, for example `CONV_2D`.
        name: as printed.
        tensor: the node's first output; empty where the row names none, as those of a delegate's
            own operators and of the runtime's housekeeping.
        average_ns: mean time per run.
    """

    kind: str
    name: str
    tensor: str
    average_ns: float

    @property
    def is_delegate(self) -> bool:
        """Whether a delegate computed it."""
        return "delegate" in self.kind.lower() or self.name.startswith("Delegate/")


@dataclass(frozen=True)
class KindTime:
    """One row of the summary: how many nodes of a type there are, and their mean time per run."""

    kind: str
    n_nodes: int
    average_ns: float


@dataclass(frozen=True)
class BenchmarkResult:
    """What one call of the tool found.

    Attributes:
        runs: the timed runs.
        nodes: the nodes in run order; empty without profiling.
        kinds: the same by type; empty without profiling.
        nodes_runs: runs as the sum of their nodes; None without profiling.
        load_ns: from the file to an interpreter that is ready.
        first_run_ns: the very first run.
        memory_bytes: memory that loading and running took; None where it is not told.
        placement: `WHOLE`, `PART` or `NONE` of the program on the delegate; empty where nothing is
            said of a delegate.
    """

    runs: RunStatistics
    nodes: tuple[NodeTime, ...]
    kinds: tuple[KindTime, ...]
    nodes_runs: RunStatistics | None
    load_ns: int
    first_run_ns: int
    memory_bytes: int | None
    placement: str

    def series(self, mode: str) -> tuple[Series, ...]:
        """The series of a visit, each with one sample.

        A profiled visit holds means throughout, so that network and nodes speak of the same.

        Raises:
            MeasurementError: nodes are wanted, and the tool printed none.
        """
        if mode != PROFILED:
            median_ns = self.runs.median_ns
            return (
                _series(WHOLE_NETWORK, self.runs.average_ns if median_ns is None else median_ns),
            )
        if not self.nodes:
            raise MeasurementError(
                "benchmark_model printed no times of nodes; take a build that can profile "
                "(--enable_op_profiling)"
            )
        nodes = [
            _series(node.tensor, node.average_ns, f"{node.kind} {node.name}") for node in self.nodes
        ]
        return (_series(WHOLE_NETWORK, self.runs.average_ns), *nodes)


def parse_benchmark(text: str) -> BenchmarkResult:
    """Reads what the tool printed, its standard error included.

    Raises:
        MeasurementError: it did not come to its end, or prints what cannot be read.
    """
    text = text.replace("\r\n", "\n")
    summary = _SUMMARY.search(text)
    told = [_statistics(*found) for found in _RUNS.findall(text)]
    counted = [runs for runs in told if runs is not None]
    if summary is None or not told or told[-1] is None:
        raise MeasurementError(f"benchmark_model did not come to its end: {last_words(text)}")
    init = _INIT.search(summary[1])
    first = _FIRST.search(summary[1])
    first_ns = float(first[1]) * _NS_PER_US if first else 0.0
    memory = _MEMORY.search(text)
    profile = text[max(0, text.find(_REGULAR)) :]
    nodes_runs = next(
        (_statistics(*found) for found in _PROFILED_RUNS.findall(profile) if found), None
    )
    return BenchmarkResult(
        runs=told[-1],
        nodes=tuple(_nodes(_table(profile, "Run Order"), nodes_runs)),
        kinds=tuple(_kinds(_table(profile, "Summary by node type"))),
        nodes_runs=nodes_runs,
        load_ns=round(float(init[1]) * _NS_PER_US) if init else 0,
        first_run_ns=round(first_ns or counted[0].first_ns),
        memory_bytes=round(float(memory[2]) * _BYTES_PER_MB) if memory else None,
        placement=parse_placement(text),
    )


def parse_placement(text: str) -> str:
    """How much of the program the delegate took; see `BenchmarkResult`."""
    return next((placement for words, placement in _PLACEMENTS if words in text), "")


def last_words(text: str) -> str:
    """The line that says best why the tool failed: its last error, or else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") or "error" in line.lower()]
    return (errors or lines or ["it printed nothing"])[-1]


def _series(label: str, average_ns: float, node: str = "") -> Series:
    return Series(label, np.array([round(average_ns)], dtype=np.int64), node)


def _statistics(count: str, rest: str) -> RunStatistics | None:
    """The statistics in `count=50 first=.. avg=..`, or `count=1 curr=..`; None of no runs."""
    n_runs = int(count)
    values = {name: float(value) * _NS_PER_US for name, value in _PAIR.findall(rest)}
    average_ns = values.get("avg", values.get("curr"))
    if not n_runs or average_ns is None:
        return None
    return RunStatistics(n_runs, average_ns, values.get("first", average_ns), values.get("median"))


def _table(text: str, title: str) -> list[str]:
    """The lines between the first heading with a title and the next heading or blank line."""
    _, found, rest = text.partition(f" {title} =")
    lines = rest.splitlines()[1:] if found else []
    for number, line in enumerate(lines):
        if not line.strip() or line.lstrip().startswith("==="):
            return lines[:number]
    return lines


def _nodes(lines: list[str], runs: RunStatistics | None) -> list[NodeTime]:
    found = []
    for line in lines:
        row = _ROW.match(line)
        if row is None:
            continue
        name, calls = row["name"], int(row["calls"])
        tensor = ""
        if name.startswith("[") and "]" in name:
            tensor = name[1 : name.rindex("]")].split(", ")[0]
        elif not calls:
            continue  # housekeeping that not every run does
        average_ns = _finer(
            float(row["ms"]) * _NS_PER_MS * max(1, calls), row["share"], calls, runs
        )
        found.append(NodeTime(row["type"], name, tensor, average_ns))
    return found


def _finer(printed_ns: float, share: str, calls: int, runs: RunStatistics | None) -> float:
    """A node's time from its share of the total, where that is the finer of both figures.

    Of a network of 1 ms the share resolves 10 ns, the printed time 1 µs.
    """
    try:
        share_of_one = float(share) / 100
    except ValueError:
        return printed_ns
    if runs is None:
        return printed_ns
    finer_ns, half_ns = share_of_one * runs.average_ns, _SHARE_HALF * runs.average_ns
    agrees = abs(finer_ns - printed_ns) <= _PRINTED_HALF_NS * max(1, calls) + 2 * half_ns
    return finer_ns if agrees and half_ns < _PRINTED_HALF_NS else printed_ns


def _kinds(lines: list[str]) -> list[KindTime]:
    rows = [row for line in lines if (row := _TYPE_ROW.match(line))]
    return [KindTime(row["type"], int(row["count"]), float(row["ms"]) * _NS_PER_MS) for row in rows]
