"""How a supernet runs one architecture: the primitive graph and which parameters each node uses.

The graph is that of `latlas_ops.lowering`, the one network walk, so a subnet computes exactly what
the exported network computes. Two nodes belong to the same parameters when they are the same part
of the op in the same slot.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from latlas_ops.graph import Graph, Node
from latlas_ops.lowering import lower
from latlas_ops.space import ArchConfig, SearchSpace

WITHOUT_NORM = ("se_reduce", "se_expand", "features")
"""Parts whose convolution has a bias and no batch norm (MobileNetV3, table 1 and section 5)."""


@dataclass(frozen=True)
class Step:
    """One node of the walk.

    Attributes:
        node: what to compute.
        layer: `<slot>/<part>` of the parameters, empty for nodes without parameters.
        norm: index of the batch norm that follows, counted along the walk; -1 for none.
        dying: tensors that nothing reads after this step.
    """

    node: Node
    layer: str
    norm: int
    dying: frozenset[str]


@dataclass(frozen=True)
class Walk:
    """The steps of one architecture in execution order."""

    graph: Graph
    steps: tuple[Step, ...]

    @property
    def norms(self) -> int:
        """Number of batch norms."""
        return 1 + max((step.norm for step in self.steps), default=-1)


@lru_cache(maxsize=4096)
def walk(space: SearchSpace, arch: ArchConfig) -> Walk:
    """The walk of an architecture.

    Raises:
        SpaceMismatchError: the architecture belongs to another space.
    """
    graph = lower(space.network(arch))
    slots = [
        slot.name
        for index, slot in enumerate(space.slots)
        if space.slot_op(index, [arch.genes[gene] for gene in slot.genes]) is not None
    ]
    steps = []
    norms = 0
    for node, dying in zip(graph.nodes, graph.releases(), strict=True):
        layer, norm = "", -1
        if node.parameters:
            part = node.name.rsplit("/", 1)[1]
            layer = f"{slots[node.position]}/{part}"
            if node.primitive == "conv" and part not in WITHOUT_NORM:
                norm, norms = norms, norms + 1
        steps.append(Step(node, layer, norm, frozenset(dying)))
    return Walk(graph, tuple(steps))


def input_side(space: SearchSpace, arch: ArchConfig) -> int:
    """Height and width in pixels of the images that an architecture takes."""
    return walk(space, arch).graph.input_shape[-1]
