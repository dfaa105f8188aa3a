"""`LookupTable`: latency of every op of a space in its real surroundings, and what they sum to."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import NormalDist
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from latlas_latency.calibration import Calibration
from latlas_latency.estimation import estimate
from latlas_latency.measurement.statistics import require_level
from latlas_latency.measurement.target import Target
from latlas_latency.model import OpLatencies, Prediction, Subjects
from latlas_latency.profiler_cost import ProfilerCost
from latlas_latency.space_reference import SpaceReference
from latlas_latency.surroundings import SurroundingsCost
from latlas_latency.validation import Validation
from latlas_ops.errors import InvalidInputError, UnknownOpError
from latlas_ops.network import Network
from latlas_ops.opspec import OpSpec
from latlas_ops.space import ArchBatch, SearchSpace

MEASURED = "measured"
INTERPOLATED = "interpolated"
ENTRY_KINDS = (MEASURED, INTERPOLATED)

UNCALIBRATED_BIAS = 0.16
"""Sums of raw entries have been found to fall short of whole networks by up to this share."""

NOISY_SITTING = 0.02
"""Common-mode-free noise beyond which a sitting is better repeated."""

MOST_DISTURBED = 0.1
"""Share of disturbed visits among those of a table beyond which the sitting is better repeated."""

_PRIOR_VISITS = 6
"""Visits that the typical relative spread of a table counts for beside an entry's own."""

_NAMED_OPS = 3


@dataclass(frozen=True)
class TableEntry:
    """Latency of one op.

    Attributes:
        op: the op.
        mean_ms: its latency inside networks, before calibration.
        spread_ms: robust standard deviation of single visits about it.
        n_occurrences: places (network and position) that it was measured in.
        n_visits: visits it was measured in, over all places, rounds and boards.
        kind: `measured`, or `interpolated` between measured entries.
    """

    op: OpSpec
    mean_ms: float
    spread_ms: float
    n_occurrences: int
    n_visits: int
    kind: str = MEASURED

    def __post_init__(self) -> None:
        if not (np.isfinite(self.mean_ms) and self.mean_ms > 0):
            raise InvalidInputError(f"entry {self.op}: mean_ms {self.mean_ms} is not positive")
        if not (np.isfinite(self.spread_ms) and self.spread_ms >= 0):
            raise InvalidInputError(f"entry {self.op}: spread_ms {self.spread_ms} is negative")
        if self.kind not in ENTRY_KINDS:
            raise InvalidInputError(
                f"entry {self.op}: kind {self.kind!r} is not one of {', '.join(ENTRY_KINDS)}"
            )


def relative_errors(entries: Sequence[TableEntry]) -> dict[OpSpec, float]:
    """Relative standard error of each entry, by op.

    The spread of a few visits is itself uncertain, so it is drawn towards the typical relative
    spread of the entries, which counts as `_PRIOR_VISITS` visits. Visits of one place share its
    surroundings, so that only places count as independent.
    """
    if not entries:
        return {}
    relative = np.array([entry.spread_ms / entry.mean_ms for entry in entries])
    visits = np.array([entry.n_visits for entry in entries], dtype=np.float64)
    places = np.array([entry.n_occurrences for entry in entries], dtype=np.float64)
    typical = float(np.median(relative))
    variance = (_PRIOR_VISITS * typical**2 + visits * relative**2) / (_PRIOR_VISITS + visits)
    errors = np.sqrt(variance / np.maximum(places, 1))
    return {entry.op: float(error) for entry, error in zip(entries, errors, strict=True)}


@dataclass(frozen=True)
class TableConditions:
    """How and when the measurements behind a table were taken.

    Attributes:
        first_visit_ns: Unix time at which the first visit began.
        last_visit_ns: Unix time at which the last visit began.
        device_ids: the boards.
        n_rounds: separated rounds of the sitting.
        n_profiled_networks: networks that the entries come from.
        label_noise: half the rounds against the other, a fraction; NaN with one round.
        common_mode_free_noise: the same without what all networks share, a fraction.
        drift_removed: whether the common mode of each round was divided out.
        profiler_cost: what profiling was found to add; removed from the entries.
        remainder_share: share of the profiled time that belongs to no op; not in any entry.
        n_visits: visits that the figures rest on.
        n_left_out: further visits that were disturbed and left out.
        n_disturbed: of `n_visits`, those that were disturbed and had no better ones beside them.
        surroundings: what ops were found to cost beyond their node times; part of the entries.
    """

    first_visit_ns: int
    last_visit_ns: int
    device_ids: tuple[str, ...]
    n_rounds: int
    n_profiled_networks: int
    label_noise: float
    common_mode_free_noise: float
    drift_removed: bool
    profiler_cost: ProfilerCost
    remainder_share: float
    n_visits: int = 0
    n_left_out: int = 0
    n_disturbed: int = 0
    surroundings: SurroundingsCost = field(default_factory=SurroundingsCost)


@dataclass(frozen=True)
class LookupTable:
    """A latency lookup table for one target. Implements `LatencyModel`.

    Without a calibration the predictions are plain sums of entries: biased, see `caveats`.

    Attributes:
        target: what the figures are valid for.
        space: the search space it was built for; None means any network.
        entries: one per op, sorted by the op's key.
        calibration: the line from sums to whole networks; None if none were measured.
        conditions: how the measurements were taken; None for imported tables.
        validation: the last comparison with unseen networks, if there was one.
    """

    target: Target
    space: SpaceReference | None
    entries: tuple[TableEntry, ...]
    calibration: Calibration | None = None
    conditions: TableConditions | None = None
    validation: Validation | None = None

    def __post_init__(self) -> None:
        if not self.entries:
            raise InvalidInputError("a lookup table needs at least one entry")
        entries = tuple(sorted(self.entries, key=lambda entry: entry.op.key))
        for one, other in itertools.pairwise(entries):
            if one.op == other.op:
                raise InvalidInputError(f"two entries for one op: {one.op}")
        object.__setattr__(self, "entries", entries)

    @property
    def kind(self) -> str:
        """Short name of this kind of model."""
        return "table"

    @property
    def calibrated(self) -> bool:
        """Whether sums are corrected by whole networks."""
        return self.calibration is not None

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader of this table's figures must know, a line each; often none."""
        found = []
        if not self.calibrated:
            found.append(
                "not calibrated: sums of entries fall short of whole networks, usually by 4 to 16 %"
            )
        conditions = self.conditions
        if conditions is not None and conditions.common_mode_free_noise > NOISY_SITTING:
            found.append(
                f"noisy sitting: two halves of the rounds differ by "
                f"{conditions.common_mode_free_noise:.1%}, more than {NOISY_SITTING:.0%}; repeat it"
            )
        if conditions is not None and conditions.n_disturbed > MOST_DISTURBED * conditions.n_visits:
            found.append(
                f"disturbed sitting: {conditions.n_disturbed} of {conditions.n_visits} visits were "
                "taken while the device was throttled or crowded; repeat it on a quiet device"
            )
        return tuple(found)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What goes with this table wherever its figures go: caveats, and its last validation."""
        validated = "not validated: no network was measured that it was not made from"
        if self.validation is not None:
            validated = self.validation.summary
        return (*self.caveats, validated)

    def with_validation(self, validation: Validation) -> LookupTable:
        """This table with the result of its last validation."""
        return replace(self, validation=validation)

    @cached_property
    def by_op(self) -> dict[OpSpec, TableEntry]:
        """Entries by op."""
        return {entry.op: entry for entry in self.entries}

    def missing(self, space: SearchSpace) -> tuple[OpSpec, ...]:
        """Ops of a space that the table holds no entry for."""
        return tuple(op for op in space.slot_entries.ops if op not in self.by_op)

    # -- LatencyModel ----------------------------------------------------------------------

    def predict(
        self, subjects: Subjects, level: float = 0.9, *, allow_estimates: bool = False
    ) -> Prediction:
        """Latencies of architectures or networks; see `LatencyModel.predict`.

        The interval joins the error of the calibration (residual and parameters, Student's t
        with its degrees of freedom), what all networks share in another session than that of the
        calibration (see `calibrated_in_session`) and, where a network stands on entries noisier
        than those of the calibration networks, the excess of their noise. The same op twice in a
        network counts as two independent errors. The calibration's constant counts as measured.

        An uncalibrated table predicts the plain sum, which is biased low: the interval then
        reaches from the sum, less the noise of its entries, up to the sum divided by
        `1 - UNCALIBRATED_BIAS`, plus that noise.

        With `allow_estimates`, an op without an entry gets the figure of
        `latlas_latency.estimation`, which is counted in `estimated_ms` and named in `missing`.
        """
        require_level(level)
        if isinstance(subjects, ArchBatch):
            if self.space is not None:
                self.space.require(subjects.space, f"the table of target {self.target.name!r}")
            known = self._figures_of_space(subjects.space)
            indices: NDArray[np.integer] = subjects.space.entry_indices(subjects)
        else:
            ops, indices = _network_indices(subjects)
            known = self._figures(ops)
        figures, missing = self._complete(known, indices, allow_estimates)
        sums = figures.means_ms[indices].sum(axis=1)
        noise = figures.variances[indices].sum(axis=1) / np.maximum(sums, 1e-12) ** 2
        if self.calibration is None:
            slope, mean = 1.0, sums
            margin = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(noise) * sums
            lower, upper = sums - margin, sums / (1 - UNCALIBRATED_BIAS) + margin
        else:
            fit = self.calibration.fit
            slope, mean = fit.slope, fit.mean(sums)
            extra = np.maximum(noise - self.calibration.entry_noise**2, 0)
            extra += self.calibration.session_error**2
            half_width = fit.half_width(sums, level, extra)
            lower, upper = mean - half_width, mean + half_width
        interpolated = slope * _sum_where(figures.interpolated, figures.means_ms, indices)
        estimated = slope * _sum_where(figures.estimated, figures.means_ms, indices)
        return Prediction(
            mean_ms=mean,
            lower_ms=np.maximum(lower, 0),
            upper_ms=upper,
            measured_ms=mean - interpolated - estimated,
            interpolated_ms=interpolated,
            estimated_ms=estimated,
            level=level,
            missing=missing,
        )

    def op_latencies(self, space: SearchSpace) -> OpLatencies:
        """Calibrated per-op latencies of a space; see `LatencyModel.op_latencies`."""
        if self.space is not None:
            self.space.require(space, f"the table of target {self.target.name!r}")
        if missing := self.missing(space):
            raise self._unknown(missing)
        intercept, slope = 0.0, 1.0
        if self.calibration is not None:
            intercept, slope = self.calibration.fit.intercept, self.calibration.fit.slope
        values = slope * self._figures_of_space(space).means_ms
        return OpLatencies(intercept, tuple(values[table] for table in space.slot_entries.tables))

    # -- parts -----------------------------------------------------------------------------

    def entry_sums_ms(self, networks: Sequence[Network]) -> NDArray[np.float64]:
        """Plain sums of entries, before calibration, `(n,)`.

        Raises:
            UnknownOpError: an op has no entry; it is named.
        """
        ops, indices = _network_indices(networks)
        figures, _ = self._complete(self._figures(ops), indices, allow_estimates=False)
        return np.asarray(figures.means_ms[indices].sum(axis=1), dtype=np.float64)

    def entry_noise(self, networks: Sequence[Network]) -> NDArray[np.float64]:
        """Relative standard deviation of `entry_sums_ms` from the noise of the entries, `(n,)`."""
        ops, indices = _network_indices(networks)
        figures, _ = self._complete(self._figures(ops), indices, allow_estimates=False)
        sums = figures.means_ms[indices].sum(axis=1)
        return np.asarray(np.sqrt(figures.variances[indices].sum(axis=1)) / sums)

    @cached_property
    def _relative_errors(self) -> dict[OpSpec, float]:
        return relative_errors(self.entries)

    def _complete(
        self, known: _Figures, indices: NDArray[np.integer], allow_estimates: bool
    ) -> tuple[_Figures, tuple[OpSpec, ...]]:
        """Figures with estimates where allowed, and the ops in `indices` that have no entry."""
        occurs = np.zeros(len(known.means_ms), dtype=bool)
        occurs[indices.ravel()] = True
        absent = np.flatnonzero(occurs[:-1] & ~known.known[:-1])
        missing = tuple(known.ops[int(index)] for index in absent)
        if not missing:
            return known, ()
        if not allow_estimates:
            raise self._unknown(missing)
        means, variances = known.means_ms.copy(), known.variances.copy()
        estimated = known.estimated.copy()
        known_ms = {entry.op: entry.mean_ms for entry in self.entries}
        for index, op in zip(absent, missing, strict=True):
            guess = estimate(op, known_ms)
            means[index] = guess.mean_ms
            variances[index] = (guess.mean_ms * guess.relative_error) ** 2
            estimated[index] = True
        return replace(known, means_ms=means, variances=variances, estimated=estimated), missing

    def _figures(self, ops: Sequence[OpSpec]) -> _Figures:
        size = len(ops) + 1
        means, variances = np.zeros(size), np.zeros(size)
        known, interpolated = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        for index, op in enumerate(ops):
            entry = self.by_op.get(op)
            if entry is not None:
                known[index] = True
                means[index] = entry.mean_ms
                variances[index] = (self._relative_errors[op] * entry.mean_ms) ** 2
                interpolated[index] = entry.kind == INTERPOLATED
        return _Figures(ops, means, variances, known, interpolated, np.zeros(size, dtype=bool))

    def _figures_of_space(self, space: SearchSpace) -> _Figures:
        """Figures of a space's distinct ops; a search asks for them over and over."""
        if space not in self._figures_by_space:
            self._figures_by_space[space] = self._figures(space.slot_entries.ops)
        return self._figures_by_space[space]

    @cached_property
    def _figures_by_space(self) -> WeakKeyDictionary[SearchSpace, _Figures]:
        return WeakKeyDictionary()

    def _unknown(self, ops: Sequence[OpSpec]) -> UnknownOpError:
        named = "; ".join(str(op) for op in ops[:_NAMED_OPS])
        more = f" and {len(ops) - _NAMED_OPS} more" if len(ops) > _NAMED_OPS else ""
        return UnknownOpError(
            f"the table of target {self.target.name!r} has no entry for {len(ops)} op(s): "
            f"{named}{more}; profile networks that contain them, or allow estimates"
        )


@dataclass(frozen=True, eq=False)
class _Figures:
    """What is known per op, `(n_ops + 1,)` each; the last row, reached by -1, is an empty slot."""

    ops: Sequence[OpSpec]
    means_ms: NDArray[np.float64]
    variances: NDArray[np.float64]
    known: NDArray[np.bool_]
    interpolated: NDArray[np.bool_]
    estimated: NDArray[np.bool_]


def _sum_where(
    flags: NDArray[np.bool_], means_ms: NDArray[np.float64], indices: NDArray[np.integer]
) -> NDArray[np.float64]:
    if not flags.any():
        return np.zeros(len(indices))
    return np.asarray(np.where(flags, means_ms, 0.0)[indices].sum(axis=1), dtype=np.float64)


def _network_indices(
    networks: Iterable[Network],
) -> tuple[tuple[OpSpec, ...], NDArray[np.int64]]:
    """Distinct ops of networks, and per network the indices of its ops, filled up with -1."""
    index_of: dict[OpSpec, int] = {}
    rows = [[index_of.setdefault(op, len(index_of)) for op in net.ops] for net in networks]
    indices = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int64)
    for row, found in zip(indices, rows, strict=True):
        row[: len(found)] = found
    return tuple(index_of), indices
