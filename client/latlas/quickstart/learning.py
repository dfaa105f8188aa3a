"""Step 3 of the quickstart: train the supernet, label subnets, fit the accuracy predictor."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from latlas.progress import Progress
from latlas.quickstart.job import Job
from latlas.quickstart.results import SupernetFacts
from latlas_nas.accuracy_fitting import cross_judge_accuracy_predictor, fit_accuracy_predictor
from latlas_nas.accuracy_predictor import AccuracyPredictor
from latlas_nas.data.digits import digits_data
from latlas_nas.data.images import ImageData
from latlas_nas.labelling import Label, Split, label_subnets
from latlas_nas.schedule import quickstart_schedule
from latlas_nas.supernet import Supernet
from latlas_nas.training import TrainingProgress, train_supernet
from latlas_ops.space import ArchConfig, SearchSpace

FOLDER = "supernet"
CURVE_FILE = "loss.csv"
_CURVE_POINTS = 200

Point = tuple[str, int, float]


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


def learn(job: Job) -> Learned:
    """Trains a supernet of the space and fits a predictor of its subnets' accuracy.

    What an earlier run trained or labelled is taken as it is.

    Raises:
        ConflictError: the folder holds a run with other settings.
        StorageError: a file there cannot be read or written.
    """
    settings, folder = job.settings, job.folder / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with job.clock.step("images"):
        data = digits_data(
            settings.seed,
            train_copies=settings.train_copies,
            validation_copies=settings.validation_copies,
            test_copies=settings.test_copies,
        )
    with job.clock.step("train"):
        supernet = _train(data, folder, job)
    with job.clock.step("label"):
        archs = distinct_archs(job.space, settings.n_labelled_subnets, job.rng("labelled subnets"))
        labels = _label(supernet, archs, data, "validation", folder / "labels.json", job)
        fit = cross_judge_accuracy_predictor(job.space, labels, settings.seed, settings.level)
        accuracy = fit_accuracy_predictor(job.space, labels, settings.seed)
        accuracy.save(folder / "accuracy.npz")
        smallest, largest = accuracies_on_test(
            supernet, job.space.archs(job.space.extremes()), data, job
        )
    return Learned(
        data,
        supernet,
        accuracy,
        SupernetFacts(
            training_seconds=job.clock.seconds["train"],
            smallest_accuracy=smallest,
            largest_accuracy=largest,
            n_validation_images=len(data.validation),
            n_test_images=len(data.test),
            held_out_measured=fit.measured.tolist(),
            held_out_predicted=fit.predicted.tolist(),
            curve=_thinned(_read_curve(folder / CURVE_FILE)),
        ),
    )


def accuracies_on_test(
    supernet: Supernet, archs: list[ArchConfig], data: ImageData, job: Job
) -> list[float]:
    """Accuracy on the test images of every subnet, in their order; known ones are looked up."""
    distinct = list(dict.fromkeys(archs))
    path = job.folder / FOLDER / "test-accuracies.json"
    labels = _label(supernet, distinct, data, "test", path, job)
    found = {label.arch: label.accuracy for label in labels}
    return [found[arch] for arch in archs]


def distinct_archs(space: SearchSpace, n_archs: int, rng: np.random.Generator) -> list[ArchConfig]:
    """Random architectures, every gene uniform, each at most once."""
    found: dict[ArchConfig, None] = {}
    while len(found) < n_archs:
        found |= dict.fromkeys(space.archs(space.sample(n_archs - len(found), rng)))
    return list(found)


def _label(
    supernet: Supernet,
    archs: list[ArchConfig],
    data: ImageData,
    split: Split,
    path: Path,
    job: Job,
) -> list[Label]:
    """Labels subnets with a progress bar."""
    label = f"  subnets on {split} images"
    with Progress(label, total=len(archs), done=None, stream=job.stream) as bar:

        def show(done: int, total: int) -> None:
            bar.update(done)
            job.clock.tick()

        return label_subnets(supernet, archs, data, path, split=split, on_progress=show)


def _train(data: ImageData, folder: Path, job: Job) -> Supernet:
    """Trains with a progress bar; the loss of every step is appended to a file."""
    schedule = quickstart_schedule(job.settings.short_training)
    path = folder / CURVE_FILE
    before = _read_curve(path)
    with (
        path.open("a", newline="", buffering=1) as curve,
        Progress(
            "  training the supernet",
            total=schedule.total_steps,
            done=before[-1][1] if before else 0,
            stream=job.stream,
        ) as bar,
    ):
        writer = csv.writer(curve)

        def show(progress: TrainingProgress) -> None:
            writer.writerow((progress.phase, progress.step, f"{progress.loss:.5f}"))
            bar.update(progress.step, f"phase {progress.phase}, loss {progress.loss:.2f}")
            job.clock.tick()

        return train_supernet(
            job.space, data, schedule, folder, job.settings.seed, on_progress=show
        )


def _read_curve(path: Path) -> list[Point]:
    """Phase, step and loss of every step; of steps that were repeated after a crash the last."""
    if not path.exists():
        return []
    points: dict[int, Point] = {}
    with path.open(newline="") as stream:
        for row in csv.reader(stream):
            if len(row) == 3:  # a crash may have cut a line
                points[int(row[1])] = (row[0], int(row[1]), float(row[2]))
    return [points[step] for step in sorted(points)]


def _thinned(points: list[Point]) -> list[Point]:
    """At most `_CURVE_POINTS` points at even distances, the last one among them."""
    stride = -(-len(points) // _CURVE_POINTS)
    return points[::-1][:: max(1, stride)][::-1]
