"""How much of a prediction's error is noise that further visits would lower.

A table entry is the mean over the places (network and position) of its op, a place the median over
its visits, so an entry's error falls with both. Places are given by the cover networks; visits can
be added. A network's error from that is the root of the sum of the squares of its entries' errors,
each weighted by the entry's share in the network: an entry that stands in few networks, or takes
little of their time, may be as noisy as it likes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latlas_latency.attribution import attribute_all
from latlas_latency.measurement.statistics import MAD_TO_STANDARD_DEVIATION
from latlas_latency.observations import Drift, Observation, removable_common_mode
from latlas_latency.table import LookupTable
from latlas_ops.opspec import OpSpec
from latlas_ops.space import ArchBatch

_PRIOR_STEPS = 6
"""Steps between visits that the typical noise counts for beside a row's own: few visits tell little
about their noise."""

_MAD_BIAS = 1.3
"""The square of a median absolute deviation of n normal values is too large by so much over n."""

_LEAST_MEAN_NS = 1.0

Floats = NDArray[np.float64]


def median_variance(n_visits: NDArray[np.integer]) -> Floats:
    """Variance of the median of so many normal values, for a variance of 1 each; same shape.

    π / (2 n + π - 2): exact for one value and for many; within 2 % for an odd number, for an even
    one up to 22 % too large.
    """
    return np.asarray(np.pi / (2 * np.asarray(n_visits, dtype=np.float64) + np.pi - 2))


def label_errors(matrix: Floats) -> Floats:
    """Relative standard error of every row's label, `(n,)`; NaN for a row without a visit.

    The label is the median over the visits, the common mode of the rounds removed where that pays.
    The noise of a visit is told from the steps between visits of one row, a row's own drawn
    towards the typical; NaN everywhere if no row has two visits.

    Args:
        matrix: round matrix `(n, n_rounds)`, see `latlas_latency.measurement.statistics`.
    """
    factors = removable_common_mode(matrix) if len(matrix) else None
    logs = np.log(matrix if factors is None else matrix / factors)
    known = [row[~np.isnan(row)] for row in logs]
    noise = _shrunk_noise([np.diff(visits) for visits in known])
    counts = np.array([len(visits) for visits in known], dtype=np.int64)
    errors = noise * np.sqrt(median_variance(np.maximum(counts, 1)))
    return np.asarray(np.where(counts > 0, errors, np.nan))


@dataclass(frozen=True, eq=False)
class CoverNoise:
    """What the noise of cover networks' visits costs an average network.

    The expected squared relative error is a sum over the cover networks, so that each can be said
    to what a further visit of it would gain.

    Attributes:
        variance_of_one: squared relative error that each cover network brings while it has one
            visit, `(n_covers,)`.
        n_visits: visits that each has, `(n_covers,)` int64.
    """

    variance_of_one: Floats
    n_visits: NDArray[np.int64]

    @property
    def error(self) -> float:
        """Expected relative error of a network (root mean square) from the noise of entries."""
        return math.sqrt(float(self.variance_of_one @ median_variance(self.n_visits)))

    def worst(self, target_error: float, may_grow: NDArray[np.bool_]) -> tuple[int, ...]:
        """The fewest cover networks of which one more visit should bring the error to a target.

        All that may grow if that does not suffice; none if the error is there already.

        Args:
            target_error: the wanted error, relative.
            may_grow: which of them may be visited again, `(n_covers,)`.

        Returns:
            Their indices, those first that gain most.
        """
        now = self.variance_of_one * median_variance(self.n_visits)
        gains = now - self.variance_of_one * median_variance(self.n_visits + 1)
        left = float(now.sum()) - target_error**2
        chosen = []
        for index in np.argsort(-gains, kind="stable").tolist():
            if left <= 0:
                break
            if may_grow[index] and gains[index] > 0:
                chosen.append(index)
                left -= float(gains[index])
        return tuple(chosen)


def cover_noise(
    profiled: Sequence[Observation], drift: Drift, table: LookupTable, networks: ArchBatch
) -> CoverNoise:
    """What the noise of the visits of cover networks costs networks of a space.

    Errors of different entries count as independent; two places of one entry in a network do not.

    Args:
        profiled: the cover networks that the entries come from, with node times.
        drift: of their sitting, as the table was freed of it: measured over everything that the
            table was made from.
        table: the table that was made of them.
        networks: architectures of the table's space that stand for those it will be asked about,
            such as random ones.
    """
    places = _Places.of(profiled, drift)
    noise_ns = _shrunk_noise(places.steps) * places.level_ns
    importance = _importance(table, networks)
    variance_of_op = np.zeros(len(places.index_of))
    for op, index in places.index_of.items():
        entry = table.by_op.get(op)
        if entry is not None and op in importance:
            relative = noise_ns[index] / max(1e6 * entry.mean_ms, _LEAST_MEAN_NS)
            variance_of_op[index] = importance[op] * (relative / places.n_places[index]) ** 2
    return CoverNoise(
        np.array([variance_of_op[indices].sum() for indices in places.of_cover]),
        np.array([len(seen.visits) for seen in profiled], dtype=np.int64),
    )


@dataclass(frozen=True, eq=False)
class _Places:
    """Node times of cover networks by op.

    Attributes:
        index_of: op → its index in what follows.
        steps: per op, relative steps between consecutive visits of each of its places.
        level_ns: per op, median time over its places, the profiler's cost included.
        n_places: per op, how many those are.
        of_cover: per cover network, the ops at its positions that have nodes of their own.
    """

    index_of: dict[OpSpec, int]
    steps: list[Floats]
    level_ns: Floats
    n_places: NDArray[np.int64]
    of_cover: list[NDArray[np.int64]]

    @classmethod
    def of(cls, profiled: Sequence[Observation], drift: Drift) -> _Places:
        index_of: dict[OpSpec, int] = {}
        steps: list[list[Floats]] = []
        levels: list[list[float]] = []
        of_cover = []
        for seen in profiled:
            ops = seen.network.ops
            attributed = attribute_all(seen, drift)
            times_ns = attributed.position_ns
            level_ns = np.maximum(np.median(times_ns, axis=0), _LEAST_MEAN_NS)
            relative = np.diff(times_ns, axis=0) / level_ns
            own = np.flatnonzero(attributed.n_nodes).tolist()
            indices = [index_of.setdefault(ops[position], len(index_of)) for position in own]
            for position, index in zip(own, indices, strict=True):
                if index == len(steps):
                    steps.append([])
                    levels.append([])
                steps[index].append(relative[:, position])
                levels[index].append(float(level_ns[position]))
            of_cover.append(np.array(indices, dtype=np.int64))
        return cls(
            index_of,
            [np.concatenate(found) for found in steps],
            np.array([float(np.median(found)) for found in levels]),
            np.array([len(found) for found in levels], dtype=np.int64),
            of_cover,
        )


def _importance(table: LookupTable, networks: ArchBatch) -> dict[OpSpec, float]:
    """Mean over the networks of an op's squared share in their sums of entries, by op.

    Networks with an op that the table has no entry for stand aside, unless all have one.
    """
    ops = networks.space.slot_entries.ops
    means_ms = np.array(
        [table.by_op[op].mean_ms if op in table.by_op else 0.0 for op in ops] + [0.0]
    )
    indices = networks.space.entry_indices(networks)
    known = np.append(means_ms[:-1] > 0, True)[indices].all(axis=1)
    indices = indices[known] if known.any() else indices
    counts = np.zeros((len(indices), len(means_ms)))
    np.add.at(counts, (np.arange(len(indices))[:, None], indices), 1.0)
    parts = counts * means_ms
    shares = parts / np.maximum(parts.sum(axis=1, keepdims=True), 1e-12)
    squared = np.mean(shares**2, axis=0)
    return {op: float(value) for op, value in zip(ops, squared[:-1].tolist(), strict=True)}


def _shrunk_noise(steps: Sequence[Floats]) -> Floats:
    """Standard deviation of one visit of every row, `(n,)`, from steps between its visits.

    Steps need no estimate of the level. A burst makes two steps, which their median passes over
    from six visits on. Of three visits it is the mean of both steps, so that a burst does raise the
    row's own noise; this counts by a quarter there (two steps beside `_PRIOR_STEPS`), and the
    typical noise passes over bursts in a few of the rows.
    """
    own = np.array([_spread(found) for found in steps], dtype=np.float64)
    weight = np.array([len(found) for found in steps], dtype=np.float64)
    # Of rows with one step each, a median over the rows would fall short of the noise.
    own /= np.sqrt(1 + _MAD_BIAS / np.maximum(weight, 1))
    everything = np.concatenate(steps) if steps else np.zeros(0)
    if not everything.size:
        return np.full(len(steps), np.nan)
    typical = _spread(everything)
    total = _PRIOR_STEPS * typical**2 + weight * own**2
    return np.asarray(np.sqrt(total / (_PRIOR_STEPS + weight)))


def _spread(steps: Floats) -> float:
    if not len(steps):
        return 0.0
    return MAD_TO_STANDARD_DEVIATION * float(np.median(np.abs(steps))) / math.sqrt(2)
