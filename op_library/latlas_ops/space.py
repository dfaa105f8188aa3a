"""Search spaces: genes, architectures as integers, and one op iterator for everything.

A space is a list of *genes* (what may be chosen) and a list of *slots* (where an op may stand).
The op in a slot depends on a few genes only, so a whole space is described by one small array per
slot. Latency tables, costs, model writers and predictors all read the same slots.
"""

from __future__ import annotations

import json
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from latlas_ops.counting import SpaceCount, count_archs
from latlas_ops.errors import InvalidInputError, SpaceMismatchError
from latlas_ops.network import NETWORK_INPUT, Network
from latlas_ops.opspec import OpSpec

INACTIVE = -1
"""The integer of a gene that has no effect, for example the kernel of a layer that is not there."""


@dataclass(frozen=True)
class Gene:
    """One choice.

    Attributes:
        name: for example `stage2.layer3.kernel`.
        choices: the values, at most 127; an architecture stores the index of one of them.
        parent: index of the gene that decides whether this one matters, or None. A parent
            stands before its children.
        least_parent_choice: this gene matters when the parent's choice index is at least this.
        labels: what the choices are called where a number does not say it, such as names of
            operations; empty, or one per choice.
    """

    name: str
    choices: tuple[int | float, ...]
    parent: int | None = None
    least_parent_choice: int = 0
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= len(self.choices) <= np.iinfo(np.int8).max:
            raise InvalidInputError(f"gene {self.name}: {len(self.choices)} choices, not 1 to 127")
        if self.labels and len(self.labels) != len(self.choices):
            raise InvalidInputError(
                f"gene {self.name}: {len(self.labels)} labels for {len(self.choices)} choices"
            )

    @classmethod
    def named(cls, name: str, labels: Sequence[str]) -> Gene:
        """A gene whose choices are names; their values are 0, 1, 2 and so on."""
        return cls(name, tuple(range(len(labels))), labels=tuple(labels))

    def label(self, choice: int) -> str:
        """What the choice of an index is called."""
        return self.labels[choice] if self.labels else f"{self.choices[choice]:g}"

    @property
    def family(self) -> str:
        """What kind of choice it is: `stage0.layer1.kernel` is of the family `kernel`."""
        return self.name.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Slot:
    """A place in the network. Its op is a function of the choices of `genes` alone."""

    name: str
    genes: tuple[int, ...]


@dataclass(frozen=True)
class ArchConfig:
    """One architecture of a search space. Immutable, canonical, hashable.

    Attributes:
        space: name of the space.
        version: version of the space.
        genes: choice index per gene, `INACTIVE` where the gene has no effect.
    """

    space: str
    version: int
    genes: tuple[int, ...]

    def to_json(self) -> str:
        """Compact JSON that `SearchSpace.arch_from_json` reads."""
        return json.dumps(
            {"genes": list(self.genes), "space": self.space, "version": self.version},
            separators=(",", ":"),
        )


@dataclass(frozen=True, eq=False)
class ArchBatch:
    """Many architectures of one space: `genes` is `(n_archs, n_genes)` int8, canonical."""

    space: SearchSpace
    genes: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.genes)


@dataclass(frozen=True, eq=False)
class SlotEntries:
    """The distinct ops of a space and where they may stand.

    Attributes:
        ops: the distinct ops, `n_entries` of them.
        tables: per slot an int32 array with one axis per gene of the slot: index into `ops`,
            `INACTIVE` where the slot is empty.
    """

    ops: tuple[OpSpec, ...]
    tables: tuple[NDArray[np.int32], ...]


class SearchSpace(ABC):
    """A space of networks. Subclasses give `name`, `version`, `genes`, `slots` and `slot_op`.

    Unless a subclass says otherwise the slots form a chain. One with branches also gives
    `slot_sources`; everything else stays as it is.
    """

    name: str
    version: int
    genes: tuple[Gene, ...]
    slots: tuple[Slot, ...]

    @abstractmethod
    def slot_op(self, slot: int, choices: Sequence[int]) -> OpSpec | None:
        """The op in a slot, or None where the slot is empty.

        Args:
            slot: index into `slots`.
            choices: choice index of each gene in `slots[slot].genes`; genes that are inactive
                because the slot is empty may hold anything.
        """

    def slot_sources(self, slot: int, genes: Sequence[int]) -> Sequence[int]:
        """The slots that a slot reads from, one per input of its op; all stand before it.

        An empty slot hands on what it reads, from a single source; one that reads nothing is
        dead, and nobody reads it.

        Args:
            slot: index into `slots`.
            genes: choice index of every gene of a canonical architecture.

        Returns:
            Indices into `slots`, or `NETWORK_INPUT`. In a chain: the slot before.
        """
        return (slot - 1,) if slot else (NETWORK_INPUT,)

    @property
    @abstractmethod
    def resolution_gene(self) -> int | None:
        """Index of the gene that holds the input resolution, or None."""

    # -- architectures ---------------------------------------------------------------------

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Number of choices per gene, `(n_genes,)`."""
        return np.array([len(gene.choices) for gene in self.genes], dtype=np.int64)

    def canonical(self, genes: NDArray[np.integer]) -> NDArray[np.int8]:
        """`genes` `(n_archs, n_genes)` with genes that have no effect set to `INACTIVE`.

        Raises:
            InvalidInputError: wrong shape, or a choice index out of range for an active gene.
        """
        array = np.asarray(genes)
        if array.ndim != 2 or array.shape[1] != len(self.genes) or array.dtype.kind not in "iu":
            raise InvalidInputError(
                f"space {self.name!r} has {len(self.genes)} genes and needs integers "
                f"(n_archs, {len(self.genes)}), got {array.dtype} {array.shape}"
            )
        columns = array.T.copy()
        result = np.full(columns.shape, INACTIVE, dtype=np.int8)
        for index, gene in enumerate(self.genes):
            if gene.parent is None:
                active = np.ones(len(array), dtype=np.bool_)
            else:
                active = result[gene.parent] >= gene.least_parent_choice
            values = columns[index]
            wrong = active & ((values < 0) | (values >= len(gene.choices)))
            if wrong.any():
                raise self._out_of_range(gene, int(values[wrong][0]))
            np.copyto(result[index], values, where=active, casting="unsafe")
        return np.ascontiguousarray(result.T)

    def sample(self, n_archs: int, rng: np.random.Generator) -> ArchBatch:
        """`n_archs` architectures, every gene uniform, `(n_archs, n_genes)`."""
        raw = rng.integers(0, self.sizes, size=(n_archs, len(self.genes)))
        return ArchBatch(self, self.canonical(raw))

    def extremes(self) -> ArchBatch:
        """The architectures with every first and with every last choice, `(2, n_genes)`."""
        raw = np.stack([np.zeros(len(self.genes), dtype=np.int64), self.sizes - 1])
        return ArchBatch(self, self.canonical(raw))

    def batch(self, archs: Iterable[ArchConfig]) -> ArchBatch:
        """Architectures as one integer array.

        Raises:
            InvalidInputError: wrong number of genes, or a choice index out of range.
            SpaceMismatchError: an architecture belongs to another space or version.
        """
        rows = []
        for arch in archs:
            self._require_own(arch)
            rows.append(arch.genes)
        try:
            array = np.array(rows, dtype=np.int64).reshape(len(rows), len(self.genes))
        except OverflowError as error:
            raise InvalidInputError(f"a choice index is too large: {error}") from error
        return ArchBatch(self, self.canonical(array))

    def archs(self, batch: ArchBatch) -> list[ArchConfig]:
        """The rows of a batch as values."""
        return [ArchConfig(self.name, self.version, tuple(row)) for row in batch.genes.tolist()]

    def arch_from_json(self, text: str) -> ArchConfig:
        """The architecture of `ArchConfig.to_json`, checked against this space.

        Raises:
            InvalidInputError: malformed text or a gene out of range.
            SpaceMismatchError: it belongs to another space or version.
        """
        try:
            record = json.loads(text)
            arch = ArchConfig(
                record["space"],
                operator.index(record["version"]),
                tuple(operator.index(gene) for gene in record["genes"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInputError(
                f"malformed architecture ({error!r}); expected "
                '{"space": NAME, "version": N, "genes": [...]}'
            ) from error
        return self.archs(self.batch([arch]))[0]

    def choice(self, arch: ArchConfig, gene: int) -> int | float | None:
        """The value an architecture has for a gene; None where the gene is inactive."""
        index = arch.genes[gene]
        return None if index == INACTIVE else self.genes[gene].choices[index]

    def describe(self, arch: ArchConfig) -> str:
        """An architecture in words, one family of genes after the other, inactive genes left out.

        For example `resolution 40, depth 1 2 1, kernel 7 3 5 3, expansion 6 4 6 3`.
        """
        families: dict[str, list[str]] = {}
        for index, gene in enumerate(self.genes):
            choice = arch.genes[index]
            if choice != INACTIVE:
                families.setdefault(gene.family, []).append(gene.label(choice))
        return ", ".join(f"{family} {' '.join(values)}" for family, values in families.items())

    # -- networks --------------------------------------------------------------------------

    def ops(self, arch: ArchConfig) -> list[OpSpec]:
        """The ops of an architecture in execution order: the op iterator of the space.

        Raises:
            InvalidInputError: wrong number of genes, or a choice index out of range.
            SpaceMismatchError: the architecture belongs to another space or version.
        """
        (arch,) = self.archs(self.batch([arch]))
        return [op for op in self._slot_ops(arch) if op is not None]

    def network(self, arch: ArchConfig) -> Network:
        """The network of an architecture: its `ops`, wired as `slot_sources` says.

        Raises:
            InvalidInputError: wrong number of genes, or a choice index out of range.
            SpaceMismatchError: the architecture belongs to another space or version.
        """
        (arch,) = self.archs(self.batch([arch]))
        ops: list[OpSpec] = []
        wiring: list[tuple[int, ...]] = []
        positions = {NETWORK_INPUT: NETWORK_INPUT}  # slot → position of the op that it hands on
        for index, op in enumerate(self._slot_ops(arch)):
            sources = tuple(positions[source] for source in self.slot_sources(index, arch.genes))
            if op is not None:
                positions[index] = len(ops)
                ops.append(op)
                wiring.append(sources)
            elif sources:
                (positions[index],) = sources
        return Network(tuple(ops), tuple(wiring))

    def _slot_ops(self, arch: ArchConfig) -> Iterator[OpSpec | None]:
        """The op of every slot, None where it is empty: the one walk over a space."""
        for index, slot in enumerate(self.slots):
            yield self.slot_op(index, [arch.genes[gene] for gene in slot.genes])

    @cached_property
    def slot_entries(self) -> SlotEntries:
        """Every distinct op of the space and the array that finds it, per slot."""
        index_of: dict[OpSpec, int] = {}
        tables = []
        for index, slot in enumerate(self.slots):
            shape = tuple(len(self.genes[gene].choices) for gene in slot.genes)
            table = np.full(shape, INACTIVE, dtype=np.int32)
            for choices in np.ndindex(*shape):
                op = self.slot_op(index, choices)
                if op is not None:
                    table[choices] = index_of.setdefault(op, len(index_of))
            tables.append(table)
        return SlotEntries(tuple(index_of), tuple(tables))

    def entry_indices(self, batch: ArchBatch) -> NDArray[np.int32]:
        """Which distinct op stands in each slot: `(n_archs, n_slots)`, `INACTIVE` if empty."""
        self.require_same(batch.space)
        return self.gather_entries(batch.genes)

    def gather_entries(self, genes: NDArray[np.integer]) -> NDArray[np.int32]:
        """As `entry_indices`, of genes that need not be canonical.

        Args:
            genes: choice indices `(n_archs, n_genes)`, within range or `INACTIVE`; which of these
                a gene holds that has no effect does not matter.

        Raises:
            InvalidInputError: a choice index is out of range, of whatever gene; it is named.
        """
        if len(genes):
            highest, lowest = genes.max(axis=0), genes.min(axis=0)
            for index in np.flatnonzero((highest >= self.sizes) | (lowest < INACTIVE)).tolist():
                wrong = highest[index] if highest[index] >= self.sizes[index] else lowest[index]
                raise self._out_of_range(self.genes[index], int(wrong))
        # The last choice where inactive: the slot is empty for every choice of such a gene.
        choices = np.where(genes == INACTIVE, self.sizes - 1, genes)
        cells: dict[tuple[int, ...], NDArray[np.intp]] = {}
        for slot in self.slots:
            if slot.genes not in cells:
                cell = np.zeros(len(genes), dtype=np.intp)
                for gene in slot.genes:
                    cell = cell * self.sizes[gene] + choices[:, gene]
                cells[slot.genes] = cell
        columns = [
            table.ravel()[cells[slot.genes]]
            for slot, table in zip(self.slots, self.slot_entries.tables, strict=True)
        ]
        return np.stack(columns, axis=1)

    def _out_of_range(self, gene: Gene, choice: int) -> InvalidInputError:
        return InvalidInputError(
            f"space {self.name!r}: gene {gene.name} has choices 0 to {len(gene.choices) - 1}, "
            f"got {choice}"
        )

    def _require_own(self, arch: ArchConfig) -> None:
        if (arch.space, arch.version) != (self.name, self.version):
            raise SpaceMismatchError(
                f"architecture of space {arch.space!r} version {arch.version} given to space "
                f"{self.name!r} version {self.version}"
            )
        if len(arch.genes) != len(self.genes):
            raise InvalidInputError(
                f"architecture with {len(arch.genes)} genes; space {self.name!r} has "
                f"{len(self.genes)}"
            )

    def require_same(self, other: SearchSpace) -> None:
        """Raises `SpaceMismatchError` unless `other` is this space in this version."""
        if (self.name, self.version) != (other.name, other.version):
            raise SpaceMismatchError(
                f"space {other.name!r} version {other.version} where space {self.name!r} "
                f"version {self.version} is needed"
            )

    # -- size ------------------------------------------------------------------------------

    def count(self) -> SpaceCount:
        """Exact sizes; see `latlas_ops.counting.SpaceCount`."""
        return count_archs(self.genes, self.resolution_gene)
