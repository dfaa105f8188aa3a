"""What a lookup table knows of some ops, as arrays that whole batches of networks gather from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from latlas_latency.entries import INTERPOLATED, TableEntry
from latlas_latency.estimation import estimate
from latlas_ops.network import Network
from latlas_ops.opspec import OpSpec


@dataclass(frozen=True, eq=False)
class OpFigures:
    """What is known per op, `(n_ops + 1,)` each; the last row, reached by -1, is an empty slot.

    Attributes:
        ops: the ops.
        means_ms: latency before calibration, 0 where it is not known.
        variances: of the error that an op has of its own, in ms².
        shared_ms: standard error that interpolated ops have in common, in ms.
        known: whether there is an entry.
        interpolated: whether the entry is interpolated.
        estimated: whether there is an estimate in place of an entry.
    """

    ops: Sequence[OpSpec]
    means_ms: NDArray[np.float64]
    variances: NDArray[np.float64]
    shared_ms: NDArray[np.float64]
    known: NDArray[np.bool_]
    interpolated: NDArray[np.bool_]
    estimated: NDArray[np.bool_]

    @classmethod
    def of(
        cls,
        ops: Sequence[OpSpec],
        by_op: Mapping[OpSpec, TableEntry],
        errors: Mapping[OpSpec, float],
    ) -> OpFigures:
        """The figures of `ops` as far as there are entries.

        Args:
            ops: the ops.
            by_op: entries.
            errors: relative standard error of each entry; see `entries.relative_errors`.
        """
        size = len(ops) + 1
        means, variances, shared = np.zeros(size), np.zeros(size), np.zeros(size)
        known, interpolated = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        for index, op in enumerate(ops):
            entry = by_op.get(op)
            if entry is not None:
                known[index] = True
                means[index] = entry.mean_ms
                variances[index] = (errors[op] * entry.mean_ms) ** 2
                shared[index] = entry.shared_error * entry.mean_ms
                interpolated[index] = entry.kind == INTERPOLATED
        estimated = np.zeros(size, dtype=bool)
        return cls(ops, means, variances, shared, known, interpolated, estimated)

    def absent(self, indices: NDArray[np.integer]) -> NDArray[np.intp]:
        """Which ops occur in `indices` (any shape, -1 for none) without a figure, rising."""
        occurs = np.zeros(len(self.means_ms), dtype=bool)
        occurs[indices.ravel()] = True
        return np.flatnonzero(occurs[:-1] & ~self.known[:-1])

    def with_estimates(self, absent: NDArray[np.intp], entries: Iterable[TableEntry]) -> OpFigures:
        """These figures with an estimate for each op in `absent`, by what `entries` cost."""
        means, variances = self.means_ms.copy(), self.variances.copy()
        estimated = self.estimated.copy()
        known_ms = {entry.op: entry.mean_ms for entry in entries}
        for index in absent.tolist():
            guess = estimate(self.ops[index], known_ms)
            means[index] = guess.mean_ms
            variances[index] = (guess.mean_ms * guess.relative_error) ** 2
            estimated[index] = True
        return replace(self, means_ms=means, variances=variances, estimated=estimated)

    def sums_ms(
        self, indices: NDArray[np.integer], where: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Sums of means over the ops of each row of `indices`, `(n,)`; only of those in `where`."""
        means = self.means_ms
        if where is not None:
            if not where.any():
                return np.zeros(len(indices))
            means = np.where(where, means, 0.0)
        return np.asarray(means[indices].sum(axis=1), dtype=np.float64)

    def sum_variances(self, indices: NDArray[np.integer]) -> NDArray[np.float64]:
        """Variances of `sums_ms` from the errors that ops have of their own, in ms², `(n,)`."""
        return np.asarray(self.variances[indices].sum(axis=1), dtype=np.float64)

    def shared_variances(self, indices: NDArray[np.integer]) -> NDArray[np.float64]:
        """Variances of `sums_ms` from what interpolated ops have in common, in ms², `(n,)`."""
        if not self.interpolated.any():
            return np.zeros(len(indices))
        return np.asarray(self.shared_ms[indices].sum(axis=1) ** 2, dtype=np.float64)


def network_indices(
    networks: Iterable[Network],
) -> tuple[tuple[OpSpec, ...], NDArray[np.int64]]:
    """Distinct ops of networks, and per network the indices of its ops, filled up with -1."""
    index_of: dict[OpSpec, int] = {}
    rows = [[index_of.setdefault(op, len(index_of)) for op in net.ops] for net in networks]
    indices = np.full((len(rows), max(map(len, rows), default=0)), -1, dtype=np.int64)
    for row, found in zip(indices, rows, strict=True):
        row[: len(found)] = found
    return tuple(index_of), indices
