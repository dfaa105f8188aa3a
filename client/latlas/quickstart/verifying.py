"""Step 5 of the quickstart: extract the networks found, and ask the device what they take."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import onnxruntime

from latlas.files import write_atomically
from latlas.lab import Lab
from latlas.quickstart.job import Job
from latlas.quickstart.learning import Learned, accuracies_on_test
from latlas.quickstart.measuring import Measured, latency_of, run_campaign
from latlas.quickstart.processes import Fleet
from latlas.quickstart.results import Found
from latlas.quickstart.searching import Search
from latlas.quickstart.telling import drift_text
from latlas.records import Sampling
from latlas_nas.accuracy import subnet_statistics
from latlas_nas.extraction import extract
from latlas_nas.supernet import BatchNormStatistics
from latlas_nas.walk import input_side
from latlas_ops.errors import MeasurementError
from latlas_ops.space import ArchConfig
from latlas_ops.writers.onnx_writer import write_onnx

FOLDER = "networks"
_CHECKED_IMAGES = 64
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Verified:
    """What step 5 found.

    Attributes:
        found: every search's network, predicted and measured.
        drift: by how much the device ran slower than while profiling, a signed fraction; the
            median over the calibration networks, which were measured both times.
    """

    found: list[Found]
    drift: float


def verify(
    lab: Lab,
    fleet: Fleet,
    job: Job,
    measured: Measured,
    learned: Learned,
    searches: Sequence[Search],
) -> Verified:
    """Extracts, exports and measures the best network of every search.

    The calibration networks run in the same sitting. They say whether the device is in the state
    in which it was profiled; if it is not, the sitting is repeated.

    Args:
        lab: the coordinator.
        fleet: the processes that measure.
        job: the quickstart.
        measured: what was profiled.
        learned: the supernet and its images.
        searches: their best networks are verified.

    Raises:
        MeasurementError: a network could not be measured, or its file computes something else
            than the supernet.
        UnreachableError: the coordinator or the agent ended.
    """
    best = {search.name: search.evolution.best.arch for search in searches}
    programs = _write_networks(best, learned, job.folder / FOLDER)
    shas = {arch: lab.upload(program) for arch, program in programs.items()}
    latencies_ms, drift = _best_sitting(lab, fleet, job, measured, shas)
    archs = [*best.values(), *(search.random.best.arch for search in searches)]
    accuracies = accuracies_on_test(learned.supernet, archs, learned.data, job)
    found = []
    for index, search in enumerate(searches):
        result = search.evolution
        found.append(
            Found(
                budget_ms=search.budget_ms,
                latency_model=search.latency_model,
                genes=list(result.best.arch.genes),
                description=job.space.describe(result.best.arch),
                predicted_ms=result.best.latency_ms,
                lower_ms=result.best.lower_ms,
                upper_ms=result.best.upper_ms,
                predicted_accuracy=result.best.accuracy,
                random_accuracy=search.random.best.accuracy,
                n_evaluated=result.n_evaluated,
                search_seconds=search.seconds,
                measured_ms=latencies_ms[result.best.arch],
                measured_accuracy=accuracies[index],
                random_measured_accuracy=accuracies[len(searches) + index],
                onnx_file=f"{FOLDER}/{search.name}.onnx",
            )
        )
    return Verified(found, drift)


def _write_networks(
    best: Mapping[str, ArchConfig], learned: Learned, folder: Path
) -> dict[ArchConfig, bytes]:
    """Every network as ONNX and its architecture as JSON; returns the programs."""
    folder.mkdir(exist_ok=True)
    programs: dict[ArchConfig, bytes] = {}
    for name, arch in best.items():
        path, arch_path = folder / f"{name}.onnx", folder / f"{name}.arch.json"
        text = arch.to_json() + "\n"
        if arch not in programs:
            same = path.exists() and arch_path.exists() and arch_path.read_text() == text
            programs[arch] = _program(learned, arch, path.read_bytes() if same else None)
        write_atomically(path, programs[arch])
        write_atomically(arch_path, text.encode())
    return programs


def _program(learned: Learned, arch: ArchConfig, earlier: bytes | None) -> bytes:
    """The subnet as an ONNX program that answers like the supernet.

    The program of an earlier run is kept where it does: it was measured under its content, and a
    repeated calculation may differ in the last bit.

    Raises:
        MeasurementError: the program answers with other values than the supernet.
    """
    statistics = subnet_statistics(learned.supernet, arch, learned.data.train)
    if earlier and _difference(earlier, learned, statistics) <= _TOLERANCE:
        return earlier
    subnet = extract(learned.supernet, arch, statistics)
    program = write_onnx(subnet.network, subnet.weights).model_bytes
    difference = _difference(program, learned, statistics)
    if difference > _TOLERANCE:
        raise MeasurementError(
            f"the exported network of {arch.to_json()} answers with other values than the "
            f"supernet (by {difference:.2g} of the largest)"
        )
    return program


def _difference(program: bytes, learned: Learned, statistics: BatchNormStatistics) -> float:
    """Largest difference between the logits of program and supernet, relative to the largest."""
    arch, supernet = statistics.arch, learned.supernet
    side = input_side(supernet.space, arch)
    images = learned.data.test.batch(slice(0, _CHECKED_IMAGES), side)
    wanted = supernet.forward(images, arch, statistics).detach().numpy()
    session = onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
    answers = [session.run(None, {"input": image[None]})[0][0] for image in images.numpy()]
    return float(np.abs(np.array(answers) - wanted).max() / np.abs(wanted).max())


def _best_sitting(
    lab: Lab,
    fleet: Fleet,
    job: Job,
    measured: Measured,
    shas: Mapping[ArchConfig, str],
) -> tuple[dict[ArchConfig, float], float]:
    """Latencies in milliseconds of the networks, and the drift of the sitting they are from.

    Sittings are judged by the calibration networks alone, never by the networks in question.
    """
    settings = job.settings
    anchors = measured.of_role("calibration")
    usual_ms = np.array([latency_of(row) for row in anchors])
    again = [
        lab.upload(write_onnx(job.space.network(arch)).model_bytes)
        for arch in job.space.archs(measured.archs("calibration", job.space))
    ]
    programs = [(sha, f"found {sha[:8]}") for sha in shas.values()]
    programs += [(sha, f"again {row.label}") for sha, row in zip(again, anchors, strict=True)]
    content = hashlib.sha256("".join(sha for sha, _ in programs).encode()).hexdigest()[:8]
    sampling = Sampling(
        n_rounds=settings.n_verification_rounds, min_duration_ns=settings.min_duration_ns
    )
    sittings: list[tuple[float, dict[str, float]]] = []
    for number in count(1):
        name = f"quickstart-verify-{content}-{number}"
        status = lab.start_measure(name, measured.target.name, programs, sampling)
        if not status.is_running and status.n_visits_done < status.n_visits_wanted:
            continue  # an earlier run was given up here
        label = "  measuring the networks found"
        run_campaign(lab, fleet, name, label, job, way_out="run the same command again")
        ms = {row.label: latency_of(row) for row in lab.measurements(name)}
        again_ms = np.array([ms[f"again {row.label}"] for row in anchors])
        drift = float(np.median(again_ms / usual_ms)) - 1
        sittings.append((drift, ms))
        if abs(drift) <= settings.max_drift or len(sittings) == settings.max_sittings:
            break
        job.say(f"  {drift_text(drift)}; once more\n")
    drift, ms = min(sittings, key=lambda sitting: abs(sitting[0]))
    return {arch: ms[f"found {sha[:8]}"] for arch, sha in shas.items()}, drift
