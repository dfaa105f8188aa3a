"""DARTS on CIFAR-10 (Liu, Simonyan & Yang, ICLR 2019): normal and reduction cells of four nodes.

A node is the sum of two edges out of two different nodes before it; the nodes before the first are
the outputs of the two cells before. An edge holds one of seven operations: derived networks have no
`none` (section 2.4), which leaves (1 · 3 · 6 · 10 · 7⁸)² ≈ 10¹⁸ pairs of cells. All four nodes are
concatenated into the cell's output and the first reads both inputs, so that nothing is ever dead.

What a deployed network runs:

- A `skip_connect` that does not reduce hands a tensor on and runs nothing.
- The output of a cell is rectified once for the two cells that read it.
- Edges that pool the same tensor pool it twice, and each convolution rectifies its own input, as in
  the authors' code. onnxruntime merges equal nodes, so that its tables charge such networks a
  little too much; to know what is merged, an op would have to depend on all genes of its cell.

Auxiliary heads and drop path exist in training only.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from latlas_ops.errors import InvalidInputError
from latlas_ops.network import NETWORK_INPUT
from latlas_ops.opspec import OpSpec
from latlas_ops.space import ArchConfig, Gene, SearchSpace, Slot

OPERATIONS = (
    "skip_connect",
    "max_pool_3x3",
    "avg_pool_3x3",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "sep_conv_3x3",
    "sep_conv_5x5",
)
"""What an edge may hold, from small to large; a gene is an index into it."""

CELL_KINDS = ("normal", "reduction")

_N_NODES = 4
_N_INPUTS = 2
_STEM_MULTIPLIER = 3
_IN_CHANNELS, _SIDE, _CLASSES = 3, 32, 10

Genotype = Sequence[tuple[str, int]]
"""Operation and source of each edge, two per node, as the authors' code prints cells."""


@dataclass(frozen=True)
class _Cell:
    """Shapes of one cell.

    Attributes:
        reduces: whether it is a reduction cell.
        channels: channels of each of its nodes.
        side: side of the image that its nodes read from the cell before.
        inputs: shapes of the outputs of the two cells before, the farther one first.
    """

    reduces: bool
    channels: int
    side: int
    inputs: tuple[tuple[int, int, int], tuple[int, int, int]]

    @property
    def kind(self) -> str:
        return CELL_KINDS[self.reduces]

    @property
    def output_side(self) -> int:
        return self.side // 2 if self.reduces else self.side


@dataclass(frozen=True)
class _Place:
    """What stands in a slot: a part of a cell, or of the network where `cell` is -1.

    Attributes:
        part: `stem`, `classifier`, `rectify`, `input`, `edge`, `add` or `concat`.
        cell: index of the cell.
        index: which input or node.
        edge: 0 or 1, which of the node's two edges.
    """

    part: str
    cell: int = -1
    index: int = 0
    edge: int = 0


@cache
def source_pairs(node: int) -> tuple[tuple[int, int], ...]:
    """The pairs of sources that a node may have: 0 and 1 are the cell's inputs, 2 is node 0."""
    return tuple(itertools.combinations(range(node + _N_INPUTS), 2))


class DartsSpace(SearchSpace):
    """A stem, cells of which those at one and two thirds reduce, and a classifier.

    Genes per kind of cell: for every node but the first the pair of its `sources`, and for every
    node the operations of its two edges, `op0` of the lower source and `op1` of the higher.

    Args:
        name: name of the space.
        version: version of the space.
        n_cells: at least 3. The authors search with 8 and evaluate with 20.
        channels: of the nodes of the first cells, even; the authors search with 16 and evaluate
            with 36. Doubled by every reduction cell.

    Raises:
        InvalidInputError: too few cells, or an odd number of channels.
    """

    def __init__(self, *, name: str, version: int, n_cells: int, channels: int) -> None:
        if n_cells < 3:
            raise InvalidInputError(f"space {name!r}: {n_cells} cells, but two of them reduce")
        if channels < 2 or channels % 2:
            raise InvalidInputError(f"space {name!r}: channels={channels} must be even")
        self.name, self.version = name, version
        self.n_cells, self.channels = n_cells, channels
        self._sources: dict[tuple[str, int], int] = {}
        self._operations: dict[tuple[str, int, int], int] = {}
        self.genes = self._lay_out_genes()
        self._cells = self._shape_cells()
        self._places = self._lay_out_places()
        self._slot_of = {place: slot for slot, place in enumerate(self._places)}
        self.slots = tuple(
            Slot(_slot_name(place), self._slot_genes(place)) for place in self._places
        )

    @property
    def resolution_gene(self) -> None:
        """All images have 32 pixels."""
        return

    def _lay_out_genes(self) -> tuple[Gene, ...]:
        genes: list[Gene] = []
        for kind, node in itertools.product(CELL_KINDS, range(_N_NODES)):
            pairs = source_pairs(node)
            if len(pairs) > 1:
                self._sources[kind, node] = len(genes)
                labels = [f"{low}+{high}" for low, high in pairs]
                genes.append(Gene.named(f"{kind}.node{node}.sources", labels))
            for edge in range(2):
                self._operations[kind, node, edge] = len(genes)
                genes.append(Gene.named(f"{kind}.node{node}.op{edge}", OPERATIONS))
        return tuple(genes)

    def _shape_cells(self) -> tuple[_Cell, ...]:
        stem = (_STEM_MULTIPLIER * self.channels, _SIDE, _SIDE)
        inputs, channels, side = (stem, stem), self.channels, _SIDE
        cells = []
        for index in range(self.n_cells):
            reduces = index in (self.n_cells // 3, 2 * self.n_cells // 3)
            channels *= 2 if reduces else 1
            cell = _Cell(reduces, channels, side, inputs)
            side = cell.output_side
            inputs = (inputs[1], (_N_NODES * channels, side, side))
            cells.append(cell)
        return tuple(cells)

    def _lay_out_places(self) -> tuple[_Place, ...]:
        places = [_Place("stem"), _Place("rectify")]
        for cell in range(self.n_cells):
            places += [_Place("input", cell, 0), _Place("input", cell, 1)]
            for node in range(_N_NODES):
                places += [_Place("edge", cell, node, edge) for edge in range(2)]
                places.append(_Place("add", cell, node))
            places.append(_Place("concat", cell))
            if cell < self.n_cells - 1:
                places.append(_Place("rectify", cell))
        return (*places, _Place("classifier"))

    def _slot_genes(self, place: _Place) -> tuple[int, ...]:
        if place.part != "edge":
            return ()
        cell = self._cells[place.cell]
        operation = self._operations[cell.kind, place.index, place.edge]
        sources = self._sources.get((cell.kind, place.index))
        # Whether an edge of a reduction cell halves the image depends on where it comes from.
        return (sources, operation) if cell.reduces and sources is not None else (operation,)

    # -- ops -------------------------------------------------------------------------------

    def slot_op(self, slot: int, choices: Sequence[int]) -> OpSpec | None:
        """See `SearchSpace.slot_op`."""
        place = self._places[slot]
        if place.part == "edge":
            cell = self._cells[place.cell]
            *pair, operation = choices
            source = source_pairs(place.index)[pair[0] if pair else 0][place.edge]
            halves = cell.reduces and source < _N_INPUTS
            side = cell.side if halves else cell.output_side
            return _edge_op(OPERATIONS[operation], cell.channels, side, halves)
        return self._fixed_op(place)

    def _fixed_op(self, place: _Place) -> OpSpec:
        """The op of a slot that no gene changes."""
        if place.part == "stem":
            channels = _STEM_MULTIPLIER * self.channels
            return OpSpec.of("conv", (_IN_CHANNELS, _SIDE, _SIDE), out_channels=channels, kernel=3)
        if place.part == "classifier" or (place.part == "rectify" and place.cell >= 0):
            last = self._cells[place.cell]
            shape = (_N_NODES * last.channels, last.output_side, last.output_side)
            if place.part == "classifier":
                return OpSpec.of("classifier", shape, classes=_CLASSES)
            return OpSpec.of("activation", shape, activation="relu")
        if place.part == "rectify":
            return OpSpec.of("activation", self._cells[0].inputs[1], activation="relu")
        cell = self._cells[place.cell]
        node = (cell.channels, cell.output_side, cell.output_side)
        if place.part == "input":
            shape = cell.inputs[place.index]
            if shape[1] != cell.side:
                return OpSpec.of(
                    "factorized_reduce", shape, out_channels=cell.channels, activation="none"
                )
            return OpSpec.of("conv", shape, out_channels=cell.channels, kernel=1)
        if place.part == "add":
            return OpSpec.of("add", node, node)
        return OpSpec.of("concat", *[node] * _N_NODES)

    def slot_sources(self, slot: int, genes: Sequence[int]) -> Sequence[int]:
        """See `SearchSpace.slot_sources`."""
        place = self._places[slot]
        cell, node = place.cell, place.index
        if place.part == "stem":
            return (NETWORK_INPUT,)
        if place.part == "rectify":
            return (self._slot_of[_Place("concat", cell) if cell >= 0 else _Place("stem")],)
        if place.part == "classifier":
            return (self._slot_of[_Place("concat", self.n_cells - 1)],)
        if place.part == "input":
            return (self._slot_of[_Place("rectify", max(cell - _N_INPUTS + node, -1))],)
        if place.part == "add":
            return tuple(self._slot_of[_Place("edge", cell, node, edge)] for edge in range(2))
        if place.part == "concat":
            return tuple(self._slot_of[_Place("add", cell, each)] for each in range(_N_NODES))
        source = self._pair(self._cells[cell].kind, node, genes)[place.edge]
        if source < _N_INPUTS:
            return (self._slot_of[_Place("input", cell, source)],)
        return (self._slot_of[_Place("add", cell, source - _N_INPUTS)],)

    def _pair(self, kind: str, node: int, genes: Sequence[int]) -> tuple[int, int]:
        """The sources of a node."""
        gene = self._sources.get((kind, node))
        return source_pairs(node)[0 if gene is None else genes[gene]]

    # -- the authors' notation -------------------------------------------------------------

    def genotype(self, arch: ArchConfig) -> dict[str, list[tuple[str, int]]]:
        """The edges of both cells as the authors print them, by kind of cell.

        Raises:
            InvalidInputError: wrong number of genes, or a choice index out of range.
            SpaceMismatchError: the architecture belongs to another space or version.
        """
        (arch,) = self.archs(self.batch([arch]))
        return {
            kind: [
                (OPERATIONS[arch.genes[self._operations[kind, node, edge]]], source)
                for node in range(_N_NODES)
                for edge, source in enumerate(self._pair(kind, node, arch.genes))
            ]
            for kind in CELL_KINDS
        }

    def describe(self, arch: ArchConfig) -> str:
        """An architecture in words: both cells, node by node, `operation~source` per edge."""
        lines = []
        for kind, edges in self.genotype(arch).items():
            named = [f"{operation}~{source}" for operation, source in edges]
            nodes = map("+".join, zip(named[::2], named[1::2], strict=True))
            lines.append(f"{kind} {' | '.join(nodes)}")
        return ", ".join(lines)

    def arch_from_genotype(self, normal: Genotype, reduction: Genotype) -> ArchConfig:
        """The architecture of two cells as the authors print them, two edges per node.

        Raises:
            InvalidInputError: not eight edges, an unknown operation, or sources that are equal or
                not before the node.
        """
        genes = [0] * len(self.genes)
        for kind, edges in zip(CELL_KINDS, (normal, reduction), strict=True):
            if len(edges) != 2 * _N_NODES:
                raise InvalidInputError(f"a {kind} cell has {2 * _N_NODES} edges, not {len(edges)}")
            for node in range(_N_NODES):
                pair = sorted(edges[2 * node : 2 * node + 2], key=lambda edge: edge[1])
                sources = (pair[0][1], pair[1][1])
                if sources not in source_pairs(node):
                    raise InvalidInputError(
                        f"{kind} cell: node {node} cannot read {sources[0]} and {sources[1]}; it "
                        f"reads two different nodes of 0 to {node + 1}"
                    )
                if (kind, node) in self._sources:
                    genes[self._sources[kind, node]] = source_pairs(node).index(sources)
                for edge, (operation, _) in enumerate(pair):
                    if operation not in OPERATIONS:
                        raise InvalidInputError(
                            f"{kind} cell: {operation!r} is not one of {', '.join(OPERATIONS)}"
                        )
                    genes[self._operations[kind, node, edge]] = OPERATIONS.index(operation)
        return ArchConfig(self.name, self.version, tuple(genes))


@cache
def _edge_op(operation: str, channels: int, side: int, halves: bool) -> OpSpec | None:
    """The op of an edge, None where it hands its input on."""
    shape, stride = (channels, side, side), 2 if halves else 1
    if operation == "skip_connect":
        return OpSpec.of("factorized_reduce", shape, out_channels=channels) if halves else None
    kind, _, size = operation.rpartition("_")
    kernel = int(size[0])
    if kind in ("max_pool", "avg_pool"):
        return OpSpec.of("pool", shape, mode=kind[:3], kernel=kernel, stride=stride)
    return OpSpec.of(kind, shape, out_channels=channels, kernel=kernel, stride=stride)


def _slot_name(place: _Place) -> str:
    part = {
        "input": f"input{place.index}",
        "edge": f"node{place.index}.edge{place.edge}",
        "add": f"node{place.index}",
    }.get(place.part, place.part)
    return part if place.cell < 0 else f"cell{place.cell}.{part}"
