"""Tables held against networks that they were not made from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from latlas_coordinator.domain import (
    TABLE,
    CampaignState,
    LatencyModelRecord,
    Role,
    Task,
    ValidationPlan,
)
from latlas_coordinator.handlers.measurements import read_observations
from latlas_coordinator.handlers.model_sources import VALIDATION_LEVEL
from latlas_coordinator.storage import Store
from latlas_latency.baselines import device_time_ns, line_baselines, mlp_baseline
from latlas_latency.comparison import validate
from latlas_latency.formats import dump_latency_model, load_latency_model
from latlas_latency.measurement import PLAIN
from latlas_latency.observations import Observation
from latlas_latency.revalidation import Revalidation, revalidate
from latlas_latency.table import LookupTable
from latlas_ops.errors import ConflictError, InvalidInputError
from latlas_ops.spaces import get_space

_UNSEEN = {Role.VALIDATION: "random networks", Role.SELECTED: "networks found by search"}
_TABLE_ROLES = (Role.COVER, Role.CHAIN, Role.ALONE, Role.CALIBRATION)
_SOURCE_ROLES = (*_TABLE_ROLES, Role.TRAINING)


def validate_table(store: Store, name: str, campaign: str) -> LatencyModelRecord:
    """Judges a table by a validation campaign and keeps the result with it.

    Baselines are fitted on what the table's own campaign has measured: straight lines on the whole
    networks that calibrated it, an MLP on as many of its training networks as fit into the time
    that the device spent on the table. The judging campaign's spread networks calibrate the table
    for their session and scale the baselines; without them everything is judged as it was before.

    Raises:
        NotFoundError: no such table or campaign.
        InvalidInputError: the campaign was started to judge another table, still runs, or has
            measured no network that the table was not made from.
        TargetMismatchError: the campaign was measured on another target; the field is named.
        ConflictError: the table was built anew meanwhile.
    """
    case = _Case.of(store, name, campaign)
    found = case.observations(_UNSEEN)
    if not found:
        raise InvalidInputError(
            f"campaign {campaign!r} has measured no network that table {name!r} was not made from"
        )
    unseen = [observation for _, observation in found]
    parts = {
        text: [index for index, (task, _) in enumerate(found) if task.role is role]
        for role, text in _UNSEEN.items()
    }
    source = case.source_observations()
    whole = [seen for seen in source[Role.COVER] if seen.mode == PLAIN] + source[Role.CALIBRATION]
    table_ns = device_time_ns([seen for role in _TABLE_ROLES for seen in source[role]])
    alone = [observation for _, observation in case.observations([Role.ALONE])]
    anchors = [observation for _, observation in case.observations([Role.CALIBRATION])]
    space = get_space(case.record.space)
    baselines = line_baselines(whole, alone, unseen, anchors) | mlp_baseline(
        source[Role.TRAINING],
        unseen,
        anchors,
        space,
        case.table.target,
        device_ns=table_ns,
        seed=case.plan.seed,
    )
    validation = validate(
        case.table,
        unseen,
        space,
        level=VALIDATION_LEVEL,
        anchors=anchors,
        parts=parts,
        baselines=baselines,
    )
    if store.get_latency_model(name).created_ns != case.record.created_ns:
        raise ConflictError(f"table {name!r} was built anew meanwhile: validate it again")
    record = replace(case.record, validation=validation)
    store.put_latency_model(record, dump_latency_model(case.table.with_validation(validation)))
    return record


def revalidate_table(store: Store, name: str, campaign: str) -> Revalidation:
    """Says from a few networks whether a table still holds; see `revalidate`.

    Raises:
        NotFoundError: no such table or campaign.
        InvalidInputError: the campaign was started to judge another table, still runs, or has
            measured too few networks.
    """
    case = _Case.of(store, name, campaign)
    spread = [observation for _, observation in case.observations([Role.CALIBRATION])]
    target = store.get_target(store.get_campaign(campaign).campaign.target)
    before, now = case.table.target.conditions(), target.conditions()
    changed = [field for field in before if before[field] != now[field]]
    return revalidate(case.table, spread, changed=changed)


@dataclass(frozen=True)
class _Case:
    """A table and the campaign that judges it."""

    store: Store
    campaign: str
    plan: ValidationPlan
    record: LatencyModelRecord
    table: LookupTable

    @classmethod
    def of(cls, store: Store, name: str, campaign: str) -> _Case:
        record = store.get_latency_model(name)
        status = store.get_campaign(campaign)
        plan = status.campaign.plan
        if not isinstance(plan, ValidationPlan) or plan.table != name:
            raise InvalidInputError(
                f"campaign {campaign!r} was not started to judge table {name!r}; see "
                "`latlas table validate`"
            )
        if status.campaign.state is CampaignState.RUNNING:
            raise InvalidInputError(
                f"campaign {campaign!r} still runs ({status.n_visits_done} of "
                f"{status.n_visits_wanted} visits): wait for its end, or cancel it to use what it "
                "has"
            )
        table = load_latency_model(store.read_latency_model(name))
        if record.kind != TABLE or not isinstance(table, LookupTable):
            raise InvalidInputError(f"{name!r} is not a table but a predictor ({record.kind})")
        return cls(store, campaign, plan, record, table)

    def observations(self, roles: Collection[Role]) -> list[tuple[Task, Observation]]:
        """What the judging campaign has measured."""
        return read_observations(self.store, self.campaign, roles)

    def source_observations(self) -> dict[Role, list[Observation]]:
        """What the table was made from, and training networks beside it; none if imported."""
        found: dict[Role, list[Observation]] = {role: [] for role in _SOURCE_ROLES}
        if self.record.campaign:
            for task, observation in read_observations(
                self.store, self.record.campaign, _SOURCE_ROLES
            ):
                found[task.role].append(observation)
        return found
