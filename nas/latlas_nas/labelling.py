"""Measured accuracies of subnets, kept in a file that grows label by label."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latlas_nas.accuracy import measure_accuracy, subnet_statistics
from latlas_nas.checkpoint import write_whole
from latlas_nas.data.images import ImageData
from latlas_nas.memory import keep_freed_memory
from latlas_nas.parallel import worker_pool
from latlas_nas.supernet import Supernet
from latlas_ops.errors import ConflictError, StorageError
from latlas_ops.space import ArchConfig, SearchSpace

_FORMAT = "latlas-labels"
_VERSION = 2

Split = Literal["validation", "test"]


@dataclass(frozen=True)
class Label:
    """What one subnet reached.

    Attributes:
        arch: the subnet.
        accuracy: share of images classified correctly, in [0, 1].
    """

    arch: ArchConfig
    accuracy: float


def label_subnets(
    supernet: Supernet,
    archs: Sequence[ArchConfig],
    data: ImageData,
    path: Path,
    *,
    split: Split = "validation",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int | None = None,
) -> list[Label]:
    """Accuracy of every subnet on one split, each with batch norms of its own.

    After every label the file is replaced as a whole. A later call takes the labels that are
    there, so a run that was killed continues where it stopped, and more subnets can be added to
    an old file.

    Args:
        supernet: the trained weights.
        archs: the subnets, at most once each.
        data: batch norms see its training split.
        path: a JSON file; made if absent.
        split: the images that accuracy is measured on: `validation` to fit a predictor, `test` to
            judge what a search chose.
        on_progress: called with labels done and wanted, in this thread.
        workers: cores to use, by default all; does not influence the result.

    Returns:
        One label per subnet, in the order of `archs`.

    Raises:
        ConflictError: the file belongs to another supernet or other images.
        StorageError: the file cannot be read or written, or is no label file.
    """
    keep_freed_memory()
    images = {"validation": data.validation, "test": data.test}[split]
    identity = {
        "space": supernet.space.name,
        "space_version": supernet.space.version,
        "supernet": supernet.digest(),
        "train": data.train.digest,
        "images": images.digest,
    }
    found = {}
    if path.exists():
        there, labels = _read(path, supernet.space)
        _require_same(there, identity, path)
        found = {label.arch: label for label in labels}
    missing = [arch for arch in archs if arch not in found]
    done = len(archs) - len(missing)
    on_progress(done, len(archs))

    def label(arch: ArchConfig) -> Label:
        statistics = subnet_statistics(supernet, arch, data.train)
        return Label(arch, measure_accuracy(supernet, arch, images, statistics))

    with worker_pool(workers) as pool:
        for result in pool.map(label, missing):
            found[result.arch] = result
            _write(path, identity, found.values())
            done += 1
            on_progress(done, len(archs))
    return [found[arch] for arch in archs]


def read_labels(path: Path, space: SearchSpace) -> list[Label]:
    """The labels of a file, in the order in which they were made.

    Raises:
        StorageError: the file cannot be read or is no label file.
        ConflictError: it belongs to another space.
    """
    identity, labels = _read(path, space)
    _require_same(identity, {"space": space.name, "space_version": space.version}, path)
    return labels


def _write(path: Path, identity: Mapping[str, object], labels: Iterable[Label]) -> None:
    rows = [{"genes": list(label.arch.genes), "accuracy": label.accuracy} for label in labels]
    record = {"format": _FORMAT, "version": _VERSION, "identity": identity, "labels": rows}
    write_whole(path, json.dumps(record).encode())


def _read(path: Path, space: SearchSpace) -> tuple[dict[str, object], list[Label]]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if (record["format"], record["version"]) != (_FORMAT, _VERSION):
            raise ValueError(f"format {record['format']!r} version {record['version']!r}")
        labels = [
            Label(ArchConfig(space.name, space.version, tuple(row["genes"])), row["accuracy"])
            for row in record["labels"]
        ]
        return record["identity"], labels
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} is no file of labels that can be read: {error}") from error


def _require_same(there: Mapping[str, object], wanted: Mapping[str, object], path: Path) -> None:
    for field, value in wanted.items():
        if there.get(field) != value:
            raise ConflictError(
                f"{path} holds labels of another {field} ({there.get(field)!r}, not {value!r}); "
                "give another file"
            )
