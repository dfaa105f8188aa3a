"""Measured accuracies of subnets, kept in a file that grows label by label."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from latlas_ops.errors import ConflictError, StorageError
from latlas_ops.space import ArchConfig, SearchSpace

from latlas_nas.accuracy import measure_accuracy, subnet_statistics
from latlas_nas.data.images import ImageData
from latlas_nas.memory import keep_freed_memory
from latlas_nas.parallel import worker_pool
from latlas_nas.supernet import Supernet

_FORMAT = "latlas-labels"
_VERSION = 1


@dataclass(frozen=True)
class Label:
    """What one subnet reached.

    Attributes:
        arch: the subnet.
        accuracy: share of validation images classified correctly, in [0, 1].
    """

    arch: ArchConfig
    accuracy: float


def label_subnets(
    supernet: Supernet,
    archs: Sequence[ArchConfig],
    data: ImageData,
    path: Path,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int | None = None,
) -> list[Label]:
    """Accuracy of every subnet on the validation split, each with batch norms of its own.

    Labels go to `path` one by one. A later call takes those that are there, so a run that was
    killed continues where it stopped and more subnets can be added to an old file.

    Args:
        supernet: the trained weights.
        archs: the subnets, at most once each.
        data: batch norms see its training split, accuracy its validation split.
        path: a text file, one JSON record per line; made if absent.
        on_progress: called with labels done and wanted, in this thread.
        workers: cores to use, by default all; does not influence the result.

    Returns:
        One label per subnet, in the order of `archs`.

    Raises:
        ConflictError: the file belongs to another supernet or other images.
        StorageError: the file cannot be read or written, or is no label file.
    """
    keep_freed_memory()
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "space": supernet.space.name,
        "space_version": supernet.space.version,
        "supernet": supernet.digest(),
        "validation": data.validation.digest,
        "train": data.train.digest,
    }
    found = _resume(path, header, supernet.space)
    missing = [arch for arch in archs if arch not in found]
    done = len(archs) - len(missing)
    on_progress(done, len(archs))

    def label(arch: ArchConfig) -> Label:
        statistics = subnet_statistics(supernet, arch, data.train)
        return Label(arch, measure_accuracy(supernet, arch, data.validation, statistics))

    with worker_pool(workers) as pool, path.open("a", encoding="utf-8") as stream:
        for result in pool.map(label, missing):
            record = {"genes": list(result.arch.genes), "accuracy": result.accuracy}
            stream.write(json.dumps(record) + "\n")
            stream.flush()
            found[result.arch] = result
            done += 1
            on_progress(done, len(archs))
    return [found[arch] for arch in archs]


def read_labels(path: Path, space: SearchSpace) -> list[Label]:
    """The labels of a file, in the order in which they were made.

    Raises:
        StorageError: the file cannot be read or is no label file.
        ConflictError: it belongs to another space.
    """
    lines = _complete_lines(path)
    if not lines:
        raise StorageError(f"{path} holds no labels")
    header = _header(lines[0], path)
    for field, value in (("space", space.name), ("space_version", space.version)):
        _require(header, field, value, path)
    return _labels(lines[1:], space, path)


def _resume(path: Path, header: dict[str, object], space: SearchSpace) -> dict[ArchConfig, Label]:
    """The labels already in the file, which then ends with a complete line."""
    lines = _complete_lines(path) if path.exists() else []
    if not lines:
        path.write_text(json.dumps(header) + "\n", encoding="utf-8")
        return {}
    there = _header(lines[0], path)
    for field, value in header.items():
        _require(there, field, value, path)
    labels = _labels(lines[1:], space, path)
    path.write_text("".join(lines), encoding="utf-8")
    return {label.arch: label for label in labels}
