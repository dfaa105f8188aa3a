"""From node times to op times: which op of the network each node of a profile belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latlas_latency.measurement.visit import PROFILED, Visit
from latlas_latency.observations import Drift, Observation
from latlas_ops.errors import InvalidInputError


@dataclass(frozen=True, eq=False)
class AttributedVisit:
    """Node times of one profiled visit, summed per op of the network. Nothing gets lost.

    Attributes:
        samples_ns: `(n_runs, n_positions)` int64, time of each op in each inference.
        n_nodes: `(n_positions,)` int64, nodes that belong to each op. An op without nodes was
            fused into a neighbour or optimised away: its time is not zero, it is not known.
        remainder_ns: `(n_runs,)` int64, time of nodes that belong to no op: their label is
            empty or not a tensor of the program.
        n_remainder_nodes: how many those are.
    """

    samples_ns: NDArray[np.int64]
    n_nodes: NDArray[np.int64]
    remainder_ns: NDArray[np.int64]
    n_remainder_nodes: int

    @property
    def total_ns(self) -> NDArray[np.int64]:
        """Time of all nodes in each inference, `(n_runs,)` int64."""
        return np.asarray(self.samples_ns.sum(axis=1) + self.remainder_ns, dtype=np.int64)

    @property
    def n_nodes_total(self) -> int:
        """Number of nodes, the remainder's included."""
        return int(self.n_nodes.sum()) + self.n_remainder_nodes

    @property
    def remainder_share(self) -> float:
        """Share of the time that belongs to no op, a fraction."""
        total = float(self.total_ns.sum())
        return float(self.remainder_ns.sum()) / total if total else 0.0


def attribute(
    visit: Visit, tensor_positions: Mapping[str, int], n_positions: int
) -> AttributedVisit:
    """Sums the node times of a visit per op.

    Args:
        visit: a profiled visit.
        tensor_positions: name of a tensor of the program → position of its op.
        n_positions: number of ops of the network.

    Raises:
        InvalidInputError: the visit was not profiled or holds no node times.
    """
    if visit.mode != PROFILED or not visit.nodes:
        raise InvalidInputError(
            f"visit of {visit.task_id} in round {visit.round} holds no node times"
        )
    n_runs = len(visit.network_ns)
    samples = np.zeros((n_runs, n_positions), dtype=np.int64)
    n_nodes = np.zeros(n_positions, dtype=np.int64)
    remainder = np.zeros(n_runs, dtype=np.int64)
    n_remainder = 0
    for node in visit.nodes:
        position = tensor_positions.get(node.label)
        if position is None:
            remainder += node.samples_ns
            n_remainder += 1
        else:
            samples[:, position] += node.samples_ns
            n_nodes[position] += 1
    return AttributedVisit(samples, n_nodes, remainder, n_remainder)


@dataclass(frozen=True, eq=False)
class AttributedObservation:
    """A profiled network after attribution and removal of drift.

    Attributes:
        observation: where it comes from.
        position_ns: median time of each op in each visit, `(n_visits, n_positions)`.
        total_ns: median time of all nodes in each visit, `(n_visits,)`.
        n_nodes: nodes of each op, `(n_positions,)` int64.
        n_nodes_total: number of all nodes, the remainder's included.
        remainder_share: share of the time that belongs to no op, a fraction.
    """

    observation: Observation
    position_ns: NDArray[np.float64]
    total_ns: NDArray[np.float64]
    n_nodes: NDArray[np.int64]
    n_nodes_total: int
    remainder_share: float


def attribute_all(observation: Observation, drift: Drift) -> AttributedObservation:
    """Attributes every visit of a network and divides the drift of its sitting out.

    Args:
        observation: a network with node times.
        drift: of the sitting that it belongs to.

    Raises:
        InvalidInputError: a visit was not profiled or holds no node times.
    """
    n_positions = len(observation.network.ops)
    visits = [
        attribute(visit, observation.tensor_positions, n_positions) for visit in observation.visits
    ]
    factors = drift.factors_of(observation)
    position_ns = np.stack([np.median(visit.samples_ns, axis=0) for visit in visits])
    total_ns = np.array([np.median(visit.total_ns) for visit in visits])
    return AttributedObservation(
        observation=observation,
        position_ns=position_ns / factors[:, None],
        total_ns=total_ns / factors,
        n_nodes=visits[0].n_nodes,
        n_nodes_total=visits[0].n_nodes_total,
        remainder_share=float(np.median([visit.remainder_share for visit in visits])),
    )
