"""Starting campaigns: a plan becomes programs and tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

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
)
from latlas_coordinator.planning import plan_profile
from latlas_coordinator.storage import Store
from latlas_latency.measurement import PLAIN, PROFILED, Target
from latlas_ops.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RuntimeUnavailableError,
)
from latlas_ops.network import Network
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
        NotFoundError: no such target, space or program.
        InvalidInputError: a value is out of range, or the space too small for the plan.
        RuntimeUnavailableError: the target's runtime cannot run such a campaign.
    """
    campaign = Campaign(
        definition.name, definition.target, definition.plan, definition.sampling, now_ns
    )
    there = _find(store, campaign.name)
    if there is not None:
        return _require_same(there, campaign)
    target = store.get_target(campaign.target)
    if isinstance(campaign.plan, ProfilePlan):
        tasks = list(_profile_tasks(store, campaign, campaign.plan, target))
    else:
        tasks = _measure_tasks(store, campaign, campaign.plan)
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


def _profile_tasks(
    store: Store, campaign: Campaign, plan: ProfilePlan, target: Target
) -> Iterator[Task]:
    """Writes the programs of a profile campaign and yields its tasks, networks in random order.

    The order mixes roles, so that no role gets a stretch of time for itself where a campaign is
    measured in several leases; a cover network is measured with and without node times in a row.
    """
    space = get_space(plan.space)
    _require_profiler(store, target)
    planned = plan_profile(space, plan)
    numbers = dict.fromkeys(Role, 0)
    labels = []
    for network in planned:
        labels.append(f"{network.role.value} {numbers[network.role]}")
        numbers[network.role] += 1
    order = np.random.default_rng([plan.seed, _ORDER_STREAM]).permutation(len(planned)).tolist()
    n_tasks = 0
    for index in order:
        role, arch = planned[index].role, planned[index].arch
        sha256 = _write_program(store, space.network(arch), target.batch)
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
