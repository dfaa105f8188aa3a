"""Distortions of small images: seeded, so that a test set is the same on every run.

One `Distortion` says how strong each kind may be; `distort` draws the strength for every image on
its own from the generator it is given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Distortion:
    """The largest strength of each kind of distortion; every image draws its own below it.

    Attributes:
        rotation_degrees: rotation either way.
        shift: translation along each axis, as a fraction of the side.
        scale: zoom between `1 / (1 + scale)` and 1; what is drawn only gets smaller.
        shear: horizontal shear either way, as a tangent.
        blur_sigma: Gaussian blur, in pixels of the result.
        contrast: ink and background may lose up to this fraction of their contrast.
        noise: standard deviation of Gaussian noise; images lie in [0, 1].
        occlusion: side of a grey square that hides a part, as a fraction of the side.
    """

    rotation_degrees: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    blur_sigma: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0
    occlusion: float = 0.0


def distort(
    images: torch.Tensor, distortion: Distortion, side: int, generator: torch.Generator
) -> torch.Tensor:
    """Images redrawn at `side` pixels and distorted, each in its own way.

    Args:
        images: `(n, channels, h, w)` float32 in [0, 1]; may be smaller than `side`.
        distortion: how strong.
        side: height and width of the result.
        generator: the source of randomness.

    Returns:
        `(n, channels, side, side)` float32 in [0, 1].
    """
    n = len(images)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.empty(n, *shape).uniform_(low, high, generator=generator)

    angle = uniform(-1, 1) * math.radians(distortion.rotation_degrees)
    zoom = torch.exp(-uniform(0, 1) * math.log1p(distortion.scale))
    shear = uniform(-1, 1) * distortion.shear
    shift = uniform(-2, 2, 2) * distortion.shift
    cos, sin = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    rows = (
        torch.stack([cos, shear * cos - sin, shift[:, 0]], 1),
        torch.stack([sin, shear * sin + cos, shift[:, 1]], 1),
    )
    grid = F.affine_grid(torch.stack(rows, 1), [n, images.shape[1], side, side], False)
    result = F.grid_sample(images, grid, "bicubic", "zeros", False).clamp_(0, 1)
    result = _blur(result, uniform(0, 1) * distortion.blur_sigma)
    faded = 1 - uniform(0, 1, 1, 1, 1) * distortion.contrast
    result = 0.5 + (result - 0.5) * faded
    result = _occlude(result, uniform(0, 1) * distortion.occlusion, uniform(0, 1, 2))
    noise = torch.randn(result.shape, generator=generator)
    return (result + noise * uniform(0, 1, 1, 1, 1) * distortion.noise).clamp_(0, 1)


def _blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur with a width of its own per image, `sigma` `(n,)` in pixels."""
    radius = math.ceil(2.5 * float(sigma.max()))
    if radius == 0:
        return images
    n, channels, height, width = images.shape
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma.clamp_min(1e-3).reshape(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = images.reshape(1, n * channels, height, width)
    flat = F.conv2d(flat, kernel[:, None, None, :], padding=(0, radius), groups=n * channels)
    flat = F.conv2d(flat, kernel[:, None, :, None], padding=(radius, 0), groups=n * channels)
    return flat.reshape(images.shape)


def _occlude(images: torch.Tensor, size: torch.Tensor, corner: torch.Tensor) -> torch.Tensor:
    """Covers a grey square of `size` `(n,)` at `corner` `(n, 2)`, both fractions of the side."""
    side = images.shape[-1]
    position = (torch.arange(side) + 0.5) / side
    start = corner * (1 - size[:, None])
    inside = [
        (position >= start[:, axis, None]) & (position < (start[:, axis] + size)[:, None])
        for axis in (0, 1)
    ]
    covered = inside[0][:, :, None] & inside[1][:, None, :]
    return torch.where(covered[:, None], torch.tensor(0.5), images)
