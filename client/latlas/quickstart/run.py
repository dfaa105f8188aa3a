"""The quickstart from start to end: measure, tabulate, predict, search, extract, verify."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from latlas.files import write_atomically
from latlas.lab import Lab, connect
from latlas.progress import format_seconds
from latlas.quickstart.clock import StepClock
from latlas.quickstart.job import Job
from latlas.quickstart.learning import learn
from latlas.quickstart.measuring import (
    MODEL_KINDS,
    build_models,
    device_facts,
    model_facts,
    profile,
    profile_facts,
)
from latlas.quickstart.processes import Fleet, exclusive, fleet
from latlas.quickstart.results import Breakdown, OpShare, Results
from latlas.quickstart.searching import Search, budgets_ms, fronts, search_all
from latlas.quickstart.settings import QuickstartSettings, claim_folder
from latlas.quickstart.telling import tell_found, tell_fronts, tell_models, tell_supernet
from latlas.quickstart.verifying import verify
from latlas.report.page import write_report
from latlas_latency.model import LatencyModel
from latlas_ops.space import SearchSpace
from latlas_ops.spaces import get_space

_START_SECONDS = 30.0


def run_quickstart(folder: Path, *, settings: QuickstartSettings, stream: TextIO) -> None:
    """The whole loop on this machine; leaves models, networks and a report in a folder.

    What an earlier run measured or trained is taken as it is, so a run that was interrupted goes
    on where it stopped.

    Args:
        folder: where everything is kept.
        settings: how much is done.
        stream: where progress and results are told.

    Raises:
        ConflictError: another quickstart works in the folder, or it was begun with other settings
            or on another target.
        InfeasibleError: no network keeps a budget.
        InvalidInputError: a file in the folder is not what it was.
        MeasurementError: a network could not be measured.
        StorageError: a file cannot be read or written.
        UnreachableError: the coordinator or the agent did not start, or ended.
    """
    with exclusive(folder, stream) as lock:
        core = claim_folder(folder, settings, max(os.sched_getaffinity(0)))
        clock = StepClock(folder / "seconds.json")
        job = Job(folder, settings, get_space(settings.space), core, clock, stream)
        with contextlib.ExitStack() as stack:
            with clock.step("start"):
                members = stack.enter_context(fleet(folder / "fleet", lock))
                lab = stack.enter_context(connect(members.grpc, wait_s=_START_SECONDS))
            job.say(
                f"A coordinator and an agent run on this machine ({members.grpc}).\n"
                f"Watch them at http://{members.http}\n"
            )
            results = _loop(lab, members, job)
        job.say("6. Leave the results\n")
        with clock.step("report"):
            write_report(results, folder / "report.html")
        results = dataclasses.replace(results, step_seconds=clock.seconds)
        results.save(folder / "results.json")
        for name in _shown_files(results):
            job.say(f"  {folder / name}\n")
        total_s = sum(clock.seconds.values())
        job.say(f"\nAll steps took {format_seconds(total_s)}. Open {folder / 'report.html'}\n")


def _loop(lab: Lab, members: Fleet, job: Job) -> Results:
    """Steps 1 to 5."""
    space, settings, clock = job.space, job.settings, job.clock
    job.say(f"1. Profile the space {space.name!r} on this device\n")
    with clock.step("profile"):
        measured = profile(lab, members, job)
    job.say("2. Build the latency models; judge them on networks that no fit has seen\n")
    with clock.step("models"):
        models = build_models(lab, settings.seed)
        _write_models(lab, job.folder)
        profiled = profile_facts(measured, models, space)
        judged = model_facts(measured, models, space, settings.level)
    tell_models(profiled, judged, job.stream)

    job.say("3. Train a supernet by progressive shrinking; learn its subnets' accuracy\n")
    learned = learn(job)
    tell_supernet(learned.facts, job.stream)

    budgets = budgets_ms(measured.labels_ms("validation"), settings.budget_quantiles)
    told = ", ".join(f"{budget_ms:.2f}" for budget_ms in budgets)
    job.say(f"4. Search under {told} ms, with the table and with the MLP\n")
    with clock.step("search"):
        searches = search_all(job, learned.accuracy, models, budgets)
    found_fronts = fronts(searches)
    tell_fronts(found_fronts, job.stream)

    job.say("5. Extract the networks found; measure them on the device\n")
    with clock.step("verify"):
        verified = verify(lab, members, job, measured, learned, searches)
    tell_found(verified.found, verified.drift, job.stream)

    cloud = space.sample(settings.n_cloud_subnets, job.rng("random subnets beside the fronts"))
    return Results(
        device=device_facts(measured),
        profile=profiled,
        models=judged,
        supernet=learned.facts,
        found=verified.found,
        fronts=found_fronts,
        breakdowns=_breakdowns(space, models["table"], searches),
        random_latency_ms=models["table"].predict(cloud, settings.level).mean_ms.tolist(),
        random_accuracy=learned.accuracy(cloud).tolist(),
        session_drift=verified.drift,
        step_seconds=clock.seconds,
    )


def _write_models(lab: Lab, folder: Path) -> None:
    """Every latency model as a file that another program can read."""
    wanted = [(kind, "latlas") for kind in MODEL_KINDS]
    wanted += [("table", "csv"), ("table", "ofa-yaml")]
    for model, fmt in wanted:
        data, name = lab.export(model, fmt)
        write_atomically(folder / name, data)


def _breakdowns(
    space: SearchSpace, table: LatencyModel, searches: Sequence[Search]
) -> list[Breakdown]:
    """The table's entries of every network that was found with it, op by op."""
    latencies = table.op_latencies(space)
    breakdowns = []
    for search in searches:
        if search.latency_model != "table":
            continue
        arch = search.evolution.best.arch
        ops = []
        for index, (slot, values) in enumerate(zip(space.slots, latencies.tables_ms, strict=True)):
            choices = [arch.genes[gene] for gene in slot.genes]
            op = space.slot_op(index, choices)
            if op is not None:
                ops.append(OpShare(op.key, op.kind, float(values[tuple(choices)])))
        breakdowns.append(Breakdown(search.budget_ms, latencies.intercept_ms, ops))
    return breakdowns


def _shown_files(results: Results) -> list[str]:
    """What a user will want to open, relative to the folder."""
    models = [f"{kind}.json" if kind == "table" else f"{kind}.npz" for kind in MODEL_KINDS]
    files = ["report.html", "results.json", *models, "table.csv", "table.yaml"]
    return files + [one.onnx_file for one in results.found]
