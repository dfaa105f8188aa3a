"""Sorting channels by importance."""

from __future__ import annotations

import torch

from latlas_nas.importance import channel_order, sort_channels
from latlas_nas.recalibration import recalibrate
from latlas_nas.supernet import Supernet
from latlas_nas.walk import input_side


def test_channels_are_ordered_by_the_l1_norm_of_what_reads_them() -> None:
    weight = torch.tensor([[1.0, -5.0, 2.0], [1.0, 0.0, -2.0]])
    assert channel_order(weight).tolist() == [1, 2, 0]


def test_channels_stay_inside_the_widths_that_are_already_trained() -> None:
    weight = torch.tensor([[1.0, 2.0, 9.0, 8.0]])
    assert channel_order(weight, kept_widths=[2]).tolist() == [1, 0, 2, 3]


def test_sorting_does_not_change_what_the_full_network_computes(
    random_supernet: Supernet,
) -> None:
    arch = random_supernet.largest
    side = input_side(random_supernet.space, arch)
    images = torch.randn(8, 1, side, side, generator=torch.Generator().manual_seed(0))
    digest = random_supernet.digest()
    with torch.no_grad():
        before = random_supernet(images, arch)
        sort_channels(random_supernet)
        after = random_supernet(images, arch)
        statistics = recalibrate(random_supernet, arch, images)
        assert torch.isfinite(random_supernet(images, arch, statistics)).all()
    assert random_supernet.digest() != digest
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_after_sorting_the_most_important_channels_come_first(random_supernet: Supernet) -> None:
    sort_channels(random_supernet)
    for name in ("stage0.layer1/project", "stage1.layer0/project", "stage1.layer0/se_expand"):
        importance = random_supernet.layer(name).weight.abs().sum((0, 2, 3))
        assert (importance.diff() <= 0).all()
