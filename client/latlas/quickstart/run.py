"""The quickstart from start to end: measure, tabulate, predict, search, extract, verify."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from latlas.files import write_atomically
from latlas.lab import Lab, connect
from latlas.progress import format_seconds
from latlas.quickstart.clock import StepClock
from latlas.quickstart.learning import learn
from latlas.quickstart.measuring import (
    MODEL_KINDS,
    build_models,
    device_facts,
    model_facts,
    profile,
    profile_facts,
)
from latlas.quickstart.processes import exclusive, fleet
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
_CLOUD_STREAM = 30


def run_quickstart(folder: Path, *, settings: QuickstartSettings, stream: TextIO) -> None:
    """The whole loop on this machine; leaves models, networks and a report in a folder.

    What an earlier run measured, trained or searched is taken as it is, so a run that was
    interrupted goes on where it stopped.

    Args:
        folder: where everything is kept.
        settings: how much is done.
        stream: where progress and results are told.

    Raises:
        ConflictError: another quickstart works in the folder, or it was begun with other settings.
        UnreachableError: the coordinator or the agent did not start.
        MeasurementError: a network could not be measured.
    """
    space = get_space(settings.space)
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    with exclusive(folder):
        claim_folder(folder, settings)
        clock = StepClock(folder / "seconds.json")
        with (
            fleet(folder / "fleet") as addresses,
            connect(addresses.grpc, wait_s=_START_SECONDS) as lab,
        ):
            stream.write(f"A coordinator and an agent run on this machine ({addresses.grpc}).\n")
            if addresses.http:
                stream.write(f"Watch them at http://{addresses.http}\n")
            results = _loop(lab, space, folder, settings, core, clock, stream)
        stream.write("6. Leave the results\n")
        results.save(folder / "results.json")
        write_report(results, folder / "report.html")
        for name in _shown_files(folder):
            stream.write(f"  {folder / name}\n")
        total_s = sum(clock.seconds.values())
        stream.write(f"\nAll steps took {format_seconds(total_s)}. Open {folder / 'report.html'}\n")


def _loop(
    lab: Lab,
    space: SearchSpace,
    folder: Path,
    settings: QuickstartSettings,
    core: int,
    clock: StepClock,
    stream: TextIO,
) -> Results:
    """Steps 1 to 5."""
    stream.write(f"1. Profile the space {space.name!r} on this device\n")
    with clock.step("profile"):
        measured = profile(lab, space, settings, core, stream)
    stream.write("2. Build the latency models; judge them on networks that no fit has seen\n")
    with clock.step("models"):
        models = build_models(lab, settings)
        _write_models(lab, folder)
        profiled = profile_facts(measured, models, space)
        judged = model_facts(measured, models, space, settings.level)
    tell_models(profiled, judged, stream)

    stream.write("3. Train a supernet by progressive shrinking; learn its subnets' accuracy\n")
    learned = learn(space, folder / "supernet", settings, clock, stream)
    tell_supernet(learned.facts, stream)

    budgets = budgets_ms(measured.latencies_ms("validation"), settings.budget_quantiles)
    told = ", ".join(f"{budget_ms:.2f}" for budget_ms in budgets)
    stream.write(f"4. Search under {told} ms, with the table and with the MLP\n")
    with clock.step("search"):
        searches = search_all(
            space, learned.accuracy, models, budgets, folder / "searches", settings, stream
        )
    tell_fronts(fronts(searches), stream)

    stream.write("5. Extract the networks found; measure them on the device\n")
    with clock.step("verify"):
        verified = verify(lab, space, measured, learned, searches, folder, settings, stream)
    tell_found(verified.found, verified.drift, stream)

    cloud = space.sample(
        settings.n_cloud_subnets, np.random.default_rng([settings.seed, _CLOUD_STREAM])
    )
    return Results(
        device=device_facts(measured),
        profile=profiled,
        models=judged,
        supernet=learned.facts,
        found=verified.found,
        fronts=fronts(searches),
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


def _shown_files(folder: Path) -> list[str]:
    """What a user will want to open, relative to the folder."""
    models = [f"{kind}.json" if kind == "table" else f"{kind}.npz" for kind in MODEL_KINDS]
    networks = sorted(path.name for path in (folder / "networks").glob("*.onnx"))
    files = ["report.html", "results.json", *models, "table.csv", "table.yaml"]
    return files + [f"networks/{name}" for name in networks]
