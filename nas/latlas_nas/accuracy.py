"""Accuracy of subnets on images."""

from __future__ import annotations

from collections.abc import Callable

import torch

from latlas_nas.data.images import ImageSet
from latlas_nas.recalibration import recalibrate
from latlas_nas.supernet import BatchNormStatistics, Supernet
from latlas_nas.walk import input_side
from latlas_ops.space import ArchConfig

_BATCH_SIZE = 32
RECALIBRATION_IMAGES = 256
"""Training images that batch norm statistics are taken from."""

Classifier = Callable[[torch.Tensor], torch.Tensor]
"""Images `(n, channels, side, side)` to logits `(n, classes)`."""


@torch.no_grad()
def classifier_accuracy(classifier: Classifier, images: ImageSet, resolution: int) -> float:
    """The share of images that any network classifies correctly, in [0, 1].

    Args:
        classifier: for example an extracted subnet as a torch module.
        images: with their labels.
        resolution: side in pixels that the classifier takes.
    """
    correct = 0
    for start in range(0, len(images), _BATCH_SIZE):
        part = slice(start, start + _BATCH_SIZE)
        logits = classifier(images.batch(part, resolution))
        correct += int((logits.argmax(1) == images.labels[part]).sum())
    return correct / len(images)


def measure_accuracy(
    supernet: Supernet,
    arch: ArchConfig,
    images: ImageSet,
    statistics: BatchNormStatistics,
) -> float:
    """The share of images that a subnet classifies correctly, in [0, 1].

    Args:
        supernet: the shared weights.
        arch: the subnet.
        images: with their labels.
        statistics: of this subnet; see `subnet_statistics`.
    """
    return classifier_accuracy(
        lambda x: supernet(x, arch, statistics), images, input_side(supernet.space, arch)
    )


def subnet_statistics(
    supernet: Supernet, arch: ArchConfig, training_images: ImageSet
) -> BatchNormStatistics:
    """Batch norm statistics of a subnet from the first images of the training split."""
    some = training_images.batch(slice(0, RECALIBRATION_IMAGES), input_side(supernet.space, arch))
    return recalibrate(supernet, arch, some)
