"""Step 3 of the quickstart: train the supernet, label subnets, fit the accuracy predictor."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from latlas.progress import Progress
from latlas.quickstart.clock import StepClock
from latlas.quickstart.results import SupernetFacts
from latlas.quickstart.settings import QuickstartSettings
from latlas_nas.accuracy_fitting import fit_accuracy_predictor, judge_accuracy_predictor
from latlas_nas.accuracy_predictor import AccuracyPredictor
from latlas_nas.data.digits import digits_data
from latlas_nas.data.images import ImageData
from latlas_nas.labelling import label_subnets
from latlas_nas.schedule import quickstart_schedule
from latlas_nas.supernet import Supernet
from latlas_nas.training import TrainingProgress, train_supernet
from latlas_ops.space import ArchConfig, SearchSpace

_CURVE_POINTS = 200
_LABELLED_STREAM = 10


@dataclass(frozen=True)
class Learned:
    """What step 3 hands on.

    Attributes:
        data: the images.
        supernet: the trained weights.
        accuracy: predicts the accuracy of a subnet on the validation images.
        facts: how well all of this went.
    """

    data: ImageData
    supernet: Supernet
    accuracy: AccuracyPredictor
    facts: SupernetFacts


def learn(
    space: SearchSpace,
    folder: Path,
    settings: QuickstartSettings,
    clock: StepClock,
    stream: TextIO,
) -> Learned:
    """Trains a supernet of the space and fits a predictor of its subnets' accuracy.

    What an earlier run trained or labelled is taken as it is.

    Args:
        space: the search space.
        folder: for the weights, the labels and the loss of every step.
        settings: how much is trained and labelled.
        clock: counts the steps `train` and `label`.
        stream: where progress is told.

    Raises:
        ConflictError: the folder holds a run with other settings.
        StorageError: a file there cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with clock.step("train"):
        data = digits_data(
            settings.seed,
            train_copies=settings.train_copies,
            validation_copies=settings.validation_copies,
            test_copies=settings.test_copies,
        )
        supernet = _train(space, data, folder, settings, stream)
    with clock.step("label"):
        rng = np.random.default_rng([settings.seed, _LABELLED_STREAM])
        archs = distinct_archs(space, settings.n_labelled_subnets, rng)
        with Progress("  labelling subnets", total=len(archs), done=None, stream=stream) as bar:
            labels = label_subnets(
                supernet,
                archs,
                data,
                folder / "labels.json",
                on_progress=lambda done, total: bar.update(done),
            )
        held_out, fitted = (
            labels[: settings.n_held_out_subnets],
            labels[settings.n_held_out_subnets :],
        )
        accuracy = fit_accuracy_predictor(space, fitted, settings.seed)
        accuracy.save(folder / "accuracy.npz")
        fit = judge_accuracy_predictor(accuracy, held_out, settings.level)
        smallest, largest = test_accuracies(
            supernet, space.archs(space.extremes()), data, folder, stream
        )
    return Learned(
        data,
        supernet,
        accuracy,
        SupernetFacts(
            training_seconds=clock.seconds["train"],
            smallest_accuracy=smallest,
            largest_accuracy=largest,
            n_test_images=len(data.test),
            n_labelled=len(labels),
            n_held_out=len(held_out),
            held_out_measured=fit.measured.tolist(),
            held_out_predicted=fit.predicted.tolist(),
            kendall_tau=fit.kendall_tau,
            curve=_read_curve(folder / "loss.csv"),
        ),
    )


def test_accuracies(
    supernet: Supernet,
    archs: list[ArchConfig],
    data: ImageData,
    folder: Path,
    stream: TextIO,
) -> list[float]:
    """Accuracy on the test images of every subnet, in their order; known ones are looked up."""
    with Progress(
        "  classifying test images", total=len(set(archs)), done=None, stream=stream
    ) as bar:
        labels = label_subnets(
            supernet,
            list(dict.fromkeys(archs)),
            data,
            folder / "test-accuracies.json",
            split="test",
            on_progress=lambda done, total: bar.update(done),
        )
    found = {label.arch: label.accuracy for label in labels}
    return [found[arch] for arch in archs]


def distinct_archs(space: SearchSpace, n_archs: int, rng: np.random.Generator) -> list[ArchConfig]:
    """Random architectures, every gene uniform, each at most once."""
    found: dict[ArchConfig, None] = {}
    while len(found) < n_archs:
        found |= dict.fromkeys(space.archs(space.sample(n_archs - len(found), rng)))
    return list(found)


def _train(
    space: SearchSpace,
    data: ImageData,
    folder: Path,
    settings: QuickstartSettings,
    stream: TextIO,
) -> Supernet:
    """Trains with a progress bar; the loss of every step is appended to `loss.csv`."""
    schedule = quickstart_schedule(settings.short_training)
    with (
        (folder / "loss.csv").open("a", newline="") as curve,
        Progress(
            "  training the supernet", total=schedule.total_steps, done=None, stream=stream
        ) as bar,
    ):
        writer = csv.writer(curve)

        def show(progress: TrainingProgress) -> None:
            writer.writerow((progress.phase, progress.step, f"{progress.loss:.5f}"))
            bar.update(progress.step, f"phase {progress.phase}, loss {progress.loss:.2f}")

        return train_supernet(space, data, schedule, folder, settings.seed, on_progress=show)


def _read_curve(path: Path) -> list[tuple[str, int, float]]:
    """Phase, step and loss, thinned; of steps that were repeated after a crash the last counts."""
    points: dict[int, tuple[str, int, float]] = {}
    with path.open(newline="") as stream:
        for row in csv.reader(stream):
            if len(row) == 3:
                points[int(row[1])] = (row[0], int(row[1]), float(row[2]))
    ordered = [points[step] for step in sorted(points)]
    return ordered[:: max(1, len(ordered) // _CURVE_POINTS)]
