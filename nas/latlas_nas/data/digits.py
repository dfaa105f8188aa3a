"""Handwritten digits of scikit-learn, distorted: real images that need no download.

1,797 grey images of 8x8 pixels (Alpaydin and Kaynak, UCI "Optical Recognition of Handwritten
Digits", test part). Redrawn at 48 pixels and distorted they are hard enough that large subnets are
clearly better than small ones.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from latlas_nas.data.images import ImageData, ImageSet
from latlas_nas.distortions import Distortion, distort
from latlas_ops.errors import MissingDependencyError

SIDE = 48
"""Side in pixels of the images: the largest resolution of the space `digits`."""

DISTORTION = Distortion(
    rotation_degrees=30.0,
    shift=0.12,
    scale=0.25,
    shear=0.3,
    blur_sigma=2.0,
    contrast=0.6,
    noise=0.25,
    occlusion=0.4,
)
"""Strength for training, validation and test alike."""


def digits_data(
    seed: int = 0,
    *,
    train_copies: int = 10,
    validation_copies: int = 4,
    test_copies: int = 6,
    distortion: Distortion = DISTORTION,
) -> ImageData:
    """The digits in three splits (60, 20 and 20 % of the originals), each distorted several times.

    Splits are stratified by class and drawn by index, so no original is in two of them.

    Args:
        seed: decides splits and distortions; equal seeds give equal images.
        train_copies: distorted versions per original of the training split.
        validation_copies: the same for the validation split.
        test_copies: the same for the test split.
        distortion: how strong.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingDependencyError(
            'the digits come with scikit-learn: pip install "latlas[nas]"'
        ) from error
    pixels, labels = load_digits(return_X_y=True)
    originals = torch.from_numpy(pixels.reshape(-1, 1, 8, 8) / 16.0).float()
    classes = torch.from_numpy(labels).long()
    generator = torch.Generator().manual_seed(seed)
    parts = split_by_class(labels, (0.6, 0.2, 0.2), np.random.default_rng(seed))
    sets = []
    for part, copies in zip(parts, (train_copies, validation_copies, test_copies), strict=True):
        versions = [distort(originals[part], distortion, SIDE, generator) for _ in range(copies)]
        images = torch.cat(versions).mul(255).round().to(torch.uint8)
        sets.append(ImageSet(images, classes[part].repeat(copies)))
    return ImageData("digits", *sets)


def split_by_class(
    labels: NDArray[np.integer], fractions: tuple[float, ...], rng: np.random.Generator
) -> list[NDArray[np.intp]]:
    """Disjoint index sets with nearly the same share of every class, each in random order.

    Args:
        labels: class per image, `(n,)`.
        fractions: share of each part; they sum to 1.
        rng: the source of randomness.
    """
    parts: list[list[NDArray[np.intp]]] = [[] for _ in fractions]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        bounds = np.round(np.cumsum(fractions)[:-1] * len(members)).astype(np.intp)
        for part, piece in zip(parts, np.split(members, bounds), strict=True):
            part.append(piece)
    return [rng.permutation(np.concatenate(pieces)) for pieces in parts]
