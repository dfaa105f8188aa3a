"""Starting campaigns: a plan becomes programs and tasks."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from latlas_coordinator.chaining import alone_programs, chain_programs
from latlas_coordinator.covering import covered_ops
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
from latlas_coordinator.planning import (
    PlannedNetwork,
    covered_choices,
    plan_profile,
    plan_validation,
)
from latlas_coordinator.storage import Store
from latlas_coordinator.writing import WITHOUT_NODE_TIMES, choose_format, write_program
from latlas_latency.formats import load_latency_model
from latlas_latency.measurement import PLAIN, PROFILED, RuntimeCapability, Target
from latlas_latency.methods import ALONE, CHAINED, IN_SITU
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
    there = _find(store, definition.name)
    if isinstance(plan, ProfilePlan) and not plan.method:
        plan = replace(plan, method=_usual_method(store, definition.target, there))
    campaign = Campaign(definition.name, definition.target, plan, definition.sampling, now_ns)
    if there is not None:
        return _require_same(there, campaign)
    target = store.get_target(campaign.target)
    if isinstance(plan, ProfilePlan):
        tasks = list(_profile_tasks(store, campaign, plan, target))
    elif isinstance(plan, ValidationPlan):
        tasks = list(_validation_tasks(store, campaign, plan, target))
    else:
        tasks = _measure_tasks(store, campaign, plan, target)
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
    _require_profiler(store, target, plan.method)
    programs: list[tuple[Network, ...]] = []
    ops = covered_ops(space, covered_choices(space, plan.resolutions))
    if plan.method == CHAINED:
        programs = chain_programs(space, ops)
    elif plan.method == ALONE:
        programs = alone_programs(space, ops)
    return _network_tasks(
        store,
        campaign,
        space,
        plan_profile(space, plan),
        plan.seed,
        target,
        programs,
        role=Role.CHAIN if plan.method == CHAINED else Role.ALONE,
        profiled=plan.method == IN_SITU,
    )


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
    singles = alone_programs(space) if plan.stand_alone else []
    return _network_tasks(store, campaign, space, networks, plan.seed, target, singles)


@dataclass(frozen=True)
class _Program:
    """A network that is to be written and measured."""

    role: Role
    network: Network
    modes: tuple[str, ...] = (PLAIN,)
    arch: ArchConfig | None = None


def _modes(planned: PlannedNetwork, profiled: bool) -> tuple[str, ...]:
    """With node times, without, or both in a row."""
    if planned.role is not Role.COVER or not profiled:
        return (PLAIN,)
    return (PROFILED, PLAIN) if planned.plain else (PROFILED,)


def _network_tasks(
    store: Store,
    campaign: Campaign,
    space: SearchSpace,
    planned: Sequence[PlannedNetwork],
    seed: int,
    target: Target,
    programs: Sequence[tuple[Network, ...]] = (),
    *,
    role: Role = Role.ALONE,
    profiled: bool = True,
) -> Iterator[Task]:
    """Writes programs and yields their tasks, networks in random order.

    The order mixes roles, so that no role gets a stretch of time for itself where a campaign is
    measured in several leases; programs that one op is found from are measured in a row.

    Args:
        store: where programs are kept.
        campaign: what the tasks belong to.
        space: the space of the networks.
        planned: architectures.
        seed: of the order.
        target: what programs are written for.
        programs: further networks, those of one op together.
        role: of `programs`.
        profiled: whether cover networks are measured with node times.
    """
    wanted = [
        [_Program(one.role, space.network(one.arch), _modes(one, profiled), one.arch)]
        for one in planned
    ]
    wanted += [[_Program(role, network) for network in group] for group in programs]
    numbers = dict.fromkeys(Role, 0)
    labels = []
    for group in wanted:
        labels.append(
            [f"{one.role.value} {numbers[one.role] + place}" for place, one in enumerate(group)]
        )
        numbers[group[0].role] += len(group)
    order = np.random.default_rng([seed, _ORDER_STREAM]).permutation(len(wanted)).tolist()
    program_format = choose_format(target, _capabilities(store, target))
    n_tasks = 0
    for index in order:
        for one, label in zip(wanted[index], labels[index], strict=True):
            sha256 = _write_program(store, one.network, program_format, target)
            for mode in one.modes:
                yield Task(
                    task_id=f"{campaign.name}:{n_tasks}",
                    campaign=campaign.name,
                    target=campaign.target,
                    program_sha256=sha256,
                    mode=mode,
                    role=one.role,
                    label=label,
                    sampling=campaign.sampling,
                    arch=one.arch,
                )
                n_tasks += 1


def _write_program(store: Store, network: Network, program_format: str, target: Target) -> str:
    """Writes and keeps the program of a network; returns its SHA-256."""
    program = write_program(network, program_format, target.batch, target.precision)
    sha256 = hashlib.sha256(program.model_bytes).hexdigest()
    store.put_program(
        ProgramRecord(
            sha256=sha256,
            format=program_format,
            n_bytes=len(program.model_bytes),
            origin=ProgramOrigin.WRITTEN,
            network_json=network.to_json(),
            tensor_positions=program.tensor_positions,
        ),
        program.model_bytes,
    )
    return sha256


def _capabilities(store: Store, target: Target) -> Iterator[RuntimeCapability]:
    """What connected devices offer for a target; where there are none, those that were here."""
    records = store.list_devices()
    for record in [one for one in records if one.connected] or records:
        with suppress(RuntimeUnavailableError):
            yield record.device.require_capable(target)


def _usual_method(store: Store, target: str, there: CampaignStatus | None) -> str:
    """How ops are measured where nobody says: as in the campaign that is there, else in situ.

    In chains where the target's runtime, as far as devices or else its name tell, times no single
    nodes.
    """
    if there is not None and isinstance(there.campaign.plan, ProfilePlan):
        return there.campaign.plan.method
    wanted = store.get_target(target)
    capabilities = list(_capabilities(store, wanted))
    return IN_SITU if _times_nodes(wanted, capabilities) else CHAINED


def _times_nodes(target: Target, capabilities: Sequence[RuntimeCapability]) -> bool:
    """Whether single nodes can be timed on a target, as devices or else its runtime's name tell."""
    if not capabilities:
        return target.runtime not in WITHOUT_NODE_TIMES and target.execution == "eager"
    return all(found.times_nodes(target) for found in capabilities)


def _require_profiler(store: Store, target: Target, method: str) -> None:
    """Refuses a target whose runtime, as far as devices tell, cannot be profiled like that."""
    for capability in _capabilities(store, target):
        if method == IN_SITU and not capability.times_nodes(target):
            compiled = "" if target.execution == "eager" else f" of {target.execution} networks"
            raise RuntimeUnavailableError(
                f"target {target.name!r} cannot be profiled in situ: {target.runtime} does not "
                f"time single nodes{compiled}; measure ops in chains instead, with "
                f"--method {CHAINED}"
            )


def _measure_tasks(
    store: Store, campaign: Campaign, plan: MeasurePlan, target: Target
) -> list[Task]:
    kept = store.get_programs([program.sha256 for program in plan.programs])
    modes = [PLAIN]
    capabilities = list(_capabilities(store, target))
    if plan.with_nodes and _times_nodes(target, capabilities):
        modes.append(PROFILED)
    for capability in capabilities:
        for program in plan.programs:
            written = kept[program.sha256].format
            if written not in capability.program_formats:
                raise RuntimeUnavailableError(
                    f"{program.label or program.sha256[:12]} cannot be measured on target "
                    f"{target.name!r}: it is {written}, {target.runtime} loads "
                    f"{', '.join(capability.program_formats)}; convert it, or choose a target "
                    f"whose runtime loads {written}"
                )
    return [
        Task(
            task_id=f"{campaign.name}:{number}",
            campaign=campaign.name,
            target=campaign.target,
            program_sha256=program.sha256,
            mode=mode,
            role=Role.MEASURED,
            label=program.label or program.sha256[:12],
            sampling=campaign.sampling,
        )
        for number, (program, mode) in enumerate(itertools.product(plan.programs, modes))
    ]
