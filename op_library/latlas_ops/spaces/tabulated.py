"""`Space`: a search space that is given by its tables, such as that of somebody's own supernet.

Where the other spaces compute the op of a slot, this one looks it up. It can be written down as
JSON and read back anywhere, without the code that made it.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from latlas_ops.errors import InvalidInputError
from latlas_ops.network import NETWORK_INPUT
from latlas_ops.opspec import OpSpec
from latlas_ops.space import INACTIVE, Gene, SearchSpace, Slot

if TYPE_CHECKING:
    import torch

FORMAT, VERSION = "latlas-space", 1


@dataclass(frozen=True)
class PlacedOps:
    """A slot and what may stand in it.

    Attributes:
        name: of the slot.
        genes: indices of the genes that decide which op stands there; they always have effect.
        ops: the op per combination of their choices, the last gene's fastest; None where the slot
            is empty and hands on what it reads. One op for a slot without genes.
        sources: the slots that it reads, one per input of its ops; `NETWORK_INPUT` for the input.
    """

    name: str
    genes: tuple[int, ...]
    ops: tuple[OpSpec | None, ...]
    sources: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Space(SearchSpace):
    """A space of one's own, described by its genes and the ops in its slots.

    Attributes:
        name: what the space is called; not that of a built-in one.
        version: what changes when its ops change.
        genes: what may be chosen.
        placed: the slots in execution order; the last one gives the output.

    Raises:
        InvalidInputError: a slot reads what is not before it, has another number of ops than
            its genes have combinations, has ops of different inputs or outputs, or is empty
            where what it reads has another shape.
    """

    name: str
    version: int
    genes: tuple[Gene, ...]
    placed: tuple[PlacedOps, ...]

    def __post_init__(self) -> None:
        if not self.placed:
            raise InvalidInputError(f"space {self.name!r} has no slots")
        for gene in self.genes:
            if gene.parent is not None:
                raise InvalidInputError(
                    f"space {self.name!r}: gene {gene.name!r} depends on another"
                )
        for index, slot in enumerate(self.placed):
            self._check(index, slot)

    def _check(self, index: int, slot: PlacedOps) -> None:
        who = f"space {self.name!r}: slot {index} ({slot.name})"
        if any(not 0 <= gene < len(self.genes) for gene in slot.genes):
            raise InvalidInputError(f"{who} has genes {slot.genes} of {len(self.genes)}")
        n_ops = int(np.prod(self._sizes(slot), initial=1))
        if len(slot.ops) != n_ops:
            raise InvalidInputError(f"{who} has {len(slot.ops)} ops for {n_ops} combinations")
        if any(not NETWORK_INPUT <= source < index for source in slot.sources):
            raise InvalidInputError(f"{who} reads {slot.sources}, which are not all before it")
        ops = [op for op in slot.ops if op is not None]
        if not ops:
            raise InvalidInputError(f"{who} is always empty")
        shapes = {(op.inputs, op.outputs) for op in ops}
        if len(shapes) != 1 or len(ops[0].inputs) != len(slot.sources):
            raise InvalidInputError(
                f"{who} reads {len(slot.sources)} slots, and its ops have the inputs and outputs "
                f"{sorted(shapes)}; they must be the same for all"
            )
        if None in slot.ops and ops[0].inputs != ops[0].outputs:
            raise InvalidInputError(
                f"{who} may be empty, but makes {ops[0].outputs[0]} of {ops[0].inputs}"
            )

    def _sizes(self, slot: PlacedOps) -> tuple[int, ...]:
        return tuple(len(self.genes[gene].choices) for gene in slot.genes)

    @property
    def slots(self) -> tuple[Slot, ...]:  # type: ignore[override]
        """Name and genes of every slot."""
        return tuple(Slot(slot.name, slot.genes) for slot in self.placed)

    @property
    def resolution_gene(self) -> None:
        """There is none: inputs have one shape."""
        return None

    def slot_op(self, slot: int, choices: Sequence[int]) -> OpSpec | None:
        """See `SearchSpace.slot_op`."""
        placed = self.placed[slot]
        index = 0
        for choice, size in zip(choices, self._sizes(placed), strict=True):
            index = index * size + choice
        return placed.ops[index]

    def slot_sources(self, slot: int, genes: Sequence[int]) -> Sequence[int]:
        """See `SearchSpace.slot_sources`."""
        return self.placed[slot].sources

    @classmethod
    def from_supernet(
        cls,
        net: torch.nn.Module,
        example_input: torch.Tensor | Sequence[int],
        *,
        name: str = "supernet",
        version: int = 1,
    ) -> Space:
        """The space of a torch network in which choices are marked.

        A choice is any submodule that has an attribute `candidates`: an `nn.ModuleList`, or an
        `nn.ModuleDict` whose keys name them. All candidates take the same inputs and give the same
        shape; one that gives its only input as it is (`nn.Identity`) leaves its place empty. The
        `forward` of a choice is not run. What stands between choices becomes ops without choice:
        as few as possible, each with a single output.

        Every choice is one gene `<path of the submodule>.block`.

        Args:
            net: the network; left as it was.
            example_input: a batch of its inputs, or its shape with the batch axis.
            name: of the space.
            version: of the space.

        Raises:
            UnsupportedModuleError: something has no primitive; the module is named.
            InvalidInputError: there is no choice, a choice stands inside of another one's
                candidate, candidates give different shapes, or the network does not run.
            MissingDependencyError: torch is not installed.
        """
        from latlas_ops.supernet_import import placed_ops

        genes, placed = placed_ops(net, example_input)
        return cls(name, version, genes, placed)

    def to_json(self) -> str:
        """The space as JSON that `from_json` reads."""
        ops = sorted({op.key for slot in self.placed for op in slot.ops if op is not None})
        index_of = {key: index for index, key in enumerate(ops)}
        record = {
            "format": FORMAT,
            "format_version": VERSION,
            "name": self.name,
            "version": self.version,
            "genes": [
                {"name": gene.name, "choices": list(gene.choices), "labels": list(gene.labels)}
                for gene in self.genes
            ],
            "ops": ops,
            "slots": [
                {
                    "name": slot.name,
                    "genes": list(slot.genes),
                    "ops": [INACTIVE if op is None else index_of[op.key] for op in slot.ops],
                    "sources": list(slot.sources),
                }
                for slot in self.placed
            ],
        }
        return json.dumps(record, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Space:
        """The space of `to_json`.

        Raises:
            InvalidInputError: it is no such text, or describes no valid space.
        """
        try:
            record = json.loads(text)
            if (record["format"], record["format_version"]) != (FORMAT, VERSION):
                raise InvalidInputError(
                    f"{record['format']!r} {record['format_version']!r} is no {FORMAT} {VERSION}"
                )
            genes = tuple(_gene(gene) for gene in record["genes"])
            ops = [OpSpec.from_key(key) for key in record["ops"]]
            placed = tuple(
                PlacedOps(
                    str(slot["name"]),
                    _integers(slot["genes"]),
                    tuple(None if i == INACTIVE else _at(ops, i) for i in _integers(slot["ops"])),
                    _integers(slot["sources"]),
                )
                for slot in record["slots"]
            )
            name, version = str(record["name"]), operator.index(record["version"])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise InvalidInputError(f"not a space: {text!r:.120} ({error!r})") from error
        return cls(name, version, genes, placed)


def _gene(record: Any) -> Gene:
    choices = tuple(record["choices"])
    if not all(type(choice) in (int, float) for choice in choices):
        raise TypeError(f"choices {choices!r:.80}")
    return Gene(str(record["name"]), choices, labels=tuple(map(str, record["labels"])))


def _at(ops: Sequence[OpSpec], index: int) -> OpSpec:
    if index < 0:
        raise IndexError(f"op {index}")
    return ops[index]


def _integers(values: Any) -> tuple[int, ...]:
    return tuple(operator.index(value) for value in values)
