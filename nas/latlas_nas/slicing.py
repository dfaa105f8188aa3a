"""Weight slicing: how a subnet's tensors are cut out of the supernet's.

Pure functions of tensors, shared by the supernet's forward pass and by the extraction of subnets,
so the two cannot disagree. A subnet takes the *first* channels of every axis (Cai et al.,
Once-for-All, ICLR 2020, section 3.2, "elastic width") and, where its kernel is smaller, the
transformed centre of the kernel ("elastic kernel size").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from latlas_ops.errors import InvalidInputError


def crop_centre(weight: torch.Tensor, kernel: int) -> torch.Tensor:
    """The central `kernel` x `kernel` part of a weight `(..., k, k)`; both sizes odd."""
    size = weight.shape[-1]
    if kernel > size or (size - kernel) % 2:
        raise InvalidInputError(f"a {size}x{size} kernel has no {kernel}x{kernel} centre")
    start = (size - kernel) // 2
    return weight[..., start : start + kernel, start : start + kernel]


def shrink_kernel(
    weight: torch.Tensor, kernel: int, transforms: Mapping[int, torch.Tensor]
) -> torch.Tensor:
    """A smaller kernel out of a larger one, step by step: crop the centre, then transform it.

    Once-for-All, section 3.2: 7x7 becomes 5x5 through a learned 25x25 matrix, and that becomes
    3x3 through a 9x9 matrix. Each layer has its own matrices; its channels share them.

    Args:
        weight: `(out, in, k, k)`.
        kernel: the size wanted, `k` or a key of `transforms`.
        transforms: matrix `(size * size, size * size)` by the size it produces.

    Returns:
        `(out, in, kernel, kernel)`, on the autograd graph of `weight` and the matrices.
    """
    for size in sorted(transforms, reverse=True):
        if kernel <= size < weight.shape[-1]:
            centre = crop_centre(weight, size).reshape(-1, size * size)
            flat = centre @ transforms[size].T
            weight = flat.reshape(*weight.shape[:2], size, size)
    if weight.shape[-1] != kernel:
        raise InvalidInputError(
            f"no transform leads to a {kernel}x{kernel} kernel; there are {sorted(transforms)}"
        )
    return weight


def slice_weight(
    weight: torch.Tensor, shape: Sequence[int], transforms: Mapping[int, torch.Tensor]
) -> torch.Tensor:
    """The part of a full weight that a subnet uses.

    Args:
        weight: convolution `(out, in / groups, k, k)` or linear `(out, in)`, of the supernet.
        shape: the shape that the subnet needs, not larger on any axis.
        transforms: see `shrink_kernel`; empty where the kernel is not elastic.
    """
    if len(shape) != weight.dim() or any(
        wanted > have for wanted, have in zip(shape, weight.shape, strict=True)
    ):
        raise InvalidInputError(f"cannot cut {tuple(shape)} out of {tuple(weight.shape)}")
    sliced = weight[: shape[0], : shape[1]]
    return shrink_kernel(sliced, shape[2], transforms) if len(shape) == 4 else sliced


def slice_vector(vector: torch.Tensor, length: int) -> torch.Tensor:
    """The first `length` elements of a bias or of a batch norm's scale or shift."""
    if length > len(vector):
        raise InvalidInputError(f"cannot cut {length} elements out of {len(vector)}")
    return vector[:length]


def fold_batch_norm(
    weight: torch.Tensor,
    *,
    scale: torch.Tensor,
    shift: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of the one convolution that equals convolution and batch norm.

    Args:
        weight: `(out, in / groups, k, k)`; the convolution has no bias of its own.
        scale: the norm's multiplier, `(out,)`; `shift`, `mean` and `variance` alike.
        shift: the norm's offset.
        mean: mean of the convolution's output per channel.
        variance: its variance.
        epsilon: added to the variance.
    """
    factor = scale * torch.rsqrt(variance + epsilon)
    return weight * factor.reshape(-1, 1, 1, 1), shift - mean * factor
