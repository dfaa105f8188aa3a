"""The quickstart from start to end: a fleet on this machine, its measurements, its models."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from latlas.files import write_atomically
from latlas.lab import Lab, connect
from latlas.quickstart.measuring import MODEL_KINDS, model_facts, profile, profile_facts
from latlas.quickstart.processes import exclusive, fleet
from latlas.quickstart.results import ModelFacts, ProfileFacts
from latlas.quickstart.settings import QuickstartSettings
from latlas_ops.spaces import get_space

_START_SECONDS = 30.0
_NAMES = {
    "table": "calibrated table",
    "mlp": "MLP predictor",
    "linear": "linear baseline",
    "macs": "MACs, straight line",
}


def run_quickstart(folder: Path, *, settings: QuickstartSettings, stream: TextIO) -> None:
    """Profiles a small space on this machine and leaves its latency models in a folder.

    What an earlier run measured or built is taken as it is.

    Args:
        folder: where everything is kept.
        settings: how much is measured.
        stream: where progress and results are told.

    Raises:
        ConflictError: another quickstart works in the folder.
        UnreachableError: the coordinator or the agent did not start.
        MeasurementError: a network could not be measured.
    """
    space = get_space(settings.space)
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    with (
        exclusive(folder),
        fleet(folder / "fleet") as addresses,
        connect(addresses.grpc, wait_s=_START_SECONDS) as lab,
    ):
        stream.write(f"A coordinator and an agent run on this machine ({addresses.grpc}).\n")
        if addresses.http:
            stream.write(f"Watch them at http://{addresses.http}\n")
        stream.write(f"1. Profile the space {space.name!r}\n")
        measured = profile(lab, space, settings, core, stream)
        stream.write("2. Judge the latency models on networks that no fit has seen\n")
        facts = profile_facts(measured, space, settings)
        _tell(facts, model_facts(measured, space, settings.level), stream)
        stream.write("3. Write the models to files\n")
        for name in _write_models(lab, folder):
            stream.write(f"  {folder / name}\n")


def _tell(facts: ProfileFacts, models: Sequence[ModelFacts], stream: TextIO) -> None:
    stream.write(
        f"  {facts.n_distinct_ops} ops in {facts.n_cover_networks} cover networks, "
        f"{facts.n_validation_networks} unseen networks, {facts.device_seconds:.0f} s of timing\n"
        f"  the profiler added {facts.profiler_us_per_node:.1f} us per node (removed); "
        f"{facts.unattributed_share:.2%} of node time belongs to no op\n"
        f"  label noise of this sitting {facts.label_noise:.2%} "
        f"({facts.common_mode_free_noise:.2%} without what all networks share)\n\n"
        f"  {'model':<20} {'MAPE':>7} {'max':>7} {'Spearman':>9} {'in 5 %':>7} {'interval':>9}\n"
    )
    for model in models:
        stream.write(
            f"  {_NAMES[model.kind]:<20} {model.mape:>7.2%} {model.max_error:>7.2%} "
            f"{model.spearman:>9.4f} {model.share_within_5_percent:>7.0%} "
            f"{model.interval_coverage:>9.0%}\n"
        )
    stream.write("\n")


def _write_models(lab: Lab, folder: Path) -> list[str]:
    """Every model as a file that another program can read; returns the names of the files."""
    wanted = [(kind, "latlas") for kind in MODEL_KINDS]
    wanted += [("table", "csv"), ("table", "ofa-yaml")]
    names = []
    for model, fmt in wanted:
        data, name = lab.export(model, fmt)
        write_atomically(folder / name, data)
        names.append(name)
    return names
