"""Steps 1 and 2 of the quickstart: profile the space; build the latency models and judge them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latlas.lab import Lab
from latlas.progress import Progress
from latlas.quickstart.job import Job
from latlas.quickstart.processes import Fleet
from latlas.quickstart.results import DeviceFacts, ModelFacts, ProfileFacts
from latlas.quickstart.settings import begun_otherwise
from latlas.records import CANCELLED, DeviceState, Measurement, Sampling
from latlas_latency.measurement import PLAIN, Target, statistics
from latlas_latency.model import LatencyModel
from latlas_latency.observations import labels_of_rounds
from latlas_latency.table import LookupTable
from latlas_ops.errors import ConflictError, LatlasError, MeasurementError, UnreachableError
from latlas_ops.space import ArchBatch, ArchConfig, SearchSpace

PROFILE = "quickstart-profile"
TARGET = "this-machine"
MODEL_KINDS = ("table", "mlp", "linear", "macs")
_DEVICE_SECONDS = 60.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Measured:
    """What step 1 hands on.

    Attributes:
        target: what the figures are valid for.
        device: the board, as its agent describes it.
        measurements: every program of the profile campaign with its visits.
    """

    target: Target
    device: DeviceState
    measurements: Sequence[Measurement]

    def of_role(self, role: str) -> list[Measurement]:
        """The plain measurements of one role."""
        return [row for row in self.measurements if row.role == role and row.mode == PLAIN]

    def archs(self, role: str, space: SearchSpace) -> ArchBatch:
        """The architectures of one role, in the order of `of_role`."""
        return space.batch(
            ArchConfig(space.name, space.version, row.genes) for row in self.of_role(role)
        )

    def labels_ms(self, role: str) -> NDArray[np.float64]:
        """Latencies of one role as fits and validations see them, in the order of `of_role`.

        Medians over the rounds, what all networks of a round share removed where that pays.
        """
        return labels_of_rounds(round_matrix(self.of_role(role))) / 1e6


def round_matrix(rows: Sequence[Measurement]) -> NDArray[np.float64]:
    """Medians of visits in ns, `(n_rows, n_rounds)`; NaN where a visit is missing or left out.

    Args:
        rows: measurements of one campaign, of which at least one has a visit.
    """
    n_rounds = 1 + max(visit.round for row in rows for visit in row.visits)
    matrix = np.full((len(rows), n_rounds), np.nan)
    for index, row in enumerate(rows):
        for visit in row.visits:
            if not visit.left_out:
                matrix[index, visit.round] = visit.median_ns
    return matrix


def latency_of(row: Measurement) -> float:
    """The latency of a measurement in ms; raises `MeasurementError` if it has no visit."""
    latency_ms = row.latency_ms
    if latency_ms is None:
        raise MeasurementError(f"{row.label} has not been measured; see the agent's log")
    return latency_ms


def await_device(lab: Lab, fleet: Fleet) -> DeviceState:
    """The device of the quickstart's own agent, as soon as it has joined.

    Raises:
        UnreachableError: no device joined within a minute, or the agent ended.
    """
    deadline = time.monotonic() + _DEVICE_SECONDS
    while time.monotonic() < deadline:
        connected = [state for state in lab.devices() if state.connected]
        if connected:
            return connected[0]
        fleet.require_running()
        time.sleep(0.1)
    raise UnreachableError("the agent did not join the coordinator within a minute")


def run_campaign(lab: Lab, fleet: Fleet, name: str, label: str, job: Job, *, way_out: str) -> None:
    """Follows a campaign to its end with a progress bar.

    Args:
        lab: the coordinator.
        fleet: the processes that measure.
        name: the campaign.
        label: what the progress bar says.
        job: the quickstart.
        way_out: what the user can do if it fails, after "to measure again, ".

    Raises:
        MeasurementError: a program could not be measured, or the campaign was cancelled.
        UnreachableError: the coordinator or the agent ended.
    """
    status = lab.campaign(name)
    with Progress(
        label,
        total=status.n_visits_wanted,
        done=status.n_visits_done,
        stream=job.stream,
        unit="visits",
    ) as bar:
        while status.is_running:
            time.sleep(_POLL_SECONDS)
            fleet.require_running()
            status = lab.campaign(name)
            bar.update(status.n_visits_done, total=status.n_visits_wanted)
            job.clock.tick()
    if status.failed:
        first = status.failed[0]
        raise MeasurementError(
            f"{len(status.failed)} programs of campaign {name!r} could not be measured, the first "
            f"({first.label}): {first.reason}; to measure again, {way_out}"
        )
    if status.state == CANCELLED:
        raise MeasurementError(f"campaign {name!r} was cancelled; to measure again, {way_out}")


def profile(lab: Lab, fleet: Fleet, job: Job) -> Measured:
    """Profiles the space on this machine; what an earlier run measured is taken as it is.

    Raises:
        ConflictError: the folder was begun on a device or with a runtime that differs from now.
        MeasurementError: a network could not be measured.
        UnreachableError: the coordinator or the agent ended.
    """
    settings = job.settings
    device = await_device(lab, fleet)
    try:
        target = lab.add_target(TARGET, threads=1, cores=(job.core,))
    except ConflictError as error:
        raise begun_otherwise(job.folder, f"on another target ({error})") from error
    job.say(
        f"  device {device.device.device_model}, {target.runtime} {target.runtime_version}, "
        f"one thread on core {job.core}\n"
    )
    try:
        lab.start_profile(
            PROFILE,
            job.space.name,
            target.name,
            n_training_networks=settings.n_training_networks,
            n_calibration_networks=settings.n_calibration_networks,
            n_validation_networks=settings.n_validation_networks,
            min_occurrences=settings.min_occurrences,
            seed=settings.seed,
            sampling=Sampling(n_rounds=settings.n_rounds, min_duration_ns=settings.min_duration_ns),
        )
    except ConflictError as error:
        raise begun_otherwise(job.folder, f"by another version ({error})") from error
    way_out = f"remove {job.folder} or give another --folder"
    run_campaign(lab, fleet, PROFILE, "  measuring", job, way_out=way_out)
    return Measured(target, device, lab.measurements(PROFILE))


def build_models(lab: Lab, seed: int) -> dict[str, LatencyModel]:
    """Every latency model by kind, made from the profile unless an earlier run made it."""
    there = {info.name for info in lab.latency_models()}
    for kind in MODEL_KINDS:
        if kind in there:
            continue
        if kind == "table":
            lab.build_table(kind, PROFILE)
        else:
            lab.fit_predictor(kind, PROFILE, kind, seed)
    return {kind: lab.latency_model(kind) for kind in MODEL_KINDS}


def profile_facts(
    measured: Measured, models: Mapping[str, LatencyModel], space: SearchSpace
) -> ProfileFacts:
    """How much was measured and how noisy it was."""
    table = models["table"]
    if not isinstance(table, LookupTable) or table.conditions is None:
        raise LatlasError("the table of the quickstart lost the conditions it was measured under")
    conditions = table.conditions
    validation = table.validation
    if validation is None:
        raise LatlasError("the table of the quickstart was not validated")
    timed_ns = sum(
        visit.median_ns * visit.n_runs for row in measured.measurements for visit in row.visits
    )
    return ProfileFacts(
        n_cover_networks=conditions.n_profiled_networks,
        n_distinct_ops=len(space.slot_entries.ops),
        n_training_networks=len(measured.of_role("training")),
        n_calibration_networks=len(measured.of_role("calibration")),
        n_validation_networks=len(measured.of_role("validation")),
        n_rounds=conditions.n_rounds,
        device_seconds=timed_ns / 1e9,
        label_noise=validation.label_noise,
        common_mode_free_noise=validation.common_mode_free_noise,
        profiler_us_per_node=conditions.profiler_cost.per_node_ns / 1e3,
        unattributed_share=conditions.remainder_share,
    )


def device_facts(measured: Measured) -> DeviceFacts:
    """The device and target for the report."""
    return DeviceFacts(
        device_model=measured.device.device.device_model,
        operating_system=measured.device.device.operating_system,
        target=measured.target.to_dict(),
    )


def model_facts(
    measured: Measured, models: Mapping[str, LatencyModel], space: SearchSpace, level: float
) -> list[ModelFacts]:
    """Every latency model on the validation networks, which no fit has seen."""
    archs = measured.archs("validation", space)
    truth = measured.labels_ms("validation")
    rows = []
    for kind in MODEL_KINDS:
        found = models[kind].predict(archs, level)
        inside = (found.lower_ms <= truth) & (truth <= found.upper_ms)
        rows.append(
            ModelFacts(
                kind=kind,
                measured_ms=truth.tolist(),
                predicted_ms=found.mean_ms.tolist(),
                lower_ms=found.lower_ms.tolist(),
                upper_ms=found.upper_ms.tolist(),
                mape=statistics.mape(truth, found.mean_ms),
                max_error=statistics.max_error(truth, found.mean_ms),
                spearman=statistics.spearman(truth, found.mean_ms),
                r2=statistics.r_squared(truth, found.mean_ms),
                share_within_5_percent=statistics.share_within(truth, found.mean_ms, 0.05),
                share_within_10_percent=statistics.share_within(truth, found.mean_ms, 0.10),
                interval_coverage=float(inside.mean()),
                interval_level=level,
            )
        )
    return rows
