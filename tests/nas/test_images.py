"""Distortions, the digits, and image sets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latlas_nas.data.digits import digits_data, split_by_class
from latlas_nas.data.images import ImageSet, resize
from latlas_nas.distortions import Distortion, distort
from latlas_ops.errors import InvalidInputError


def blob(n_images: int = 3) -> torch.Tensor:
    image = torch.zeros(n_images, 1, 24, 24)
    image[:, :, 6:16, 8:12] = 1.0
    return image


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_without_any_strength_an_image_stays_as_it_is() -> None:
    torch.testing.assert_close(
        distort(blob(), Distortion(), 24, generator()), blob(), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    "distortion",
    [
        Distortion(rotation_degrees=40),
        Distortion(shift=0.2),
        Distortion(scale=0.5),
        Distortion(shear=0.5),
        Distortion(blur_sigma=2.0),
        Distortion(contrast=0.8),
        Distortion(noise=0.3),
        Distortion(occlusion=0.5),
    ],
    ids=lambda distortion: next(name for name, value in vars(distortion).items() if value),
)
def test_each_kind_changes_every_image_in_its_own_way(distortion: Distortion) -> None:
    found = distort(blob(), distortion, 24, generator())
    assert found.shape == (3, 1, 24, 24)
    assert found.min() >= 0
    assert found.max() <= 1
    assert not any(torch.equal(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert (found - blob()).abs().mean() > 1e-3


def test_the_generator_decides_and_the_global_one_is_left_alone() -> None:
    strong = Distortion(rotation_degrees=20, noise=0.2, occlusion=0.3, blur_sigma=1)
    before = torch.get_rng_state()
    first, again, other = (distort(blob(), strong, 24, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_digits_are_the_same_for_the_same_seed_only() -> None:
    first, again, other = (
        digits_data(seed, train_copies=1, validation_copies=1, test_copies=1) for seed in (0, 0, 1)
    )
    assert first.test.digest == again.test.digest != other.test.digest
    assert len({first.train.digest, first.validation.digest, first.test.digest}) == 3


def test_the_digits_have_every_class_in_every_split() -> None:
    data = digits_data(0, train_copies=2, validation_copies=1, test_copies=3)
    sizes = [len(part) for part in (data.train, data.validation, data.test)]
    assert sizes[0] / 2 + sizes[1] + sizes[2] / 3 == 1797
    for part in (data.train, data.validation, data.test):
        counts = np.bincount(part.labels.numpy())
        assert len(counts) == 10
        assert counts.max() < 1.15 * counts.min()
        assert part.images.shape[1:] == (1, 48, 48)


def test_splits_share_no_original() -> None:
    labels = np.repeat(np.arange(4), 25)
    parts = split_by_class(labels, (0.6, 0.2, 0.2), np.random.default_rng(0))
    assert sorted(np.concatenate(parts).tolist()) == list(range(100))
    assert [np.bincount(labels[part]).tolist() for part in parts] == [[15] * 4, [5] * 4, [5] * 4]


def test_images_are_given_around_zero_at_the_resolution_asked_for() -> None:
    images = ImageSet((blob() * 255).to(torch.uint8), torch.arange(3))
    batch = images.batch(torch.tensor([2, 0]), 12)
    assert batch.shape == (2, 1, 12, 12)
    untouched = images.batch(torch.tensor([2, 0]), 24)
    assert (untouched.min(), untouched.max()) == (-1, 1)
    assert resize(blob(), 24) is not None
    torch.testing.assert_close(resize(blob(), 12).mean(), blob().mean(), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 1, 8, 8), torch.arange(2)),
        (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.arange(3)),
    ],
)
def test_malformed_image_sets_are_refused(images: torch.Tensor, labels: torch.Tensor) -> None:
    with pytest.raises(InvalidInputError):
        ImageSet(images, labels)
