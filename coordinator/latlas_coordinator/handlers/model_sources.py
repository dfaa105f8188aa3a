"""Campaigns that latency models are made from: what they have measured, and the table of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypedDict

from latlas_coordinator.domain import Campaign, CampaignState, ProfilePlan, Role, check_name
from latlas_coordinator.handlers.measurements import read_observations
from latlas_coordinator.planning import covered_choices
from latlas_coordinator.storage import Store
from latlas_latency.comparison import validate
from latlas_latency.measurement import PROFILED, Target
from latlas_latency.methods import ALONE, CHAINED, IN_SITU
from latlas_latency.model import LatencyModel
from latlas_latency.observations import Observation
from latlas_latency.partial import answers, with_interpolation_check
from latlas_latency.plain_building import build_alone_table, build_chained_table
from latlas_latency.table import LookupTable
from latlas_latency.table_building import build_table as build_in_situ_table
from latlas_latency.validation import Validation
from latlas_ops.errors import InvalidInputError, SpaceMismatchError
from latlas_ops.space import SearchSpace
from latlas_ops.spaces import get_space

VALIDATION_LEVEL = 0.9
"""Coverage that intervals promise when a model is validated."""

_SOURCES = {
    IN_SITU: (Role.COVER, "cover network"),
    CHAINED: (Role.CHAIN, "chain of ops"),
    ALONE: (Role.ALONE, "op alone"),
}
"""What entries come from, by method of a campaign."""


@dataclass(frozen=True, eq=False)
class Tabulated:
    """A table with what it was made from.

    Attributes:
        table: the table.
        sources: the programs that its entries come from.
        sitting: everything whose common drift was taken out of it, `sources` among them.
    """

    table: LookupTable
    sources: tuple[Observation, ...]
    sitting: tuple[Observation, ...]


class _Whole(TypedDict):
    """What every method takes beside the measurements of ops."""

    plain: Sequence[Observation]
    calibration: Sequence[Observation]
    target: Target
    space: SearchSpace


@dataclass(frozen=True)
class ModelSource:
    """A campaign that a model is made from."""

    store: Store
    campaign: Campaign
    space: SearchSpace
    target: Target

    @classmethod
    def of(cls, store: Store, name: str, campaign: str) -> ModelSource:
        """Checks the name of the model and that the campaign can give one."""
        check_name("latency model", name)
        status = store.get_campaign(campaign)
        if not status.campaign.space:
            raise InvalidInputError(
                f"campaign {campaign!r} measures programs; a latency model is made from one that "
                "profiles a space"
            )
        if status.campaign.state is CampaignState.RUNNING:
            raise InvalidInputError(
                f"campaign {campaign!r} still runs ({status.n_visits_done} of "
                f"{status.n_visits_wanted} visits): wait for its end, or cancel it to use what it "
                "has"
            )
        target = store.get_target(status.campaign.target)
        return cls(store, status.campaign, space_of(store, status.campaign), target)

    def observations(self, roles: Collection[Role]) -> list[Observation]:
        """What tasks of these roles have measured."""
        found = read_observations(self.store, self.campaign.name, roles)
        return [observation for _, observation in found]

    def table(self) -> Tabulated:
        """The table of everything that it has measured; raises as `latency_models.build_table`."""
        plan = self.campaign.plan
        method = plan.method if isinstance(plan, ProfilePlan) else IN_SITU
        role, words = _SOURCES[method]
        by_role: dict[Role, list[Observation]] = {role: [], Role.COVER: [], Role.CALIBRATION: []}
        for task, seen in read_observations(self.store, self.campaign.name, tuple(by_role)):
            by_role[task.role].append(seen)
        sources = by_role[role]
        if method == IN_SITU:
            sources = [seen for seen in sources if seen.mode == PROFILED]
        if not sources:
            raise InvalidInputError(
                f"campaign {self.campaign.name!r} has measured no {words}: start it anew"
            )
        calibration, beyond = self._split(by_role[Role.CALIBRATION])
        whole = _Whole(
            plain=[seen for seen in by_role[Role.COVER] if seen.mode != PROFILED],
            calibration=calibration,
            target=self.target,
            space=self.space,
        )
        if method == CHAINED:
            table = build_chained_table(chains=sources, **whole)
        elif method == ALONE:
            table = build_alone_table(alone=sources, **whole)
        else:
            table = build_in_situ_table(profiled=sources, **whole)
        sitting = (*sources, *whole["plain"], *calibration)
        if beyond:
            table = with_interpolation_check(table, beyond, sitting)
        return Tabulated(table, tuple(sources), sitting)

    def _split(
        self, calibration: Sequence[Observation]
    ) -> tuple[list[Observation], list[Observation]]:
        """Calibration networks: of the resolutions of the cover networks, and of others."""
        covered = covered_choices(self.space, self._resolutions)
        parts: tuple[list[Observation], list[Observation]] = [], []
        for seen in calibration:
            assert seen.arch is not None
            genes = seen.arch.genes
            inside = all(genes[gene] in choices for gene, choices in covered.items())
            parts[not inside].append(seen)
        return parts

    @property
    def _resolutions(self) -> tuple[int, ...]:
        """Resolutions of the cover networks; empty for all of the space."""
        plan = self.campaign.plan
        return plan.resolutions if isinstance(plan, ProfilePlan) else ()

    def validate(self, model: LatencyModel) -> Validation | None:
        """Errors on the campaign's validation networks; None if it has none.

        Of a table of some resolutions only, on those networks that it can answer for.
        """
        unseen = self.observations([Role.VALIDATION])
        if self._resolutions and isinstance(model, LookupTable):
            unseen = [seen for seen in unseen if answers(model, seen.network)]
        return validate(model, unseen, self.space, level=VALIDATION_LEVEL) if unseen else None


def provisional_table(store: Store, campaign: Campaign) -> Tabulated:
    """The table of what a profile campaign has measured so far, running or not; it is not kept.

    Raises: as `latency_models.build_table`.
    """
    target = store.get_target(campaign.target)
    return ModelSource(store, campaign, space_of(store, campaign), target).table()


def space_of(store: Store, campaign: Campaign) -> SearchSpace:
    """The space that a campaign profiled.

    Raises:
        NotFoundError: it is not there any more.
        SpaceMismatchError: it is there in another version.
    """
    space = get_space(campaign.space)
    for progress in store.list_tasks(campaign.name):
        arch = progress.task.arch
        if arch is not None and arch.version != space.version:
            raise SpaceMismatchError(
                f"campaign {campaign.name!r} profiled version {arch.version} of the space "
                f"{space.name!r}, and version {space.version} is there now: start a campaign anew"
            )
    return space
