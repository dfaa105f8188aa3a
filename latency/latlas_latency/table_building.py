"""From the visits of a profile campaign to a calibrated lookup table.

Ops are measured *in situ*: node times of whole networks, less what the profiler adds to each node,
merged over every place an op occurs in. Whole networks then calibrate the sums. For the other
methods see `plain_building`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from latlas_latency.attribution import AttributedObservation, attribute_all
from latlas_latency.calibration import (
    LEAST_NETWORKS,
    SESSION_DRIFT,
    Calibration,
    fit_affine,
)
from latlas_latency.measurement.statistics import robust_mean, robust_standard_deviation
from latlas_latency.measurement.target import Target
from latlas_latency.methods import IN_SITU
from latlas_latency.observations import (
    Drift,
    Observation,
    checked_drift,
    require_profiled,
)
from latlas_latency.profiler_cost import ProfilerCost, fit_profiler_cost
from latlas_latency.space_reference import SpaceReference
from latlas_latency.surroundings import fit_surroundings_cost
from latlas_latency.table import LookupTable, TableConditions, TableEntry
from latlas_ops.costs import op_cost
from latlas_ops.errors import InvalidInputError, UnknownOpError
from latlas_ops.opspec import OpSpec
from latlas_ops.space import SearchSpace

_PROFILER_TICK_NS = 1000.0

LEAST_ENTRY_NS = 1.0
"""Clocks resolve no less; an op that noise or the profiler's cost hides is given this."""


def build_table(
    *,
    profiled: Sequence[Observation],
    plain: Sequence[Observation],
    calibration: Sequence[Observation],
    target: Target,
    space: SearchSpace | None,
) -> LookupTable:
    """The lookup table of one interleaved sitting.

    1. The common mode of each round over all networks is divided out where that lowers the noise.
    2. Node times are attributed to ops and summed per inference; the median over the inferences
       of a visit and the median over visits give each place (network, position) its time.
    3. The profiler's cost per node is fitted from networks measured both profiled and plain, and
       subtracted.
    4. Places of one op, on whatever network or board, are merged by a robust mean. An op that
       never had a node of its own (fused into a neighbour everywhere) gets no entry.
    5. Sums of entries are calibrated on whole networks: the calibration networks and, as they were
       measured without profiler too, the cover networks. What an op costs its network beyond the
       time of its nodes is fitted first and charged to its entry; see `surroundings`. Without
       calibration networks the table stays uncalibrated and says so.

    Args:
        profiled: cover networks with node times.
        plain: the same networks without; others among them are ignored.
        calibration: whole networks of different size, plain, none or at least three.
        target: what all of this was measured on.
        space: the search space the networks belong to, or None.

    Raises:
        InvalidInputError: nothing was profiled, a mode is wrong, or the calibration networks
            cannot carry a line.
        TargetMismatchError: an observation was taken on another target; the field is named.
        SpaceMismatchError: an observation is an architecture of another space.
        UnknownOpError: a calibration network holds an op that no profiled network holds.
    """
    if not profiled:
        raise InvalidInputError("a table needs at least one profiled network")
    require_profiled(profiled, "cover", wanted=True)
    require_profiled(plain, "unprofiled cover", wanted=False)
    require_profiled(calibration, "calibration", wanted=False)
    everything = [*profiled, *plain, *calibration]
    drift = checked_drift(everything, target, space)
    covers = [attribute_all(observation, drift) for observation in profiled]
    cost = _profiler_cost(covers, plain, drift)
    table = LookupTable(
        target=target,
        space=None if space is None else SpaceReference.of(space),
        entries=_entries(covers, cost),
        conditions=conditions_of(
            everything,
            drift,
            n_profiled_networks=len(covers),
            profiler_cost=cost,
            remainder_share=float(np.mean([cover.remainder_share for cover in covers])),
        ),
    )
    return calibrated(table, _nodes_of_ops(covers), calibration, plain, drift)


def _shortest_node_ns(observation: Observation) -> float:
    """Median over visits of the shortest node's median time, one clock tick of a profiler added.

    Profilers cut times to whole microseconds, so that a node of 2 may have taken almost 3.
    """
    shortest = [
        min(float(np.median(node.samples_ns)) for node in visit.nodes)
        for visit in observation.visits
    ]
    return float(np.median(shortest)) + _PROFILER_TICK_NS


def _profiler_cost(
    covers: Sequence[AttributedObservation], plain: Sequence[Observation], drift: Drift
) -> ProfilerCost:
    plain_ns = {observation.network.key: drift.latency_ns(observation) for observation in plain}
    pairs = [
        (
            float(np.median(cover.total_ns)),
            cover.n_nodes_total,
            plain_ns[cover.observation.network.key],
        )
        for cover in covers
        if cover.observation.network.key in plain_ns
    ]
    sums, nodes, latencies = zip(*pairs, strict=True) if pairs else ((), (), ())
    shortest_ns = min(_shortest_node_ns(cover.observation) for cover in covers)
    return fit_profiler_cost(sums, nodes, latencies, shortest_node_ns=shortest_ns)


def _entries(covers: Sequence[AttributedObservation], cost: ProfilerCost) -> tuple[TableEntry, ...]:
    places: dict[OpSpec, list[NDArray[np.float64]]] = {}
    for cover in covers:
        for position, op in enumerate(cover.observation.network.ops):
            if cover.n_nodes[position]:
                added = cost.per_node_ns * cover.n_nodes[position]
                places.setdefault(op, []).append(cover.position_ns[:, position] - added)
    if not places:
        raise InvalidInputError(
            "no node of any profiled network belongs to an op: do the tensor positions fit?"
        )
    return tuple(_merge(op, visits) for op, visits in places.items())


def _merge(op: OpSpec, places: Sequence[NDArray[np.float64]]) -> TableEntry:
    """One entry from the visits of every place the op was measured in."""
    mean_ns = robust_mean(np.array([np.median(visits) for visits in places]))
    together = np.concatenate(places)
    # Whole nanoseconds: what the clock resolves, and readable in a file.
    return TableEntry(
        op=op,
        mean_ms=round(max(mean_ns, LEAST_ENTRY_NS)) / 1e6,
        spread_ms=round(robust_standard_deviation(together)) / 1e6,
        n_occurrences=len(places),
        n_visits=len(together),
    )


def calibrated(
    table: LookupTable,
    n_nodes: Mapping[OpSpec, float],
    calibration: Sequence[Observation],
    plain: Sequence[Observation],
    drift: Drift,
) -> LookupTable:
    """The table with entries charged for their surroundings, and the line to whole networks.

    Args:
        table: the table, not calibrated; it is returned as it is if nothing is to calibrate it.
        n_nodes: nodes of each op, by which the cost between nodes is charged.
        calibration: whole networks of different size, none or at least three.
        plain: the cover networks without node times.
        drift: of the sitting.

    Raises:
        InvalidInputError: the networks are too few, or cannot carry a line.
        UnknownOpError: a network holds an op that the table has no entry for.
    """
    if not calibration:
        return table
    if len(calibration) < LEAST_NETWORKS:
        raise InvalidInputError(
            f"calibration needs at least {LEAST_NETWORKS} networks, got {len(calibration)}; "
            "measure more"
        )
    whole = [*calibration, *plain]
    networks = [observation.network for observation in whole]
    try:
        table.entry_sums_ms(networks)
    except UnknownOpError as error:
        raise UnknownOpError(
            f"calibration networks go beyond what the entries were measured on: {error}"
        ) from error
    latency_ms = np.array([drift.latency_ns(observation) for observation in whole]) / 1e6
    weight_mb = {entry.op: op_cost(entry.op).weight_bytes / 1e6 for entry in table.entries}
    cost = fit_surroundings_cost(
        table.entry_sums_ms(networks),
        [sum(weight_mb[op] for op in network.ops) for network in networks],
        [sum(n_nodes[op] for op in network.ops) for network in networks],
        latency_ms,
    )
    entries = []
    for entry in table.entries:
        charged_ms = cost.per_weight_mb_ms * weight_mb[entry.op]
        charged_ms += cost.per_node_ms * n_nodes[entry.op]
        mean_ns = round(1e6 * (entry.mean_ms + charged_ms))
        entries.append(replace(entry, mean_ms=max(mean_ns, LEAST_ENTRY_NS) / 1e6))
    assert table.conditions is not None
    conditions = replace(table.conditions, surroundings=cost)
    charged = replace(table, entries=tuple(entries), conditions=conditions)
    fit = fit_affine(charged.entry_sums_ms(networks), latency_ms, "calibration")
    noise = float(np.sqrt(np.mean(charged.entry_noise(networks) ** 2)))
    return replace(charged, calibration=Calibration(fit, noise, SESSION_DRIFT))


def _nodes_of_ops(covers: Sequence[AttributedObservation]) -> dict[OpSpec, float]:
    """Nodes of each op, the median over its places."""
    found: dict[OpSpec, list[int]] = {}
    for cover in covers:
        for op, n_nodes in zip(cover.observation.network.ops, cover.n_nodes.tolist(), strict=True):
            if n_nodes:
                found.setdefault(op, []).append(n_nodes)
    return {op: float(np.median(places)) for op, places in found.items()}


def conditions_of(
    everything: Sequence[Observation],
    drift: Drift,
    *,
    n_profiled_networks: int,
    profiler_cost: ProfilerCost | None = None,
    remainder_share: float = 0.0,
    method: str = IN_SITU,
) -> TableConditions:
    """The conditions of a table that was made from all of these observations."""
    visits = [visit for observation in everything for visit in observation.visits]
    started = [visit.started_ns for visit in visits]
    return TableConditions(
        first_visit_ns=min(started),
        last_visit_ns=max(started),
        device_ids=tuple(sorted({visit.device_id for visit in visits})),
        n_rounds=len({visit.round for visit in visits}),
        n_profiled_networks=n_profiled_networks,
        label_noise=drift.label_noise,
        common_mode_free_noise=drift.common_mode_free_noise,
        drift_removed=drift.removed,
        profiler_cost=profiler_cost or ProfilerCost(0.0, 0.0, 0),
        remainder_share=remainder_share,
        n_visits=len(visits),
        n_left_out=sum(observation.n_left_out for observation in everything),
        n_disturbed=sum(observation.n_disturbed for observation in everything),
        method=method,
    )
