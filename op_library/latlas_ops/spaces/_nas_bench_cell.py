"""The cell of NAS-Bench-201: what a runtime runs of it. See `latlas_ops.spaces.nas_bench_201`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

OPERATIONS = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
"""What an edge may hold, from small to large; a gene is an index into it."""

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Edges `(from, to)` in the order of the genes and of the benchmark's string."""

CELL_INPUT = -1
"""The index by which a step refers to the input of its cell."""

NONE, SKIP, POOL, CONV_1X1, CONV_3X3 = range(len(OPERATIONS))
LAST = 3

CELL_SLOTS = (
    "zero",
    *("pool0", "relu0", "conv0-1"),
    *("pool1", "relu1", "add2", "conv0-2", "conv1-2"),
    *("pool2", "relu2", "add3", "add3-more", "conv0-3", "conv1-3", "conv2-3"),
)
"""Places for ops in a cell, in an order in which each can be computed after those before it."""
PLACE = {name: index for index, name in enumerate(CELL_SLOTS)}
_ADDS = {2: ("add2",), 3: ("add3", "add3-more")}


@dataclass(frozen=True)
class Step:
    """One op of a cell.

    Attributes:
        what: `zero`, `pool`, `relu`, `add`, or a convolution: `conv1` or `conv3`, then `_add` where
            it is added to its second source, then `_relu` where the result is rectified.
        sources: places in the cell that it reads from, or `CELL_INPUT`, one per input.
    """

    what: str
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Cell:
    """What a runtime runs of a cell.

    Attributes:
        steps: by place in the cell; places that are not among them are empty.
        output: the place whose output is that of the cell; `CELL_INPUT` hands the input on.
    """

    steps: dict[int, Step]
    output: int


def wire_cell(genes: Sequence[int], *, first: bool, last: bool) -> Cell:
    """What is run of a cell, pruned, fused and with every value computed once.

    Args:
        genes: index into `OPERATIONS` per edge.
        first: whether no equal cell stands before it, which may rectify its output for this one.
        last: whether no equal cell stands after it.
    """
    return at_place(run_alone(live_edges(genes)), first=first, last=last)


def run_alone(edges: Mapping[tuple[int, int], int]) -> Cell | None:
    """What is run of a cell by itself, given `live_edges`; None without a path."""
    return _fused(_shared(edges)) if edges else None


def at_place(alone: Cell | None, *, first: bool, last: bool) -> Cell:
    """What is run of a cell among equal ones, given `run_alone`; see `wire_cell`."""
    if alone is not None:
        return _joined(alone, first, last)
    if first:
        return Cell({PLACE["zero"]: Step("zero", (CELL_INPUT,))}, PLACE["zero"])
    return Cell({}, CELL_INPUT)  # zeros in, zeros out


def _shared(edges: Mapping[tuple[int, int], int]) -> Cell:
    """The steps of a cell with every value computed once."""
    steps: dict[int, Step] = {}
    places: dict[Step, int] = {}

    def shared(name: str, what: str, *sources: int) -> int:
        step = Step(what, tuple(sorted(sources)))
        if step not in places:
            places[step] = PLACE[name]
            steps[PLACE[name]] = step
        return places[step]

    values = {0: CELL_INPUT}
    for node in range(1, LAST + 1):
        incoming = [(start, gene) for (start, end), gene in edges.items() if end == node]
        terms = [
            values[start] if gene == SKIP else shared(f"pool{start}", "pool", values[start])
            for start, gene in incoming
            if gene in (SKIP, POOL)
        ]
        total = terms[0] if terms else None
        for name, term in zip(_ADDS.get(node, ()), terms[1:], strict=False):
            assert total is not None
            total = shared(name, "add", total, term)
        for start, gene in incoming:
            if gene not in (CONV_1X1, CONV_3X3):
                continue
            what = "conv1" if gene == CONV_1X1 else "conv3"
            rectified = shared(f"relu{start}", "relu", values[start])
            place = PLACE[f"conv{start}-{node}"]
            if total is None:
                steps[place] = Step(what, (rectified,))
            else:
                steps[place] = Step(f"{what}_add", (rectified, total))
            total = place
        if total is not None:
            values[node] = total
    return Cell(steps, values[LAST])


def _fused(cell: Cell) -> Cell:
    """The cell with rectifications joined to the convolutions that they follow."""
    steps = dict(cell.steps)
    for place, step in cell.steps.items():
        if step.what.startswith("conv"):
            reader = _only_reader(steps, place)
            if reader is not None and place != cell.output:
                steps[place] = Step(f"{steps[place].what}_relu", steps[place].sources)
                _take_over(steps, place, reader)
    return Cell(steps, cell.output)


def _joined(cell: Cell, first: bool, last: bool) -> Cell:
    """The cell among equal ones: each reads what one yields, which may rectify it for the next."""
    output, reader = cell.steps.get(cell.output), _only_reader(cell.steps, CELL_INPUT)
    if output is None or reader is None or not output.what.startswith("conv"):
        return cell
    steps = dict(cell.steps)
    if not first:
        _take_over(steps, CELL_INPUT, reader)
    if not last:
        output = steps[cell.output]
        steps[cell.output] = Step(f"{output.what}_relu", output.sources)
    return Cell(steps, cell.output)


def _only_reader(steps: Mapping[int, Step], place: int) -> int | None:
    """The place of the rectification that alone reads a place; None if there is none such."""
    readers = [reader for reader, step in steps.items() if place in step.sources]
    return readers[0] if len(readers) == 1 and steps[readers[0]].what == "relu" else None


def _take_over(steps: dict[int, Step], place: int, reader: int) -> None:
    """Leaves out a rectification: who read it reads what it read."""
    del steps[reader]
    for other, step in steps.items():
        if reader in step.sources:
            sources = tuple(place if source == reader else source for source in step.sources)
            steps[other] = Step(step.what, sources)


def live_edges(genes: Sequence[int]) -> dict[tuple[int, int], int]:
    """Edges on a path from the cell's input to its output, with their operations."""
    live = _live(tuple(gene != NONE for gene in genes))
    return {EDGES[index]: genes[index] for index in live}


@cache
def _live(present: tuple[bool, ...]) -> tuple[int, ...]:
    """Indices into `EDGES` of those on a path, by whether each edge is there."""
    there = {edge for edge, is_there in zip(EDGES, present, strict=True) if is_there}
    reached, needed = {0}, {LAST}
    for start, end in EDGES:  # by rising end
        if (start, end) in there and start in reached:
            reached.add(end)
    for start, end in reversed(EDGES):
        if (start, end) in there and end in needed:
            needed.add(start)
    return tuple(
        index
        for index, (start, end) in enumerate(EDGES)
        if (start, end) in there and start in reached and end in needed
    )
