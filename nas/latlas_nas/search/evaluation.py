"""Scoring architectures under a constraint, each at most once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from latlas_latency.model import LatencyModel
from latlas_nas.search.pareto import pareto_front
from latlas_nas.search.result import Candidate, Constraint, SearchResult
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import ArchBatch, SearchSpace

AccuracyFunction = Callable[[ArchBatch], NDArray[np.float64]]
"""Accuracy of `n` architectures, `(n,)`; a predictor, or anything else to be maximised."""

_TOP = 20


class LatencyLimit:
    """A constraint together with the latency model that answers for it."""

    def __init__(
        self, model: LatencyModel, constraint: Constraint, allow_estimates: bool = False
    ) -> None:
        self.model, self.constraint = model, constraint
        self.allow_estimates = allow_estimates
        self.n_predicted = 0

    def latencies_ms(self, archs: ArchBatch) -> NDArray[np.float64]:
        """Mean, lower and upper latency, `(3, n_archs)`.

        Raises:
            UnknownOpError: an op has no figure and estimates are not allowed.
            InvalidInputError: the model answers with something that is no number.
        """
        self.n_predicted += len(archs)
        found = self.model.predict(
            archs, self.constraint.level, allow_estimates=self.allow_estimates
        )
        latencies = np.stack([found.mean_ms, found.lower_ms, found.upper_ms])
        if not np.isfinite(latencies).all():
            raise InvalidInputError(
                f"the latency model of target {self.model.target.name!r} gives latencies that are "
                "not finite"
            )
        return latencies

    def held(self, latencies_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """The row of `latencies_ms` that is held against the limit."""
        mean, _, upper = latencies_ms
        held: NDArray[np.float64] = upper if self.constraint.bound == "upper" else mean
        return held

    def held_ms(self, archs: ArchBatch) -> NDArray[np.float64]:
        """What is held against the limit, `(n_archs,)`."""
        return self.held(self.latencies_ms(archs))


class Archive:
    """Every architecture that a search has scored; all keep the constraint, all are distinct.

    Attributes:
        genes: `(n, n_genes)` int8.
        accuracy: `(n,)`.
        latencies_ms: `(3, n)`: mean, lower, upper.
    """

    def __init__(
        self, space: SearchSpace, accuracy_fn: AccuracyFunction, limit: LatencyLimit
    ) -> None:
        self._space, self._accuracy_fn, self._limit = space, accuracy_fn, limit
        self._seen: set[bytes] = set()
        self.genes = np.empty((0, len(space.genes)), np.int8)
        self.accuracy = np.empty(0)
        self.latencies_ms = np.empty((3, 0))

    def __len__(self) -> int:
        return len(self.genes)

    def add(self, archs: ArchBatch, at_most: int | None = None) -> ArchBatch:
        """Scores those that are new and keep the constraint; gives back the new ones that do not.

        Args:
            archs: canonical architectures, repeats allowed.
            at_most: how many to score; the rest stay unknown.
        """
        fresh = self._unseen(archs.genes)
        latencies = self._limit.latencies_ms(ArchBatch(self._space, fresh))
        keeps = self._limit.held(latencies) <= self._limit.constraint.max_latency_ms
        chosen = np.flatnonzero(keeps)[:at_most]
        genes = fresh[chosen]
        self._seen.update(row.tobytes() for row in genes)
        accuracy = self._score(ArchBatch(self._space, genes))
        self.genes = np.concatenate([self.genes, genes])
        self.accuracy = np.concatenate([self.accuracy, accuracy])
        self.latencies_ms = np.concatenate([self.latencies_ms, latencies[:, chosen]], axis=1)
        return ArchBatch(self._space, fresh[~keeps])

    def ranking(self) -> NDArray[np.intp]:
        """Indices, most accurate first; of equals the faster one first."""
        return np.lexsort((self.latencies_ms[0], -self.accuracy))

    def result(self, method: str, history: list[float]) -> SearchResult:
        """The search's answer; there must be at least one scored architecture."""
        front = pareto_front(self.latencies_ms[0], self.accuracy)
        return SearchResult(
            method,
            self._limit.model.target.name,
            self._limit.constraint,
            self._candidates(self.ranking()[:_TOP]),
            self._candidates(front),
            tuple(history),
            len(self),
            self._limit.n_predicted,
        )

    def _unseen(self, genes: NDArray[np.int8]) -> NDArray[np.int8]:
        """Rows that were not scored before, each once, in the order of their first occurrence."""
        rows: dict[bytes, int] = {}
        for index, row in enumerate(genes):
            key = row.tobytes()
            if key not in self._seen:
                rows.setdefault(key, index)
        return genes[list(rows.values())]

    def _score(self, archs: ArchBatch) -> NDArray[np.float64]:
        if not len(archs):
            return np.empty(0)
        accuracy = np.asarray(self._accuracy_fn(archs), dtype=np.float64)
        if accuracy.shape != (len(archs),) or not np.isfinite(accuracy).all():
            raise InvalidInputError(
                f"the accuracy function must give {len(archs)} finite numbers, it gave an array "
                f"{accuracy.shape}"
            )
        return accuracy

    def _candidates(self, indices: NDArray[np.intp]) -> tuple[Candidate, ...]:
        archs = self._space.archs(ArchBatch(self._space, self.genes[indices]))
        rows = zip(
            archs,
            self.accuracy[indices].tolist(),
            self.latencies_ms[:, indices].T.tolist(),
            strict=True,
        )
        return tuple(Candidate(arch, accuracy, *latency) for arch, accuracy, latency in rows)
