"""Step 5 of the quickstart: extract the networks found, and ask the device what they take."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
import onnxruntime

from latlas.files import write_atomically
from latlas.lab import Lab
from latlas.quickstart.learning import Learned, test_accuracies
from latlas.quickstart.measuring import Measured, latency_of, run_campaign
from latlas.quickstart.results import Found
from latlas.quickstart.searching import Search
from latlas.quickstart.settings import QuickstartSettings
from latlas.records import Sampling
from latlas_nas.accuracy import subnet_statistics
from latlas_nas.extraction import extract
from latlas_ops.errors import MeasurementError
from latlas_ops.space import ArchConfig, SearchSpace
from latlas_ops.writers.onnx_writer import write_onnx

_CHECKED_IMAGES = 8
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
    space: SearchSpace,
    measured: Measured,
    learned: Learned,
    searches: Sequence[Search],
    folder: Path,
    settings: QuickstartSettings,
    stream: TextIO,
) -> Verified:
    """Extracts, exports and measures the best network of every search.

    The calibration networks run in the same sitting. They say whether the device is in the state
    in which it was profiled; if it is not, the sitting is repeated.

    Args:
        lab: the coordinator.
        space: the search space.
        measured: what was profiled.
        learned: the supernet and its images.
        searches: their best networks are verified.
        folder: everything of this quickstart; the networks go into `networks/`.
        settings: number of rounds and sittings.
        stream: where progress is told.

    Raises:
        MeasurementError: a network could not be measured, or its file computes something else
            than the supernet.
    """
    best = {search.name: search.evolution.best.arch for search in searches}
    programs = _write_networks(best, learned, folder / "networks")
    shas = {arch: lab.upload(program) for arch, program in programs.items()}
    latencies_ms, drift = _best_sitting(lab, space, measured, shas, settings, stream)
    archs = list(best.values()) + [search.random.best.arch for search in searches]
    accuracies = test_accuracies(learned.supernet, archs, learned.data, folder / "supernet", stream)
    found = []
    for index, search in enumerate(searches):
        result = search.evolution
        found.append(
            Found(
                budget_ms=search.budget_ms,
                latency_model=search.latency_model,
                genes=list(result.best.arch.genes),
                description=space.describe(result.best.arch),
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
                onnx_file=f"networks/{search.name}.onnx",
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
        if arch not in programs:
            programs[arch] = _export(learned, arch)
        write_atomically(folder / f"{name}.onnx", programs[arch])
        write_atomically(folder / f"{name}.arch.json", arch.to_json().encode() + b"\n")
    return programs


def _export(learned: Learned, arch: ArchConfig) -> bytes:
    """The subnet as an ONNX program whose outputs are those of the supernet.

    Raises:
        MeasurementError: onnxruntime computes something else.
    """
    supernet, images = learned.supernet, learned.data.test
    statistics = subnet_statistics(supernet, arch, learned.data.train)
    subnet = extract(supernet, arch, statistics)
    program = write_onnx(subnet.network, subnet.weights).model_bytes
    some = images.batch(slice(0, _CHECKED_IMAGES), subnet.resolution)
    wanted = supernet.forward(some, arch, statistics).detach().numpy()
    session = onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
    answers = [session.run(None, {"input": image[None]})[0][0] for image in some.numpy()]
    if not np.allclose(answers, wanted, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise MeasurementError(
            f"the exported network of {arch.to_json()} answers with other values than the supernet "
            f"(by up to {np.abs(np.array(answers) - wanted).max():.2g})"
        )
    return program


def _best_sitting(
    lab: Lab,
    space: SearchSpace,
    measured: Measured,
    shas: Mapping[ArchConfig, str],
    settings: QuickstartSettings,
    stream: TextIO,
) -> tuple[dict[ArchConfig, float], float]:
    """Latencies in milliseconds of the networks, and the drift of the sitting they are from.

    Sittings are judged by the calibration networks alone, never by the networks in question.
    """
    anchors = measured.of_role("calibration")
    usual_ms = np.array(measured.latencies_ms("calibration"))
    networks = map(space.network, space.archs(measured.archs("calibration", space)))
    anchor_shas = [lab.upload(write_onnx(network).model_bytes) for network in networks]
    programs = [(sha, f"found {sha[:8]}") for sha in shas.values()]
    programs += [(sha, f"again {row.label}") for sha, row in zip(anchor_shas, anchors, strict=True)]
    content = hashlib.sha256("".join(sha for sha, _ in programs).encode()).hexdigest()[:8]
    sampling = Sampling(
        n_rounds=settings.n_verification_rounds, min_duration_ns=settings.min_duration_ns
    )
    sittings: list[tuple[float, dict[str, float]]] = []
    for number in range(1, settings.max_sittings + 1):
        name = f"quickstart-verify-{content}-{number}"
        lab.start_measure(name, measured.target.name, programs, sampling)
        run_campaign(lab, name, "  measuring the networks found", stream)
        rows = lab.measurements(name)
        by_label = {row.label: latency_of(row) for row in rows}
        again_ms = np.array([by_label[f"again {row.label}"] for row in anchors])
        sittings.append((float(np.median(again_ms / usual_ms)) - 1, by_label))
        if abs(sittings[-1][0]) <= settings.max_drift:
            break
        stream.write(
            f"  the device runs {sittings[-1][0]:+.1%} against the time of profiling"
            f"{'; once more' if number < settings.max_sittings else ''}\n"
        )
    drift, by_label = min(sittings, key=lambda sitting: abs(sitting[0]))
    return {arch: by_label[f"found {sha[:8]}"] for arch, sha in shas.items()}, drift
