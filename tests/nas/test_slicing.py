"""Cutting a subnet's tensors out of the supernet's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from latlas_nas.slicing import crop_centre, fold_batch_norm, shrink_kernel, slice_weight
from latlas_ops.errors import InvalidInputError


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_a_kernel_is_cropped_around_its_centre() -> None:
    weight = torch.arange(49.0).reshape(1, 1, 7, 7)
    assert crop_centre(weight, 3).flatten().tolist() == [16, 17, 18, 23, 24, 25, 30, 31, 32]


def test_a_kernel_shrinks_in_steps_through_its_matrices() -> None:
    weight, five, three = random(4, 1, 7, 7), random(25, 25), random(9, 9)
    small = shrink_kernel(weight, 3, {5: five, 3: three})
    for channel in range(4):
        middle = (five @ weight[channel, 0, 1:6, 1:6].flatten()).reshape(5, 5)
        expected = (three @ middle[1:4, 1:4].flatten()).reshape(3, 3)
        torch.testing.assert_close(small[channel, 0], expected)


def test_the_full_kernel_is_left_alone_by_the_matrices() -> None:
    weight = random(4, 1, 7, 7)
    assert torch.equal(shrink_kernel(weight, 7, {5: random(25, 25), 3: random(9, 9)}), weight)


def test_a_slice_takes_the_first_channels_of_both_axes() -> None:
    weight = random(6, 5, 1, 1)
    assert torch.equal(slice_weight(weight, (4, 3, 1, 1), {}), weight[:4, :3])


def test_slicing_changes_nothing_and_lets_gradients_through_to_the_used_part_only() -> None:
    weight, before = random(6, 1, 5, 5).requires_grad_(), random(6, 1, 5, 5)
    matrix = torch.eye(9, requires_grad=True)
    slice_weight(weight, (4, 1, 3, 3), {3: matrix}).sum().backward()
    assert torch.equal(weight, before)
    assert weight.grad is not None
    assert weight.grad[:4, :, 1:4, 1:4].eq(1).all()
    assert weight.grad.sum() == 4 * 9
    assert matrix.grad is not None


@pytest.mark.parametrize("shape", [(7, 5, 1, 1), (4, 6, 1, 1), (4, 5)])
def test_more_than_there_is_cannot_be_cut_out(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="cannot cut"):
        slice_weight(random(6, 5, 1, 1), shape, {})


def test_a_kernel_that_no_matrix_leads_to_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no transform leads to a 3x3 kernel"):
        shrink_kernel(random(4, 1, 7, 7), 3, {5: torch.eye(25)})


def test_a_folded_convolution_equals_convolution_and_batch_norm() -> None:
    weight, images = random(6, 3, 3, 3), random(2, 3, 8, 8)
    scale, shift, mean, variance = random(6), random(6) + 1, random(6) * 2, random(6).abs()
    folded, bias = fold_batch_norm(
        weight, scale=scale, shift=shift, mean=mean, variance=variance, epsilon=1e-5
    )
    expected = functional.batch_norm(
        functional.conv2d(images, weight), mean, variance, scale, shift, eps=1e-5
    )
    torch.testing.assert_close(
        functional.conv2d(images, folded, bias), expected, rtol=1e-5, atol=1e-5
    )
