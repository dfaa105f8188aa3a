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
from latlas_latency.entries import INTERPOLATED, TableEntry, relative_errors
from latlas_latency.figures import OpFigures, network_indices
from latlas_latency.findings_in_words import suspicions_in_words
from latlas_latency.interpolation import Interpolation
from latlas_latency.interpolation_error import InterpolationCheck
from latlas_latency.measurement.statistics import require_level
from latlas_latency.measurement.target import Target
from latlas_latency.methods import ALONE, IN_SITU, REMARKS, require_method
from latlas_latency.model import OpLatencies, Prediction, Subjects
from latlas_latency.profiler_cost import ProfilerCost
from latlas_latency.space_reference import SpaceReference
from latlas_latency.surroundings import SurroundingsCost
from latlas_latency.validation import Validation
from latlas_ops.errors import InvalidInputError, UnknownOpError
from latlas_ops.network import Network
from latlas_ops.opspec import OpSpec
from latlas_ops.space import ArchBatch, SearchSpace

__all__ = ["LookupTable", "TableConditions", "TableEntry"]

UNCALIBRATED_BIAS = 0.16
"""Sums of raw entries have been found to fall short of whole networks by up to this share."""

NOISY_SITTING = 0.02
"""Common-mode-free noise beyond which a sitting is better repeated."""

MOST_DISTURBED = 0.1
"""Share of disturbed visits among those of a table beyond which the sitting is better repeated."""

_NAMED_OPS = 3


@dataclass(frozen=True)
class TableConditions:
    """How and when the measurements behind a table were taken.

    Attributes:
        first_visit_ns: Unix time at which the first visit began.
        last_visit_ns: Unix time at which the last visit began.
        device_ids: the boards.
        n_rounds: separated rounds of the sitting.
        n_profiled_networks: networks, chains or single ops that the entries come from.
        label_noise: half the rounds against the other, a fraction; NaN with one round.
        common_mode_free_noise: the same without what all networks share, a fraction.
        drift_removed: whether the common mode of each round was divided out.
        profiler_cost: what profiling was found to add; removed from the entries.
        remainder_share: share of the profiled time that belongs to no op; not in any entry.
        n_visits: visits that the figures rest on.
        n_left_out: further visits that were disturbed and left out.
        n_disturbed: of `n_visits`, those that were disturbed and had no better ones beside them.
        n_suspicions: what was found in the visits that cannot be right; see
            `latlas_latency.suspicion`.
        n_suspicions_revisited: of these, those that were visited again because of it.
        n_suspicions_open: of these, those that are left.
        surroundings: what ops were found to cost beyond their node times; part of the entries.
        method: how ops were measured, one of `latlas_latency.methods.METHODS`.
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
    n_suspicions: int = 0
    n_suspicions_revisited: int = 0
    n_suspicions_open: int = 0
    surroundings: SurroundingsCost = field(default_factory=SurroundingsCost)
    method: str = IN_SITU

    def __post_init__(self) -> None:
        require_method(self.method)

    @property
    def noise(self) -> float:
        """Noise of the labels that the table was calibrated with, as `Drift` has it; may be NaN."""
        return self.common_mode_free_noise if self.drift_removed else self.label_noise


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
        interpolation_check: what whole networks of resolutions that were not measured said about
            interpolating these, if there were any.
    """

    target: Target
    space: SpaceReference | None
    entries: tuple[TableEntry, ...]
    calibration: Calibration | None = None
    conditions: TableConditions | None = None
    validation: Validation | None = None
    interpolation_check: InterpolationCheck | None = None

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
    def method(self) -> str:
        """How its ops were measured, see `latlas_latency.methods`; empty where nobody knows."""
        return "" if self.conditions is None else self.conditions.method

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a reader of this table's figures must know, a line each; often none."""
        found = []
        if not self.calibrated and self.method == ALONE:
            found.append(
                "measured alone and not calibrated: biased, sums of entries are off from whole "
                "networks by 7 to 12 % on average, in either direction"
            )
        elif not self.calibrated:
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
        if self.n_interpolated:
            found.append(
                f"interpolated: {self.n_interpolated} of {len(self.entries)} entries were not "
                "measured but lie between measured ones"
            )
            found += [error.summary for error in self.interpolation.errors if error.is_total]
        return tuple(found)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What goes with this table wherever its figures go, a line each.

        How its ops were measured where that is not inside whole networks, caveats, how much was
        suspicious in its visits, and its last validation.
        """
        validated = "not validated: no network was measured that it was not made from"
        if self.validation is not None:
            validated = self.validation.summary
        method = [REMARKS[self.method]] if self.method in REMARKS else []
        return (*method, *self.caveats, *self._suspicious, validated)

    @property
    def _suspicious(self) -> tuple[str, ...]:
        found = self.conditions
        if found is None or not found.n_suspicions:
            return ()
        counts = found.n_suspicions, found.n_suspicions_revisited, found.n_suspicions_open
        return (f"suspicious in its visits: {suspicions_in_words(*counts)}",)

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

    # -- interpolation ---------------------------------------------------------------------

    @cached_property
    def n_interpolated(self) -> int:
        """Entries that were not measured."""
        return sum(entry.kind == INTERPOLATED for entry in self.entries)

    @cached_property
    def interpolation(self) -> Interpolation:
        """What could be interpolated between the measured entries, and how far that errs."""
        return Interpolation(self.entries, self.interpolation_check)

    def interpolated(self, wanted: SearchSpace | Iterable[OpSpec]) -> LookupTable:
        """This table with an interpolated entry for every op that lies between measured ones.

        Predictions of the table count them as interpolated milliseconds, and their intervals
        contain the error of interpolating. Ops beyond the measured range stay unknown.

        Args:
            wanted: a space, or ops; those that have an entry are passed over.

        Raises:
            SpaceMismatchError: the table belongs to another space.
        """
        ops: Iterable[OpSpec]
        if isinstance(wanted, SearchSpace):
            self._require_own(wanted)
            ops = wanted.slot_entries.ops
        else:
            ops = dict.fromkeys(wanted)
        found = [self.interpolation.entry(op) for op in ops if op not in self.by_op]
        added = tuple(entry for entry in found if entry is not None)
        return replace(self, entries=self.entries + added) if added else self

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
        `1 - UNCALIBRATED_BIAS`, plus that noise. Sums of ops measured alone are biased in either
        direction, and the interval reaches as far below the sum.

        With `allow_estimates`, an op without an entry gets the figure of
        `latlas_latency.estimation`, which is counted in `estimated_ms` and named in `missing`.
        """
        require_level(level)
        if isinstance(subjects, ArchBatch):
            self._require_own(subjects.space)
            known = self._figures_of_space(subjects.space)
            indices: NDArray[np.integer] = subjects.space.entry_indices(subjects)
        else:
            ops, indices = network_indices(subjects)
            known = self._figures(ops)
        figures, missing = self._complete(known, indices, allow_estimates)
        sums = figures.sums_ms(indices)
        squares = np.maximum(sums, 1e-12) ** 2
        noise = figures.sum_variances(indices) / squares
        shared = figures.shared_variances(indices) / squares
        if self.calibration is None:
            slope, mean = 1.0, sums
            margin = NormalDist().inv_cdf((1 + level) / 2) * np.sqrt(noise + shared) * sums
            lower, upper = sums - margin, sums / (1 - UNCALIBRATED_BIAS) + margin
            if self.method == ALONE:
                lower = (1 - UNCALIBRATED_BIAS) * sums - margin
        else:
            fit = self.calibration.fit
            slope, mean = fit.slope, fit.mean(sums)
            extra = np.maximum(noise - self.calibration.entry_noise**2, 0)
            extra += shared + self.calibration.session_error**2
            half_width = fit.half_width(sums, level, extra)
            lower, upper = mean - half_width, mean + half_width
        interpolated = slope * figures.sums_ms(indices, figures.interpolated)
        estimated = slope * figures.sums_ms(indices, figures.estimated)
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
        self._require_own(space)
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
        figures, indices = self._figures_of_networks(networks)
        return figures.sums_ms(indices)

    def entry_noise(self, networks: Sequence[Network]) -> NDArray[np.float64]:
        """Relative standard deviation of `entry_sums_ms` from the noise of the entries, `(n,)`."""
        figures, indices = self._figures_of_networks(networks)
        noise_ms = np.sqrt(figures.sum_variances(indices))
        return np.asarray(noise_ms / figures.sums_ms(indices), dtype=np.float64)

    def _figures_of_networks(
        self, networks: Sequence[Network]
    ) -> tuple[OpFigures, NDArray[np.int64]]:
        ops, indices = network_indices(networks)
        figures, _ = self._complete(self._figures(ops), indices, allow_estimates=False)
        return figures, indices

    def _require_own(self, space: SearchSpace) -> None:
        if self.space is not None:
            self.space.require(space, f"the table of target {self.target.name!r}")

    @cached_property
    def _relative_errors(self) -> dict[OpSpec, float]:
        return relative_errors(self.entries)

    def _complete(
        self, known: OpFigures, indices: NDArray[np.integer], allow_estimates: bool
    ) -> tuple[OpFigures, tuple[OpSpec, ...]]:
        """Figures with estimates where allowed, and the ops in `indices` that have no entry."""
        absent = known.absent(indices)
        missing = tuple(known.ops[index] for index in absent.tolist())
        if not missing:
            return known, ()
        if not allow_estimates:
            raise self._unknown(missing)
        return known.with_estimates(absent, self.entries), missing

    def _figures(self, ops: Sequence[OpSpec]) -> OpFigures:
        return OpFigures.of(ops, self.by_op, self._relative_errors)

    def _figures_of_space(self, space: SearchSpace) -> OpFigures:
        """Figures of a space's distinct ops; a search asks for them over and over."""
        if space not in self._figures_by_space:
            self._figures_by_space[space] = self._figures(space.slot_entries.ops)
        return self._figures_by_space[space]

    @cached_property
    def _figures_by_space(self) -> WeakKeyDictionary[SearchSpace, OpFigures]:
        return WeakKeyDictionary()

    def _unknown(self, ops: Sequence[OpSpec]) -> UnknownOpError:
        named = "; ".join(str(op) for op in ops[:_NAMED_OPS])
        more = f" and {len(ops) - _NAMED_OPS} more" if len(ops) > _NAMED_OPS else ""
        between = sum(map(self.interpolation.reaches, ops))
        way_out = f"; {between} of them can be interpolated, see --interpolate" if between else ""
        return UnknownOpError(
            f"the table of target {self.target.name!r} has no entry for {len(ops)} op(s): "
            f"{named}{more}; profile networks that contain them, or allow estimates{way_out}"
        )
