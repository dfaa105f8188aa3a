"""Batch norm statistics of one subnet, measured on images.

The channels of a subnet have other means and variances than the same channels inside a larger
one, so each subnet gets statistics of its own before it is judged or extracted (Once-for-All,
section 3.3).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from latlas_nas.elastic import SlicedLayer
from latlas_nas.primitives import convolve
from latlas_nas.supernet import NORM_EPSILON, BatchNormStatistics, Supernet
from latlas_nas.walk import Step, walk
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import ArchConfig

BATCH_SIZE = 64


@torch.no_grad()
def recalibrate(
    supernet: Supernet, arch: ArchConfig, images: torch.Tensor, batch_size: int = BATCH_SIZE
) -> BatchNormStatistics:
    """The mean over batches of each batch norm's mean and variance; the supernet is not changed.

    Variances are the unbiased ones, as torch keeps them in a batch norm's running statistics.

    Args:
        supernet: the shared weights.
        arch: the subnet.
        images: `(n, channels, side, side)` at the resolution of `arch`, from the training split.
        batch_size: images per batch; every batch is normalised by its own statistics.

    Raises:
        InvalidInputError: no images, or of another shape than the subnet takes.
    """
    if not len(images):
        raise InvalidInputError("recalibrating batch norms needs images")
    batches = torch.split(images, batch_size)
    n_norms = walk(supernet.space, arch).norms
    means: list[torch.Tensor] = [torch.zeros(())] * n_norms
    variances = list(means)

    for batch in batches:
        share = len(batch) / len(images)

        def normalised(
            step: Step, tensor: torch.Tensor, layer: SlicedLayer, share: float = share
        ) -> torch.Tensor:
            result = convolve(step.node, tensor, layer.weight, None)
            mean, variance = torch.zeros(result.shape[1]), torch.zeros(result.shape[1])
            result = F.batch_norm(
                result,
                mean,
                variance,
                layer.scale,
                layer.shift,
                training=True,
                momentum=1.0,
                eps=NORM_EPSILON,
            )
            means[step.norm] = means[step.norm] + share * mean
            variances[step.norm] = variances[step.norm] + share * variance
            return result

        supernet.run(batch, arch, normalised)
    return BatchNormStatistics(arch, tuple(means), tuple(variances))
