"""What the visits of one program tell beyond its latency: tails, first run, memory, nodes."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas_latency.measurement import Opening, Visit

PERCENTILES = (50.0, 95.0, 99.0)

Kernel = tuple[str, str]
"""What a runtime computed in one node: its type there, and the shapes of inputs and outputs."""


@dataclass(frozen=True)
class NodeTime:
    """One node of the runtime's own graph.

    Attributes:
        node: the runtime's type and name of the node.
        place: what computed it, for example an execution provider; empty where that is not said.
        median_ns: median over visits of the median over their inferences.
        share: of all nodes' time, 0 to 1.
        shapes: of its inputs and outputs, as in `Series`; empty where the runtime does not tell.
    """

    node: str
    place: str
    median_ns: float
    share: float
    shapes: str = ""

    @property
    def kernel(self) -> Kernel:
        """What was computed, whatever the node is called."""
        return kernel_of(self.node, self.shapes)


@dataclass(frozen=True)
class VisitTail:
    """One visit.

    Attributes:
        round: its round.
        device_id: the board.
        n_runs: its samples: inferences, or one where a runtime only tells what stands for many.
        p50_ns, p95_ns, p99_ns: percentiles over its samples.
        left_out: whether it was disturbed, so that figures pass over it.
    """

    round: int
    device_id: str
    n_runs: int
    p50_ns: float
    p95_ns: float
    p99_ns: float
    left_out: bool = False


@dataclass(frozen=True)
class ProgramDetails:
    """One program on one target.

    Attributes:
        label: what listings call the program.
        p50_ns, p95_ns, p99_ns: percentiles over single inferences; NaN without any. Of a runtime
            that tells one figure for each visit, the last two are NaN: medians have no tail.
        n_runs: samples that they were taken from.
        visits: the same of every visit, those left out included, in order of round.
        opening: what it took to get the program going, at the first visit that tells what it
            computes, or the first at all; None where no visit tells.
        nodes: its nodes in order of execution; empty where they were not timed.
        profiled_ns: median inference while nodes were timed, which slows it; NaN without.
        table: the target's table that has measured most of these nodes; empty without one.
        covered: share of the nodes' time that is spent in kernels which were timed for that table
            too, of the same type and shapes; None without a table, or where shapes are unknown.
    """

    label: str
    p50_ns: float
    p95_ns: float
    p99_ns: float
    n_runs: int
    visits: tuple[VisitTail, ...] = ()
    opening: Opening | None = None
    nodes: tuple[NodeTime, ...] = ()
    profiled_ns: float = float("nan")
    table: str = ""
    covered: float | None = None

    def with_coverage(self, kernels: Mapping[str, Collection[Kernel]]) -> ProgramDetails:
        """These details with how much of the program the tables of its target know.

        Args:
            kernels: by name of a table, the kernels that were timed for it.
        """
        if not any(node.shapes for node in self.nodes):
            return self
        shares = {
            table: sum(node.share for node in self.nodes if node.kernel in known)
            for table, known in kernels.items()
            if known
        }
        if not shares:
            return self
        table = max(shares, key=lambda name: shares[name])
        return dataclasses.replace(self, table=table, covered=shares[table])


def kernel_of(node: str, shapes: str) -> Kernel:
    """Type and shapes of a node, from the name and the shapes that a runtime tells of it."""
    return node.partition(" ")[0], shapes


def kernels_of(visits: Iterable[Visit]) -> frozenset[Kernel]:
    """The kernels that visits timed, as far as their shapes are known."""
    return frozenset(
        kernel_of(series.node, series.shapes)
        for visit in visits
        for series in visit.nodes
        if series.shapes
    )


def program_details(
    label: str,
    plain: Sequence[Visit],
    profiled: Sequence[Visit] = (),
    left_out: Sequence[Visit] = (),
) -> ProgramDetails:
    """The details of a program.

    Args:
        label: what listings call it.
        plain: its visits without node times; percentiles are taken over all of their inferences
            together, as somebody sees them who runs the program for long.
        profiled: its visits with node times.
        left_out: further visits without node times, which were disturbed.
    """
    samples_ns = np.concatenate([visit.network_ns for visit in plain]) if plain else np.empty(0)
    p50_ns, p95_ns, p99_ns = _percentiles(samples_ns) if plain else [float("nan")] * 3
    if all(len(visit.network_ns) == 1 for visit in plain):
        p95_ns = p99_ns = float("nan")
    tails = [_tail(visit, left_out=False) for visit in plain]
    tails += [_tail(visit, left_out=True) for visit in left_out]
    opened = [visit for visit in (*plain, *left_out) if visit.opening is not None]
    return ProgramDetails(
        label=label,
        p50_ns=p50_ns,
        p95_ns=p95_ns,
        p99_ns=p99_ns,
        n_runs=len(samples_ns),
        visits=tuple(sorted(tails, key=lambda tail: tail.round)),
        opening=min(opened, key=_when_told).opening if opened else None,
        nodes=_nodes(profiled),
        profiled_ns=_median_ns([visit.network_ns for visit in profiled]),
    )


def _when_told(visit: Visit) -> tuple[bool, int]:
    """Earliest first, those last whose agent does not tell what the program computes."""
    return visit.opening is None or visit.opening.computed is None, visit.started_ns


def _tail(visit: Visit, *, left_out: bool) -> VisitTail:
    p50_ns, p95_ns, p99_ns = _percentiles(visit.network_ns)
    n_runs = len(visit.network_ns)
    return VisitTail(visit.round, visit.device_id, n_runs, p50_ns, p95_ns, p99_ns, left_out)


def _percentiles(samples_ns: NDArray[Any]) -> list[float]:
    found: list[float] = np.percentile(samples_ns, PERCENTILES).tolist()
    return found


def _nodes(visits: Sequence[Visit]) -> tuple[NodeTime, ...]:
    """Nodes by name: a session may name what its optimiser inserted differently from another's.

    Of several nodes of one name, the first of one visit is the first of another.
    """
    found: dict[tuple[str, str, str, int], list[NDArray[np.int64]]] = {}
    for visit in visits:
        seen: Counter[tuple[str, str, str]] = Counter()
        for series in visit.nodes:
            name = (series.node, series.place, series.shapes)
            found.setdefault((*name, seen[name]), []).append(series.samples_ns)
            seen[name] += 1
    medians_ns = {key: _median_ns(samples) for key, samples in found.items()}
    total_ns = sum(medians_ns.values()) or 1.0
    return tuple(
        NodeTime(node, place, median_ns, median_ns / total_ns, shapes)
        for (node, place, shapes, _), median_ns in medians_ns.items()
    )


def _median_ns(samples_ns: Sequence[NDArray[np.int64]]) -> float:
    """Median of medians; NaN without samples."""
    if not samples_ns:
        return float("nan")
    return float(np.median([np.median(samples) for samples in samples_ns]))
