"""Images held in memory, and the three splits every run needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from latlas_ops.errors import InvalidInputError


@dataclass(frozen=True)
class ImageSet:
    """Labelled images at one resolution, the largest of the search space.

    Attributes:
        images: `(n, channels, side, side)` uint8.
        labels: `(n,)` int64.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __post_init__(self) -> None:
        if self.images.dim() != 4 or self.images.dtype != torch.uint8:
            raise InvalidInputError("images must be uint8 (n, channels, side, side)")
        if self.labels.shape != (len(self.images),) or self.labels.dtype != torch.int64:
            raise InvalidInputError(f"{len(self.images)} images need as many int64 labels")

    def __len__(self) -> int:
        return len(self.images)

    def head(self, n_images: int) -> ImageSet:
        """The first `n_images`."""
        return ImageSet(self.images[:n_images], self.labels[:n_images])

    def batch(self, indices: torch.Tensor | slice, resolution: int) -> torch.Tensor:
        """Some images as a network takes them: float32 around zero, `(n, c, r, r)`."""
        return resize(self.images[indices].float() / 127.5 - 1.0, resolution)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over images and labels, to tell whether a resumed run sees the same data."""
        state = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        state.update(np.ascontiguousarray(self.images.numpy()).tobytes())
        state.update(self.labels.numpy().tobytes())
        return state.hexdigest()


@dataclass(frozen=True)
class ImageData:
    """Three splits that share no original image.

    Attributes:
        name: where the images come from.
        train: to train the supernet and to recalibrate batch norms.
        validation: to label subnets for the accuracy predictor.
        test: to judge the subnets that a search chose; used for nothing else.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    test: ImageSet


def resize(images: torch.Tensor, resolution: int) -> torch.Tensor:
    """Square images at another resolution: bilinear, antialiased; untouched if it is theirs."""
    if images.shape[-1] == resolution:
        return images
    return F.interpolate(
        images, size=(resolution, resolution), mode="bilinear", align_corners=False, antialias=True
    )
