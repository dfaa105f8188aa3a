"""Subnets as plain static networks, without retraining."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from latlas_nas.supernet import BatchNormStatistics, Supernet, fold_layer
from latlas_nas.walk import walk
from latlas_ops.network import Network
from latlas_ops.space import ArchConfig


@dataclass(frozen=True)
class Subnet:
    """A network that stands on its own, ready for every model writer.

    Attributes:
        arch: the architecture it was.
        network: its ops.
        weights: float32 array by parameter name of `latlas_ops.lowering.lower(network)`; batch
            norms are folded into the convolutions.
    """

    arch: ArchConfig
    network: Network
    weights: Mapping[str, NDArray[np.float32]]

    @property
    def resolution(self) -> int:
        """Height and width in pixels of the images it takes."""
        return self.network.input_shape[-1]


@torch.no_grad()
def extract(supernet: Supernet, arch: ArchConfig, statistics: BatchNormStatistics) -> Subnet:
    """The subnet as a static network whose output is that of the supernet for `arch`.

    Weights are sliced and folded by the functions that the supernet's forward pass uses.

    Args:
        supernet: the shared weights.
        arch: the subnet.
        statistics: its batch norm statistics, from `recalibrate`.

    Raises:
        InvalidInputError: the statistics belong to another subnet.
        SpaceMismatchError: `arch` belongs to another space.
    """
    statistics.require(arch)
    weights: dict[str, NDArray[np.float32]] = {}
    for step in walk(supernet.space, arch).steps:
        if not step.layer:
            continue
        weight_name, bias_name = (parameter.name for parameter in step.node.parameters)
        layer = supernet.layer(step.layer).sliced(step.node.parameters[0].shape)
        if step.norm >= 0:
            mean, variance = statistics.means[step.norm], statistics.variances[step.norm]
            weight, bias = fold_layer(layer, mean, variance)
        else:
            assert layer.bias is not None
            weight, bias = layer.weight, layer.bias
        weights[weight_name] = weight.contiguous().numpy().copy()
        weights[bias_name] = bias.numpy().copy()
    return Subnet(arch, supernet.space.network(arch), weights)
