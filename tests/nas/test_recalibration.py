"""Batch norm statistics of one subnet."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latlas_nas.recalibration import recalibrate
from latlas_nas.supernet import Supernet
from latlas_nas.walk import input_side
from latlas_ops.errors import InvalidInputError


def test_statistics_of_one_batch_give_what_that_batch_gives_in_training(
    random_supernet: Supernet,
) -> None:
    space = random_supernet.space
    for arch in space.archs(space.sample(3, np.random.default_rng(2))):
        side = input_side(space, arch)
        images = torch.randn(64, 1, side, side, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            statistics = recalibrate(random_supernet, arch, images, batch_size=64)
            torch.testing.assert_close(
                random_supernet(images, arch, statistics),
                random_supernet(images, arch),
                rtol=2e-2,
                atol=2e-2,
            )


def test_batches_count_by_their_number_of_images(random_supernet: Supernet) -> None:
    arch = random_supernet.largest
    side = input_side(random_supernet.space, arch)
    images = torch.randn(12, 1, side, side, generator=torch.Generator().manual_seed(0))
    whole = recalibrate(random_supernet, arch, images, batch_size=8)
    parts = [recalibrate(random_supernet, arch, part) for part in (images[:8], images[8:])]
    expected = parts[0].means[3] * 8 / 12 + parts[1].means[3] * 4 / 12
    torch.testing.assert_close(whole.means[3], expected)


def test_without_images_there_are_no_statistics(random_supernet: Supernet) -> None:
    with pytest.raises(InvalidInputError, match="needs images"):
        recalibrate(random_supernet, random_supernet.largest, torch.empty(0, 1, 24, 24))
