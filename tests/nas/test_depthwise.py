"""The depthwise convolution with its own weight gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from latlas_nas.depthwise import depthwise


@pytest.mark.parametrize("side", [9, 12])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_value_and_gradients_are_those_of_torch(kernel: int, stride: int, side: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(3, 8, side, side, dtype=torch.double, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(8, 1, kernel, kernel, dtype=torch.double, generator=generator)
    weight.requires_grad_()
    ours = depthwise(images, weight, stride)
    torchs = functional.conv2d(images, weight, None, stride, kernel // 2, 1, 8)
    torch.testing.assert_close(ours, torchs)
    towards = torch.randn(torchs.shape, dtype=torch.double, generator=generator)
    for mine, theirs in zip(
        torch.autograd.grad(ours, [images, weight], towards),
        torch.autograd.grad(torchs, [images, weight], towards),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)
