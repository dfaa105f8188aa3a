"""`ElasticLayer`: the parameters behind one convolution or linear layer of a supernet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from latlas_nas.slicing import slice_vector, slice_weight


@dataclass(frozen=True)
class SlicedLayer:
    """What a subnet uses of an `ElasticLayer`. Either a batch norm follows or there is a bias.

    Attributes:
        weight: convolution `(out, in / groups, k, k)` or linear `(out, in)`.
        bias: `(out,)`, None where a batch norm follows.
        scale: the batch norm's multiplier `(out,)`, or None.
        shift: the batch norm's offset `(out,)`, or None.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    scale: torch.Tensor | None
    shift: torch.Tensor | None


class ElasticLayer(nn.Module):
    """Full-size parameters of one layer; `sliced` cuts out a subnet's. Holds no running state.

    Args:
        shape: shape of the full weight.
        kernels: smaller kernel sizes that subnets may use; each gets a transform, at first the
            identity (a plain crop).
        norm: whether a batch norm follows; then the layer has no bias.
        generator: draws the initial weights (He et al., 2015, fan out).
    """

    def __init__(
        self,
        shape: Sequence[int],
        kernels: Sequence[int],
        norm: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        weight = torch.empty(*shape)
        if weight.dim() == 4:
            groups = 1 if shape[1] > 1 else shape[0]
            fan_out = shape[0] * math.prod(shape[2:]) // groups
            weight.normal_(0.0, math.sqrt(2.0 / fan_out), generator=generator)
        else:
            weight.normal_(0.0, 0.01, generator=generator)
        self.weight = nn.Parameter(weight)
        self.bias = None if norm else nn.Parameter(torch.zeros(shape[0]))
        self.scale = nn.Parameter(torch.ones(shape[0])) if norm else None
        self.shift = nn.Parameter(torch.zeros(shape[0])) if norm else None
        self.transforms = nn.ParameterDict(
            {str(size): nn.Parameter(torch.eye(size * size)) for size in kernels}
        )

    def kernel_transforms(self) -> Mapping[int, torch.Tensor]:
        """Transform matrix by the kernel size it produces; see `slicing.shrink_kernel`."""
        return {int(size): matrix for size, matrix in self.transforms.items()}

    def sliced(self, shape: Sequence[int]) -> SlicedLayer:
        """The tensors for a weight of `shape`, on the autograd graph of the parameters."""

        def cut(vector: torch.Tensor | None) -> torch.Tensor | None:
            return None if vector is None else slice_vector(vector, shape[0])

        return SlicedLayer(
            slice_weight(self.weight, shape, self.kernel_transforms()),
            cut(self.bias),
            cut(self.scale),
            cut(self.shift),
        )

    @torch.no_grad()
    def permute_inputs(self, order: torch.Tensor) -> None:
        """Reorders the input channels in place; `order` `(in,)` as `torch.argsort` gives it."""
        self.weight.copy_(self.weight[:, order])

    @torch.no_grad()
    def permute_outputs(self, order: torch.Tensor) -> None:
        """Reorders the output channels in place, with bias and batch norm."""
        for tensor in (self.weight, self.bias, self.scale, self.shift):
            if tensor is not None:
                tensor.copy_(tensor[order])
