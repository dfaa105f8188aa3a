"""Lookup tables without node times: from chains of ops, or from ops alone.

The counterpart of `table_building` for runtimes that do not time single nodes. What an entry comes
from differs; drift, calibration and surroundings are the same. Nodes, which nobody reports, are
counted on the primitive graph.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latlas_latency.chains import (
    LEAST_LENGTHS,
    ChainFit,
    fit_chain,
    is_repeatable,
    solve_frames,
)
from latlas_latency.estimation import estimate
from latlas_latency.measurement.statistics import robust_standard_deviation
from latlas_latency.measurement.target import Target
from latlas_latency.methods import ALONE, CHAINED
from latlas_latency.observations import (
    Drift,
    Observation,
    checked_drift,
    require_profiled,
)
from latlas_latency.space_reference import SpaceReference
from latlas_latency.table import LookupTable, TableEntry
from latlas_latency.table_building import LEAST_ENTRY_NS, calibrated, conditions_of
from latlas_ops.errors import InvalidInputError
from latlas_ops.kinds import op_nodes
from latlas_ops.opspec import OpSpec, Shape
from latlas_ops.space import SearchSpace


def build_chained_table(
    *,
    chains: Sequence[Observation],
    plain: Sequence[Observation],
    calibration: Sequence[Observation],
    target: Target,
    space: SearchSpace | None,
) -> LookupTable:
    """The lookup table of chains and frames; see `latlas_latency.chains` for what they are.

    1. The common mode of each round over all programs is divided out where that lowers the noise.
    2. A program of one repeatable op is a chain: the line through its lengths gives the entry, and
       the slope's standard error that of the entry.
    3. All other programs are frames, and so are the chains of an op of which there is one length
       alone. What a call and the two ends of a frame cost is taken from the constants of the
       chains that have the shapes of its ends.
    4. Whole networks calibrate the sums; see `table_building.calibrated`.

    Args:
        chains: chains and frames, without node times.
        plain: whole networks that cover the space.
        calibration: whole networks of different size, none or at least three.
        target: what all of this was measured on.
        space: the search space the ops belong to, or None.

    Raises:
        InvalidInputError: nothing was measured, a program was profiled, or the calibration
            networks cannot carry a line.
        TargetMismatchError: an observation was taken on another target; the field is named.
        SpaceMismatchError: an observation is an architecture of another space.
        UnknownOpError: a whole network holds an op that no chain or frame holds.
    """
    everything = _together(chains, "chains", [*plain, *calibration])
    drift = checked_drift(everything, target, space)
    repeated: dict[OpSpec, list[Observation]] = defaultdict(list)
    frames = []
    for seen in chains:
        op = seen.network.ops[0]
        if is_repeatable(op) and set(seen.network.ops) == {op}:
            repeated[op].append(seen)
        else:
            frames.append(seen)
    fits = {
        op: _fit(programs, drift)
        for op, programs in repeated.items()
        if len({len(seen.network.ops) for seen in programs}) >= LEAST_LENGTHS
    }
    entries = [
        _entry(op, fit.per_copy_ns, fit.spread_ns, repeated[op], fit.error_ns)
        for op, fit in fits.items()
    ]
    frames += [seen for op, programs in repeated.items() if op not in fits for seen in programs]
    entries += _framed_entries(frames, fits, drift)
    return _table(
        entries=entries,
        n_programs=len(chains),
        everything=everything,
        plain=plain,
        calibration=calibration,
        target=target,
        space=space,
        drift=drift,
        method=CHAINED,
    )


def build_alone_table(
    *,
    alone: Sequence[Observation],
    plain: Sequence[Observation],
    calibration: Sequence[Observation],
    target: Target,
    space: SearchSpace | None,
) -> LookupTable:
    """The lookup table of ops that were timed alone: an entry is the latency of its own model.

    It is biased, and says so: weights stay in the cache, and every entry holds the cost of a call.
    Subtracting that cost was found to make it worse.

    Args and errors: as `build_chained_table`, with `alone` programs of one op each.
    """
    everything = _together(alone, "single ops", [*plain, *calibration])
    drift = checked_drift(everything, target, space)
    entries = []
    for seen in alone:
        if len(seen.network.ops) > 1:
            raise InvalidInputError(
                f"task {seen.visits[0].task_id} holds {len(seen.network.ops)} ops, not one alone"
            )
        spread_ns = robust_standard_deviation(_visits_ns(seen, drift))
        entries.append(_entry(seen.network.ops[0], drift.latency_ns(seen), spread_ns, [seen]))
    return _table(
        entries=entries,
        n_programs=len(alone),
        everything=everything,
        plain=plain,
        calibration=calibration,
        target=target,
        space=space,
        drift=drift,
        method=ALONE,
    )


def _together(
    programs: Sequence[Observation], what: str, whole: Sequence[Observation]
) -> list[Observation]:
    """Everything that a table is made from; refuses none of these programs, and node times."""
    if not programs:
        raise InvalidInputError(f"a table needs measurements of {what}, there are none")
    everything = [*programs, *whole]
    require_profiled(everything, "all", wanted=False)
    return everything


def _table(
    *,
    entries: Sequence[TableEntry],
    n_programs: int,
    everything: Sequence[Observation],
    plain: Sequence[Observation],
    calibration: Sequence[Observation],
    target: Target,
    space: SearchSpace | None,
    drift: Drift,
    method: str,
) -> LookupTable:
    table = LookupTable(
        target=target,
        space=None if space is None else SpaceReference.of(space),
        entries=tuple(entries),
        conditions=conditions_of(everything, drift, n_profiled_networks=n_programs, method=method),
    )
    n_nodes = {entry.op: float(len(op_nodes(entry.op))) for entry in entries}
    return calibrated(table, n_nodes, calibration, plain, drift)


def _entry(
    op: OpSpec,
    mean_ns: float,
    spread_ns: float,
    programs: Sequence[Observation],
    error_ns: float | None = None,
) -> TableEntry:
    """An entry; without an error of its own the spread over so many programs gives it."""
    return TableEntry(
        op=op,
        mean_ms=round(max(mean_ns, LEAST_ENTRY_NS)) / 1e6,
        spread_ms=round(spread_ns) / 1e6,
        n_occurrences=len(programs),
        n_visits=sum(len(seen.visits) for seen in programs),
        error_ms=None if error_ns is None else math.ceil(error_ns) / 1e6,
    )


def _visits_ns(seen: Observation, drift: Drift) -> NDArray[np.float64]:
    """Median of each visit without the drift of its sitting, `(n_visits,)`."""
    return np.asarray(seen.visit_medians_ns / drift.factors_of(seen), dtype=np.float64)


def _fit(programs: Sequence[Observation], drift: Drift) -> ChainFit:
    latencies = [_visits_ns(seen, drift) for seen in programs]
    lengths = [
        np.full(len(visits), len(seen.network.ops))
        for seen, visits in zip(programs, latencies, strict=True)
    ]
    return fit_chain(np.concatenate(lengths), np.concatenate(latencies))


@dataclass(frozen=True)
class _Ends:
    """What a model costs beside its ops, by the shapes of its two ends, in nanoseconds.

    The constant of a chain holds a call and both ends, which have one shape: half of it goes to
    each. A shape that no chain has, such as an image of three channels or a vector of classes,
    needs no conversion: it is given the cheapest half.
    """

    half_ns: Mapping[Shape, float]

    @classmethod
    def of(cls, fits: Mapping[OpSpec, ChainFit]) -> _Ends:
        by_shape: dict[Shape, list[float]] = defaultdict(list)
        for op, fit in fits.items():
            by_shape[op.outputs[0]].append(fit.fixed_ns)
        return cls(
            {shape: max(0.0, float(np.median(found))) / 2 for shape, found in by_shape.items()}
        )

    def fixed_ns(self, seen: Observation) -> float:
        least_ns = min(self.half_ns.values(), default=0.0)
        ends = (seen.network.input_shape, seen.network.ops[-1].outputs[0])
        return sum(self.half_ns.get(shape, least_ns) for shape in ends)


def _framed_entries(
    frames: Sequence[Observation], fits: Mapping[OpSpec, ChainFit], drift: Drift
) -> list[TableEntry]:
    """Entries of the ops that stand in frames and have no chain."""
    if not frames:
        return []
    ends = _Ends.of(fits)
    places: dict[OpSpec, list[Observation]] = defaultdict(list)
    for seen in frames:
        for op in dict.fromkeys(seen.network.ops):
            if op not in fits:
                places[op].append(seen)
    column = {op: index for index, op in enumerate(places)}
    rows = []
    for seen in frames:
        counts = np.zeros(len(column))
        known_ns, unsure_ns = ends.fixed_ns(seen), 0.0
        for op, n_copies in Counter(seen.network.ops).items():
            if op in fits:
                known_ns += n_copies * fits[op].per_copy_ns
                unsure_ns += n_copies * fits[op].error_ns
            else:
                counts[column[op]] = n_copies
        rows += [
            (counts, visit_ns - known_ns, visit_ns, unsure_ns)
            for visit_ns in _visits_ns(seen, drift).tolist()
        ]
    if not column:
        return []
    known_ms = {op: fit.per_copy_ns / 1e6 for op, fit in fits.items() if fit.per_copy_ns > 0}
    guess_ns = [_guess_ns(op, known_ms, places[op], drift) for op in places]
    counts_of, rest_ns, latency_ns, rest_error_ns = (
        np.array(values) for values in zip(*rows, strict=True)
    )
    fit = solve_frames(counts_of, rest_ns, latency_ns, rest_error_ns, guess_ns)
    return [
        _entry(op, value_ns, spread_ns, programs, error_ns)
        for (op, programs), value_ns, spread_ns, error_ns in zip(
            places.items(),
            fit.values_ns.tolist(),
            fit.spreads_ns.tolist(),
            fit.errors_ns.tolist(),
            strict=True,
        )
    ]


def _guess_ns(
    op: OpSpec, known_ms: Mapping[OpSpec, float], frames: Sequence[Observation], drift: Drift
) -> float:
    """What an op takes by the work it does, at most the fastest model that holds it."""
    most_ns = min(drift.latency_ns(seen) / len(seen.network.ops) for seen in frames)
    guess_ns = 1e6 * estimate(op, known_ms).mean_ms if known_ms else most_ns
    return guess_ns if 0 < guess_ns < most_ns else most_ns
