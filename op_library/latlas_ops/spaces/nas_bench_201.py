"""NAS-Bench-201 (Dong & Yang, ICLR 2020): one cell of four nodes, fifteen times in a network.

Every pair of nodes is joined by an edge that holds one of five operations; a node is the sum of
what its edges bring. What a deployed network runs of this is decided once, by `wire_cell`:

- An edge `none` is not there, and neither is anything that reaches the cell's output through
  `none` alone, or that nothing reaches from its input.
- `skip_connect` hands a tensor on and runs nothing.
- A value is computed once: edges that pool the same tensor share one pooling, those that convolve
  it share its rectified copy, and equal sums are one sum. (onnxruntime merges them anyway.)
- A convolution is one op with what runtimes fuse with it: the sum that its output enters, and the
  rectification of its output where nobody reads it otherwise.
- A cell whose output nothing reaches from its input yields zeros: one op `zero` in the first cell
  of a stage, after which there is nothing left to do. Such a network is a constant. It counts as
  an architecture because the benchmark counts it, and takes about what one of skips takes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import cache, cached_property, lru_cache

import numpy as np

from latlas_ops.errors import InvalidInputError
from latlas_ops.network import NETWORK_INPUT
from latlas_ops.opspec import OpSpec
from latlas_ops.space import INACTIVE, ArchBatch, ArchConfig, Gene, SearchSpace, Slot, SlotEntries
from latlas_ops.spaces._nas_bench_cell import (
    CELL_INPUT,
    CELL_SLOTS,
    CONV_3X3,
    EDGES,
    LAST,
    NONE,
    OPERATIONS,
    SKIP,
    Cell,
    at_place,
    live_edges,
    run_alone,
    wire_cell,
)

__all__ = ["EDGES", "OPERATIONS", "NasBench201Space"]

_STAGE_CHANNELS = (16, 32, 64)
_N_CELLS = 5
_POSITIONS = (0, 1, _N_CELLS - 1)
"""Cells of a stage that are wired differently: the first, those between, the last."""

_IN_CHANNELS, _SIDE, _CLASSES = 3, 32, 10

_PATTERN = re.compile(r"\|([^|]+)\|\+\|([^|]+)\|([^|]+)\|\+\|([^|]+)\|([^|]+)\|([^|]+)\|")


def _position(cell: int) -> int:
    """The cell among `_POSITIONS` that is wired like this one."""
    return cell if cell in _POSITIONS else 1


@lru_cache(maxsize=4096)
def _wire(genes: tuple[int, ...], cell: int) -> Cell:
    """What is run of the cell with this index in its stage."""
    return wire_cell(genes, first=cell == 0, last=cell == _N_CELLS - 1)


@cache
def _op(what: str, stage: int) -> OpSpec:
    """The op of a step in a stage."""
    channels, side = _STAGE_CHANNELS[stage], _SIDE >> stage
    shape = (channels, side, side)
    if what == "zero":
        return OpSpec.of("zero", shape)
    if what == "pool":
        return OpSpec.of("pool", shape, mode="avg", kernel=3)
    if what == "relu":
        return OpSpec.of("activation", shape, activation="relu")
    if what == "add":
        return OpSpec.of("add", shape, shape)
    kernel = int(what[len("conv")])
    activation = "relu" if what.endswith("_relu") else "none"
    kind, inputs = ("conv_add", (shape, shape)) if "_add" in what else ("conv", (shape,))
    return OpSpec.of(kind, *inputs, out_channels=channels, kernel=kernel, activation=activation)


class NasBench201Space(SearchSpace):
    """The 15,625 networks of NAS-Bench-201 on CIFAR-10: images of 32 pixels, ten classes.

    A stem, three stages of five equal cells with 16, 32 and 64 channels, a residual block that
    halves the image before the second and the third, and a classifier. One gene per edge. The op
    in a place of a cell depends on all six, so that every table of `slot_entries` has 15,625
    elements; cells of one stage, but for the first and the last, share theirs.
    """

    name, version = "nas-bench-201", 1

    def __init__(self) -> None:
        self.genes = tuple(Gene.named(f"edge{start}-{end}.op", OPERATIONS) for start, end in EDGES)
        every = tuple(range(len(EDGES)))
        slots = [Slot("stem", ())]
        self._cells: dict[int, tuple[int, int, int]] = {}  # slot → stage, cell, place in it
        for stage in range(len(_STAGE_CHANNELS)):
            if stage:
                slots.append(Slot(f"reduction{stage}", ()))
            for cell, (place, name) in itertools.product(range(_N_CELLS), enumerate(CELL_SLOTS)):
                self._cells[len(slots)] = (stage, cell, place)
                slots.append(Slot(f"stage{stage}.cell{cell}.{name}", every))
        self.slots = (*slots, Slot("classifier", ()))

    @property
    def resolution_gene(self) -> None:
        """All images have 32 pixels."""
        return

    def slot_op(self, slot: int, choices: Sequence[int]) -> OpSpec | None:
        """See `SearchSpace.slot_op`."""
        if slot in self._cells:
            stage, cell, place = self._cells[slot]
            step = _wire(tuple(choices), cell).steps.get(place)
            return None if step is None else _op(step.what, stage)
        return self._fixed_op(slot)

    def _fixed_op(self, slot: int) -> OpSpec:
        """The op of a slot outside of the cells."""
        if slot == 0:
            return OpSpec.of(
                "conv", (_IN_CHANNELS, _SIDE, _SIDE), out_channels=_STAGE_CHANNELS[0], kernel=3
            )
        if slot == len(self.slots) - 1:
            side = _SIDE >> (len(_STAGE_CHANNELS) - 1)
            return OpSpec.of(
                "classifier",
                (_STAGE_CHANNELS[-1], side, side),
                classes=_CLASSES,
                norm=True,
                activation="relu",
            )
        stage, _, _ = self._cells[slot - 1]
        side = _SIDE >> stage
        return OpSpec.of(
            "reduction_block",
            (_STAGE_CHANNELS[stage], side, side),
            out_channels=_STAGE_CHANNELS[stage + 1],
        )

    def slot_sources(self, slot: int, genes: Sequence[int]) -> Sequence[int]:
        """See `SearchSpace.slot_sources`."""
        if slot not in self._cells:
            return (self._output_before(slot, genes),)
        _, cell, place = self._cells[slot]
        step = _wire(tuple(genes), cell).steps.get(place)
        if step is None:
            return ()
        start = slot - place
        return tuple(
            self._output_before(start, genes) if source == CELL_INPUT else start + source
            for source in step.sources
        )

    def _output_before(self, slot: int, genes: Sequence[int]) -> int:
        """The slot whose output the part of the network before `slot` yields.

        `slot` is outside of the cells, or the first of a cell.
        """
        if slot - 1 not in self._cells:
            return slot - 1 if slot else NETWORK_INPUT
        start = slot - len(CELL_SLOTS)
        output = _wire(tuple(genes), self._cells[start][1]).output
        return self._output_before(start, genes) if output == CELL_INPUT else start + output

    @cached_property
    def slot_entries(self) -> SlotEntries:
        """See `SearchSpace.slot_entries`; a cell is wired once per set of edges that are run."""
        alike: dict[tuple[tuple[tuple[int, int], int], ...], int] = {}
        shape = tuple(map(int, self.sizes))
        which = [
            alike.setdefault(tuple(live_edges(genes).items()), len(alike))
            for genes in np.ndindex(*shape)
        ]
        names: dict[str, int] = {}
        distinct = np.full((len(_POSITIONS), len(CELL_SLOTS), len(alike)), INACTIVE, np.int32)
        for edges, index in alike.items():
            alone = run_alone(dict(edges))
            for position, cell in enumerate(_POSITIONS):
                placed = at_place(alone, first=cell == 0, last=cell == _N_CELLS - 1)
                for place, step in placed.steps.items():
                    distinct[position, place, index] = names.setdefault(step.what, len(names))
        wired = distinct[..., which].reshape(*distinct.shape[:2], *shape)
        index_of: dict[OpSpec, int] = {}
        staged = []
        for stage in range(len(_STAGE_CHANNELS)):
            indices = [index_of.setdefault(_op(what, stage), len(index_of)) for what in names]
            staged.append(np.array([*indices, INACTIVE], dtype=np.int32)[wired])  # -1: the last
        tables = []
        for slot in range(len(self.slots)):
            if slot in self._cells:
                stage, cell, place = self._cells[slot]
                tables.append(staged[stage][_POSITIONS.index(_position(cell)), place])
            else:
                index = index_of.setdefault(self._fixed_op(slot), len(index_of))
                tables.append(np.array(index, dtype=np.int32))
        return SlotEntries(tuple(index_of), tuple(tables))

    def extremes(self) -> ArchBatch:
        """The smallest network that depends on its input, a skip in every cell, and the largest."""
        smallest = [SKIP if edge == (0, LAST) else NONE for edge in EDGES]
        return ArchBatch(self, self.canonical(np.array([smallest, [CONV_3X3] * len(EDGES)])))

    # -- the benchmark's own notation ------------------------------------------------------

    def describe(self, arch: ArchConfig) -> str:
        """The string by which the benchmark knows an architecture.

        For example `|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|none~2|`.

        Raises:
            InvalidInputError: wrong number of genes, or a choice index out of range.
            SpaceMismatchError: the architecture belongs to another space or version.
        """
        (arch,) = self.archs(self.batch([arch]))
        named = [
            (end, f"{OPERATIONS[gene]}~{start}")
            for (start, end), gene in zip(EDGES, arch.genes, strict=True)
        ]
        return "+".join(
            "|" + "|".join(text for end, text in named if end == node) + "|"
            for node in range(1, LAST + 1)
        )

    def arch_from_string(self, text: str) -> ArchConfig:
        """The architecture that the benchmark knows by a string; the inverse of `describe`.

        Raises:
            InvalidInputError: `text` is not such a string.
        """
        match = _PATTERN.fullmatch(text.strip())
        if match is None:
            raise InvalidInputError(
                f"not an architecture of NAS-Bench-201: {text!r:.200}; expected "
                "|OP~0|+|OP~0|OP~1|+|OP~0|OP~1|OP~2|"
            )
        genes = []
        for (start, _), edge in zip(EDGES, match.groups(), strict=True):
            operation, _, source = edge.partition("~")
            if operation not in OPERATIONS or source != str(start):
                raise InvalidInputError(
                    f"not an edge from node {start}: {edge!r:.80}; expected OP~{start} with OP one "
                    f"of {', '.join(OPERATIONS)}"
                )
            genes.append(OPERATIONS.index(operation))
        return ArchConfig(self.name, self.version, tuple(genes))
