"""A lookup table as grids of cells. Pure: no web framework, no store."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from latlas_latency.table import LookupTable
from latlas_ops.opspec import OpSpec
from latlas_ops.space import INACTIVE, SearchSpace

LATENCY = "latency"
"""What a column holds where an op has nothing to choose."""


@dataclass(frozen=True)
class Cell:
    """One op.

    Attributes:
        op: the op in words.
        latency_ms: its calibrated latency; None where the table has no entry.
        heat: 0 for the fastest op of the map, 1 for the slowest, evenly in the logarithm.
    """

    op: str
    latency_ms: float | None
    heat: float = 0.0


@dataclass(frozen=True)
class Grid:
    """Ops that are chosen in the same way.

    Attributes:
        title: what the rows have in common.
        axes: name of each choice that the columns differ in; empty if there is none.
        columns: per column one choice per axis.
        rows: label and cells; None where no op can stand.
    """

    title: str
    axes: tuple[str, ...]
    columns: tuple[tuple[str, ...], ...]
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]


@dataclass(frozen=True)
class HeatMap:
    """A lookup table as grids.

    Attributes:
        grids: the grids.
        fastest_ms, slowest_ms: range of the colours; None if there is no figure at all.
        n_missing: cells whose op has no entry.
        held: choices that are not shown but held at their largest, in words; empty if none.
    """

    grids: tuple[Grid, ...]
    fastest_ms: float | None
    slowest_ms: float | None
    n_missing: int
    held: str = ""


def space_map(table: LookupTable, space: SearchSpace, resolution: int | float | None) -> HeatMap:
    """Slots of a space against the choices that belong to each slot, at one resolution.

    A choice belongs to a slot if its gene's name starts with the slot's. Choices made elsewhere
    (depth, width) are held at their largest.

    Args:
        table: the table.
        space: the space that it was built for.
        resolution: one of the choices of the space's resolution gene; None if it has none.

    Raises:
        SpaceMismatchError: the table belongs to another space.
    """
    if table.space is not None:
        table.space.require(space, f"the table of target {table.target.name!r}")
    held: dict[str, None] = {}
    grids: dict[tuple[tuple[str, ...], tuple[tuple[str, ...], ...]], list[_Row]] = {}
    for slot, indices in zip(space.slots, space.slot_entries.tables, strict=True):
        own = [gene for gene in slot.genes if space.genes[gene].name.startswith(f"{slot.name}.")]
        fixed = {
            gene: _fixed_choice(space, gene, resolution) for gene in slot.genes if gene not in own
        }
        held.update((_leaf(space, gene), None) for gene in fixed if gene != space.resolution_gene)
        axes = tuple(_leaf(space, gene) for gene in own)
        choices = [range(len(space.genes[gene].choices)) for gene in own]
        columns, cells = [], []
        for combination in itertools.product(*choices):
            picked = fixed | dict(zip(own, combination, strict=True))
            index = int(indices[tuple(picked[gene] for gene in slot.genes)])
            columns.append(
                tuple(
                    f"{space.genes[gene].choices[choice]:g}"
                    for gene, choice in zip(own, combination, strict=True)
                )
            )
            cells.append(None if index == INACTIVE else _cell(table, space.slot_entries.ops[index]))
        grids.setdefault((axes, tuple(columns)), []).append((slot.name, tuple(cells)))
    return _finished(
        (
            Grid(" × ".join(axes) or "ops without a choice", axes, columns, tuple(rows))
            for (axes, columns), rows in sorted(grids.items(), key=lambda one: -len(one[0][1]))
        ),
        ", ".join(held),
    )


def kind_map(table: LookupTable) -> HeatMap:
    """Every entry of a table, grouped by kind of op, slowest first."""
    by_kind: dict[str, list[Cell]] = {}
    for entry in table.entries:
        by_kind.setdefault(entry.op.kind, []).append(_cell(table, entry.op))
    grids = []
    for kind, cells in by_kind.items():
        cells.sort(key=lambda cell: -(cell.latency_ms or 0.0))
        rows = tuple((cell.op, (cell,)) for cell in cells)
        grids.append(Grid(kind, (), ((),), rows))
    return _finished(grids, "")


_Row = tuple[str, tuple[Cell | None, ...]]


def _leaf(space: SearchSpace, gene: int) -> str:
    return space.genes[gene].name.rpartition(".")[2]


def _fixed_choice(space: SearchSpace, gene: int, resolution: int | float | None) -> int:
    choices = space.genes[gene].choices
    if gene == space.resolution_gene and resolution in choices:
        return choices.index(resolution)
    return len(choices) - 1


def _cell(table: LookupTable, op: OpSpec) -> Cell:
    entry = table.by_op.get(op)
    if entry is None:
        return Cell(str(op), None)
    slope = 1.0 if table.calibration is None else table.calibration.fit.slope
    return Cell(str(op), slope * entry.mean_ms)


def _finished(grids: Iterable[Grid], held: str) -> HeatMap:
    """The map of some grids, with the heat of every cell filled in."""
    grids = tuple(grids)
    cells = [cell for grid in grids for _, row in grid.rows for cell in row if cell is not None]
    known = [cell.latency_ms for cell in cells if cell.latency_ms is not None]
    fastest_ms, slowest_ms = min(known, default=None), max(known, default=None)
    coloured = tuple(
        Grid(
            grid.title,
            grid.axes,
            grid.columns,
            tuple(
                (label, tuple(_heated(cell, fastest_ms, slowest_ms) for cell in row))
                for label, row in grid.rows
            ),
        )
        for grid in grids
    )
    return HeatMap(coloured, fastest_ms, slowest_ms, len(cells) - len(known), held)


def _heated(cell: Cell | None, fastest_ms: float | None, slowest_ms: float | None) -> Cell | None:
    if cell is None or cell.latency_ms is None or fastest_ms is None or slowest_ms is None:
        return cell
    span = math.log(slowest_ms / fastest_ms)
    heat = math.log(cell.latency_ms / fastest_ms) / span if span > 0 else 0.0
    return Cell(cell.op, cell.latency_ms, heat)
