"""Which networks a campaign measures. Pure: the same plan gives the same networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas_coordinator.covering import cover_networks
from latlas_coordinator.domain import ProfilePlan, Role, ValidationPlan
from latlas_coordinator.selecting import select_networks
from latlas_latency.calibration import LEAST_NETWORKS
from latlas_latency.model import LatencyModel
from latlas_ops.costs import space_costs
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import ArchBatch, ArchConfig, SearchSpace

_POOL_PER_NETWORK = 64
_LEAST_POOL = 1024
_MAX_TILT = 3.0
_MAX_BARREN_DRAWS = 20

_LEAST_COVER_NETWORKS = 8
"""From fewer networks the profiler's cost per node is not told from what the nodes take."""

_LEAST_PLAIN_COVERS = 36
_PLAIN_SHARE = 1 / 3
"""Covers without node times tell what the profiler adds per node and what surroundings cost: a few
unknowns, for which a third of the covers of a large space does as well as all of them."""

_Draw = Callable[[int], ArchBatch]


@dataclass(frozen=True)
class PlannedNetwork:
    """An architecture and what its visits are for.

    Attributes:
        role: what for.
        arch: the architecture.
        plain: whether a cover network is measured without node times too.
    """

    role: Role
    arch: ArchConfig
    plain: bool = True


def plan_profile(space: SearchSpace, plan: ProfilePlan) -> list[PlannedNetwork]:
    """The networks of a profile campaign, in order of their roles.

    All architectures differ, except that a small space may need a cover network twice.

    - *Cover* networks hold every distinct op often enough; see `cover_networks`. Of many, a third
      is `plain` too, in even steps over the range of multiply-accumulates. Where the plan
      names resolutions, only theirs: the ops between can be interpolated. All other networks are
      of every resolution, so that calibration networks can say how well that goes.
    - *Calibration* networks span the range of multiply-accumulates in even steps on a logarithmic
      scale, both extremes of the space included: an affine correction that is fitted on the
      middle of the range alone errs at its ends.
    - *Validation* networks are drawn with every gene uniform, as "a random architecture" is
      usually meant.
    - *Training* networks are half drawn like that and half *tilted* (see `tilted_sample`). A
      search under a tight budget goes where uniform draws almost never fall, and there a
      predictor that has only seen uniform ones would extrapolate.

    Raises:
        InvalidInputError: the space is too small for so many different architectures, or has not
            the resolutions that the plan names.
    """
    # One stream per role, so that asking for more of one role leaves the others as they are.
    streams = [np.random.default_rng([plan.seed, number]) for number in range(4)]
    allowed = covered_choices(space, plan.resolutions)
    cover = space.archs(
        cover_networks(space, plan.min_occurrences, streams[0], allowed, _LEAST_COVER_NETWORKS)
    )
    chosen = _Chosen(space, cover, plain=_plain_covers(space, cover))
    for n_networks, where in _calibration_parts(space, plan):
        spread = _spread_archs(space, n_networks, chosen, streams[1], _macs, where)
        chosen.add(Role.CALIBRATION, spread)
    chosen.draw(Role.VALIDATION, plan.n_validation_networks, lambda n: space.sample(n, streams[2]))
    n_tilted = plan.n_training_networks // 2
    chosen.draw(Role.TRAINING, n_tilted, lambda n: tilted_sample(space, n, streams[3]))
    chosen.draw(
        Role.TRAINING, plan.n_training_networks - n_tilted, lambda n: space.sample(n, streams[3])
    )
    return chosen.networks


def covered_choices(space: SearchSpace, resolutions: Sequence[int]) -> dict[int, list[int]]:
    """The choice indices of the resolution gene that cover networks may have; empty for any.

    Raises:
        InvalidInputError: the space has not all of these resolutions.
    """
    if not resolutions:
        return {}
    gene = space.resolution_gene
    there = () if gene is None else space.genes[gene].choices
    unknown = [resolution for resolution in resolutions if resolution not in there]
    if gene is None or unknown:
        raise InvalidInputError(
            f"space {space.name!r} has no resolution {(unknown or resolutions)[0]}; it has "
            f"{', '.join(f'{choice:g}' for choice in there) or 'none to choose'}"
        )
    return {gene: [there.index(resolution) for resolution in resolutions]}


def _plain_covers(space: SearchSpace, cover: Sequence[ArchConfig]) -> set[int]:
    """Which of the cover networks are measured without node times too."""
    n_plain = min(len(cover), max(_LEAST_PLAIN_COVERS, math.ceil(_PLAIN_SHARE * len(cover))))
    return set(_evenly_spread(np.log(_macs(space.batch(cover))), n_plain).tolist())


def _calibration_parts(
    space: SearchSpace, plan: ProfilePlan
) -> list[tuple[int, dict[int, list[int]]]]:
    """Numbers of calibration networks, and the choices that they may have; empty for any.

    Where cover networks have some resolutions only, half of the calibration networks are of those,
    since the line from sums to networks needs measured sums, and half of the resolutions between.
    """
    wanted, covered = plan.n_calibration_networks, covered_choices(space, plan.resolutions)
    if not covered:
        return [(wanted, {})]
    ((gene, choices),) = covered.items()
    between = [index for index in range(choices[0], choices[-1]) if index not in choices]
    n_between = max(0, min(wanted // 2, wanted - LEAST_NETWORKS)) if between else 0
    return [(wanted - n_between, covered), (n_between, {gene: between})]


def plan_validation(
    space: SearchSpace, plan: ValidationPlan, table: LatencyModel, seen: Iterable[ArchConfig]
) -> list[PlannedNetwork]:
    """The networks of a validation campaign; none of them is among those already `seen`.

    - *Validation* networks are drawn with every gene uniform.
    - *Selected* networks are found by searches with the table itself: a search picks where a
      table errs low, so errors there are what its user will see; see `select_networks`.
    - *Calibration* networks are spread evenly over the range of predicted latency, on a
      logarithmic scale.

    Raises:
        InvalidInputError: the space is too small for so many different architectures.
        UnknownOpError: the table lacks an op of the space.
    """
    streams = [np.random.default_rng([plan.seed, number]) for number in range(3)]
    chosen = _Chosen(space, [], seen)
    chosen.draw(Role.VALIDATION, plan.n_random_networks, lambda n: space.sample(n, streams[0]))
    chosen.draw(
        Role.SELECTED,
        plan.n_selected_networks,
        lambda n: select_networks(space, table, n, streams[1]),
    )
    chosen.add(
        Role.CALIBRATION,
        _spread_archs(
            space,
            plan.n_spread_networks,
            chosen,
            streams[2],
            lambda batch: table.predict(batch).mean_ms,
        ),
    )
    return chosen.networks


def tilted_sample(space: SearchSpace, n_archs: int, rng: np.random.Generator) -> ArchBatch:
    """Architectures from small to large, `(n_archs, n_genes)`.

    Each architecture has a tilt `t`, uniform in [-3, 3], and each of its genes takes choice `k` of
    `n` with probability proportional to `exp(t * k / (n - 1) * 2)`: choices rise from small to
    large in every space, so a negative tilt makes small architectures and a positive one large
    ones, with all of their genes still random.
    """
    tilts = rng.uniform(-_MAX_TILT, _MAX_TILT, size=(n_archs, 1))
    columns = []
    for size in space.sizes.tolist():
        steps = np.arange(size) / max(size - 1, 1)
        probabilities = np.exp(tilts * steps * 2)
        cumulative = np.cumsum(probabilities, axis=1)
        draws = rng.uniform(size=(n_archs, 1)) * cumulative[:, -1:]
        columns.append((draws >= cumulative).sum(axis=1))
    return ArchBatch(space, space.canonical(np.stack(columns, axis=1)))


class _Chosen:
    """The networks chosen so far."""

    def __init__(
        self,
        space: SearchSpace,
        cover: list[ArchConfig],
        seen: Iterable[ArchConfig] = (),
        plain: Collection[int] = (),
    ) -> None:
        self._space = space
        self._taken = {*cover, *seen}
        self.networks = [
            PlannedNetwork(Role.COVER, arch, index in plain) for index, arch in enumerate(cover)
        ]

    def __contains__(self, arch: ArchConfig) -> bool:
        return arch in self._taken

    def add(self, role: Role, archs: list[ArchConfig]) -> None:
        """Adds architectures, those left out that are there already."""
        for arch in archs:
            if arch not in self._taken:
                self._taken.add(arch)
                self.networks.append(PlannedNetwork(role, arch))

    def draw(self, role: Role, n_networks: int, draw: _Draw) -> None:
        """Adds `n_networks` new architectures from `draw(n)`."""
        wanted = len(self.networks) + n_networks
        n_barren = 0
        while len(self.networks) < wanted:
            before = len(self.networks)
            n_missing = wanted - before
            self.add(role, self._space.archs(draw(n_missing)))
            n_barren = 0 if len(self.networks) > before else n_barren + 1
            if n_barren == _MAX_BARREN_DRAWS:
                raise _too_small(self._space, role)


def _spread_archs(
    space: SearchSpace,
    n_archs: int,
    chosen: _Chosen,
    rng: np.random.Generator,
    size: Callable[[ArchBatch], NDArray[Any]],
    where: Mapping[int, Sequence[int]] | None = None,
) -> list[ArchConfig]:
    """Architectures that are not chosen yet, in even steps of the log of `size`, smallest first.

    `where` names the choice indices that they may have, rising, for some genes without a parent.
    """
    if not n_archs:
        return []
    pool = tilted_sample(space, max(_LEAST_POOL, _POOL_PER_NETWORK * n_archs), rng)
    genes = np.concatenate([space.extremes().genes, pool.genes])
    for gene, choices in (where or {}).items():
        share = genes[:, gene] / max(len(space.genes[gene].choices) - 1, 1)
        genes[:, gene] = np.asarray(choices)[np.rint(share * (len(choices) - 1)).astype(np.intp)]
    _, first = np.unique(genes, axis=0, return_index=True)
    candidates = ArchBatch(space, genes[np.sort(first)])
    free = [index for index, arch in enumerate(space.archs(candidates)) if arch not in chosen]
    if len(free) < n_archs:
        raise _too_small(space, Role.CALIBRATION)
    candidates = ArchBatch(space, candidates.genes[free])
    picked = _evenly_spread(np.log(size(candidates)), n_archs)
    return space.archs(ArchBatch(space, candidates.genes[picked]))


def _macs(batch: ArchBatch) -> NDArray[np.int64]:
    return space_costs(batch).macs


def _evenly_spread(values: NDArray[np.float64], n_picked: int) -> NDArray[np.intp]:
    """Indices of `n_picked` different values, nearest to even steps over their range."""
    open_ = np.ones(len(values), dtype=bool)
    picked = []
    for goal in np.linspace(values.min(), values.max(), n_picked):
        distances = np.where(open_, np.abs(values - goal), np.inf)
        picked.append(int(distances.argmin()))
        open_[picked[-1]] = False
    return np.array(picked, dtype=np.intp)


def _too_small(space: SearchSpace, role: Role) -> InvalidInputError:
    return InvalidInputError(
        f"space {space.name!r} has {space.count().distinct} architectures, too few for the "
        f"{role.value} networks that the plan asks for; ask for fewer"
    )
