"""Starting campaigns: a plan becomes programs and tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from latlas_coordinator.domain import (
    Campaign,
    CampaignStatus,
    MeasurePlan,
    Plan,
    ProfilePlan,
    ProgramOrigin,
    ProgramRecord,
    Role,
    Sampling,
    Task,
    ValidationPlan,
)
from latlas_coordinator.planning import PlannedNetwork, plan_profile, plan_validation
from latlas_coordinator.storage import Store
from latlas_latency.formats import load_latency_model
from latlas_latency.measurement import PLAIN, PROFILED, Target
from latlas_latency.table import LookupTable
from latlas_ops.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RuntimeUnavailableError,
)
from latlas_ops.network import Network
from latlas_ops.space import ArchConfig, SearchSpace
from latlas_ops.spaces import get_space
from latlas_ops.writers.onnx_writer import write_onnx

WRITTEN_FORMAT = "onnx"
"""Format of the programs that the coordinator writes."""

_WEIGHT_SEED = 0
_ORDER_STREAM = 100
_MAX_PROGRAM_BYTES = 1 << 30


@dataclass(frozen=True)
class CampaignDefinition:
    """What the user chose; fields as in `Campaign`."""

    name: str
    target: str
    plan: Plan
    sampling: Sampling


def start_campaign(store: Store, definition: CampaignDefinition, now_ns: int) -> CampaignStatus:
    """Starts a campaign, or returns the one that was started by the same definition.

    Programs are written and kept first, then the campaign with all of its tasks at once: what is
    cut short leaves no half campaign behind.

    Raises:
        ConflictError: the name stands for another definition; the message names the field.
        NotFoundError: no such target, space, table or program.
        InvalidInputError: a value is out of range, or the space too small for the plan.
        RuntimeUnavailableError: the target's runtime cannot run such a campaign.
        TargetMismatchError: a table cannot be validated on another target than its own.
    """
    plan = definition.plan
    if isinstance(plan, ValidationPlan):
        plan = replace(plan, space=_space_of_table(store, plan.table))
    campaign = Campaign(definition.name, definition.target, plan, definition.sampling, now_ns)
    there = _find(store, campaign.name)
    if there is not None:
        return _require_same(there, campaign)
    target = store.get_target(campaign.target)
    if isinstance(plan, ProfilePlan):
        tasks = list(_profile_tasks(store, campaign, plan, target))
    elif isinstance(plan, ValidationPlan):
        tasks = list(_validation_tasks(store, campaign, plan, target))
    else:
        tasks = _measure_tasks(store, campaign, plan)
    try:
        store.create_campaign(campaign, tasks)
    except ConflictError:
        # Somebody else started it while its programs were written.
        return _require_same(store.get_campaign(campaign.name), campaign)
    return store.get_campaign(campaign.name)


def keep_program(store: Store, program_format: str, data: bytes) -> str:
    """Keeps an uploaded program, which is never parsed, and returns its SHA-256.

    Raises:
        InvalidInputError: it is empty, too large, or its format is not named.
        ConflictError: it is there in another format.
    """
    if not program_format:
        raise InvalidInputError("a program needs a format, for example onnx")
    if not data:
        raise InvalidInputError("an empty program cannot be measured")
    require_program_size(len(data))
    sha256 = hashlib.sha256(data).hexdigest()
    store.put_program(
        ProgramRecord(sha256, program_format, len(data), ProgramOrigin.UPLOADED), data
    )
    return sha256


def require_program_size(n_bytes: int) -> None:
    """Raises `InvalidInputError` if a program is too large to be kept."""
    if n_bytes > _MAX_PROGRAM_BYTES:
        raise InvalidInputError(
            f"a program may have up to {_MAX_PROGRAM_BYTES} bytes, this one has more"
        )


def _find(store: Store, name: str) -> CampaignStatus | None:
    try:
        return store.get_campaign(name)
    except NotFoundError:
        return None


def _require_same(there: CampaignStatus, wanted: Campaign) -> CampaignStatus:
    old, new = there.campaign.definition(), wanted.definition()
    for field in [*old, *(field for field in new if field not in old)]:
        if old.get(field) != new.get(field):
            raise ConflictError(
                f"campaign {wanted.name!r} is there with {field} {old.get(field)!r}, not "
                f"{new.get(field)!r}: choose another name"
            )
    return there


def _space_of_table(store: Store, table: str) -> str:
    record = store.get_latency_model(table)
    if record.kind != "table":
        raise InvalidInputError(f"{table!r} is not a table but a predictor ({record.kind})")
    if not record.space:
        raise InvalidInputError(
            f"table {table!r} belongs to no search space, so that no network of it can be drawn"
        )
    return record.space


def _profile_tasks(
    store: Store, campaign: Campaign, plan: ProfilePlan, target: Target
) -> Iterator[Task]:
    """The tasks of a profile campaign; see `_network_tasks`."""
    space = get_space(plan.space)
    _require_profiler(store, target)
    return _network_tasks(store, campaign, space, plan_profile(space, plan), plan.seed, target)


def _validation_tasks(
    store: Store, campaign: Campaign, plan: ValidationPlan, target: Target
) -> Iterator[Task]:
    """The tasks of a validation campaign; see `_network_tasks`."""
    space = get_space(plan.space)
    table = load_latency_model(store.read_latency_model(plan.table))
    assert isinstance(table, LookupTable)
    if plan.n_random_networks or plan.n_selected_networks:
        # Only networks that are spread may ask whether a table holds on another target.
        table.target.require_same(target)
    source = store.get_latency_model(plan.table).campaign
    seen = [progress.task.arch for progress in store.list_tasks(source)] if source else []
    networks = plan_validation(space, plan, table, [arch for arch in seen if arch is not None])
    alone = space.slot_entries.ops if plan.stand_alone else ()
    singles = [Network.chain([op]) for op in alone]
    return _network_tasks(store, campaign, space, networks, plan.seed, target, singles)


def _network_tasks(
    store: Store,
    campaign: Campaign,
    space: SearchSpace,
    planned: Sequence[PlannedNetwork],
    seed: int,
    target: Target,
    alone: Iterable[Network] = (),
) -> Iterator[Task]:
    """Writes programs and yields their tasks, networks in random order.

    The order mixes roles, so that no role gets a stretch of time for itself where a campaign is
    measured in several leases; a cover network is measured with and without node times in a row.
    """
    wanted: list[tuple[Role, ArchConfig | None, Network]] = [
        (one.role, one.arch, space.network(one.arch)) for one in planned
    ]
    wanted += [(Role.ALONE, None, network) for network in alone]
    numbers = dict.fromkeys(Role, 0)
    labels = []
    for role, _, _ in wanted:
        labels.append(f"{role.value} {numbers[role]}")
        numbers[role] += 1
    order = np.random.default_rng([seed, _ORDER_STREAM]).permutation(len(wanted)).tolist()
    n_tasks = 0
    for index in order:
        role, arch, network = wanted[index]
        sha256 = _write_program(store, network, target.batch)
        for mode in (PROFILED, PLAIN) if role is Role.COVER else (PLAIN,):
            yield Task(
                task_id=f"{campaign.name}:{n_tasks}",
                campaign=campaign.name,
                target=campaign.target,
                program_sha256=sha256,
                mode=mode,
                role=role,
                label=labels[index],
                sampling=campaign.sampling,
                arch=arch,
            )
            n_tasks += 1


def _write_program(store: Store, network: Network, batch: int) -> str:
    """Keeps the program of a network; weights are random but equal for equal networks."""
    program = write_onnx(network, batch=batch, seed=_WEIGHT_SEED)
    sha256 = hashlib.sha256(program.model_bytes).hexdigest()
    store.put_program(
        ProgramRecord(
            sha256=sha256,
            format=WRITTEN_FORMAT,
            n_bytes=len(program.model_bytes),
            origin=ProgramOrigin.WRITTEN,
            network_json=network.to_json(),
            tensor_positions=program.tensor_positions,
        ),
        program.model_bytes,
    )
    return sha256


def _require_profiler(store: Store, target: Target) -> None:
    """Refuses a target whose runtime, as far as connected devices tell, cannot be profiled."""
    for record in store.list_devices():
        if not record.connected:
            continue
        try:
            capability = record.device.require_capable(target)
        except RuntimeUnavailableError:
            continue
        if not capability.per_node_times:
            raise RuntimeUnavailableError(
                f"target {target.name!r} cannot be profiled: {target.runtime} does not time "
                "single nodes; choose a target whose runtime does, such as onnxruntime"
            )
        if WRITTEN_FORMAT not in capability.program_formats:
            raise RuntimeUnavailableError(
                f"target {target.name!r} cannot be profiled: {target.runtime} loads "
                f"{', '.join(capability.program_formats)}, programs are written as {WRITTEN_FORMAT}"
            )


def _measure_tasks(store: Store, campaign: Campaign, plan: MeasurePlan) -> list[Task]:
    store.get_programs([program.sha256 for program in plan.programs])
    return [
        Task(
            task_id=f"{campaign.name}:{number}",
            campaign=campaign.name,
            target=campaign.target,
            program_sha256=program.sha256,
            mode=PLAIN,
            role=Role.MEASURED,
            label=program.label or program.sha256[:12],
            sampling=campaign.sampling,
        )
        for number, program in enumerate(plan.programs)
    ]
