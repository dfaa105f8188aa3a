"""Labels of subnets, kept in a file that an interruption does not spoil."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from latlas_nas.accuracy import classifier_accuracy, measure_accuracy, subnet_statistics
from latlas_nas.data.images import ImageData
from latlas_nas.extraction import extract
from latlas_nas.labelling import label_subnets, read_labels
from latlas_nas.supernet import Supernet
from latlas_ops.errors import ConflictError, StorageError
from latlas_ops.space import ArchConfig
from latlas_ops.spaces import get_space
from latlas_ops.writers.torch_writer import torch_module


def sampled(supernet: Supernet, n_archs: int) -> list[ArchConfig]:
    return supernet.space.archs(supernet.space.sample(n_archs, np.random.default_rng(0)))


def test_an_extracted_subnet_is_as_accurate_as_its_label(
    random_supernet: Supernet, tiny_data: ImageData, tmp_path: Path
) -> None:
    archs = sampled(random_supernet, 3)
    labels = label_subnets(random_supernet, archs, tiny_data, tmp_path / "labels.json")
    assert [label.arch for label in labels] == archs
    for label in labels:
        statistics = subnet_statistics(random_supernet, label.arch, tiny_data.train)
        subnet = extract(random_supernet, label.arch, statistics)
        module = torch_module(subnet.network, subnet.weights)
        found = classifier_accuracy(module, tiny_data.validation, subnet.resolution)
        assert found == pytest.approx(label.accuracy, abs=0.011)


def test_labelling_continues_where_it_was_interrupted(
    random_supernet: Supernet, tiny_data: ImageData, tmp_path: Path
) -> None:
    archs, path = sampled(random_supernet, 6), tmp_path / "labels.json"

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        label_subnets(random_supernet, archs, tiny_data, path, on_progress=stop)
    assert len(read_labels(path, random_supernet.space)) == 3
    seen: list[tuple[int, int]] = []
    labels = label_subnets(
        random_supernet,
        archs,
        tiny_data,
        path,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(3, 6), (4, 6), (5, 6), (6, 6)]
    assert read_labels(path, random_supernet.space) == labels
    fresh = label_subnets(random_supernet, archs, tiny_data, tmp_path / "other.json", workers=1)
    assert fresh == labels


def test_labels_of_other_weights_are_not_mixed_in(
    random_supernet: Supernet, tiny_data: ImageData, tmp_path: Path
) -> None:
    archs, path = sampled(random_supernet, 1), tmp_path / "labels.json"
    label_subnets(random_supernet, archs, tiny_data, path)
    with torch.no_grad():
        random_supernet.layer("stem/conv").weight.mul_(2)
    with pytest.raises(ConflictError, match="another supernet"):
        label_subnets(random_supernet, archs, tiny_data, path)


def test_labels_of_another_space_are_refused(
    random_supernet: Supernet, tiny_data: ImageData, tmp_path: Path
) -> None:
    path = tmp_path / "labels.json"
    label_subnets(random_supernet, sampled(random_supernet, 1), tiny_data, path)
    with pytest.raises(ConflictError, match="another space"):
        read_labels(path, get_space("digits"))


def test_a_file_that_holds_no_labels_is_named(random_supernet: Supernet, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text("{")
    with pytest.raises(StorageError, match=r"labels\.json is no file of labels"):
        read_labels(path, random_supernet.space)


def test_accuracy_is_the_share_of_images_classified_correctly(
    random_supernet: Supernet, tiny_data: ImageData
) -> None:
    arch = random_supernet.largest
    statistics = subnet_statistics(random_supernet, arch, tiny_data.train)
    images = tiny_data.test.head(70)
    with torch.no_grad():
        logits = random_supernet(images.batch(slice(None), 24), arch, statistics)
    expected = float((logits.argmax(1) == images.labels).float().mean())
    assert measure_accuracy(random_supernet, arch, images, statistics) == pytest.approx(expected)
