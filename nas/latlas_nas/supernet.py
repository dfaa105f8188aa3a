"""`Supernet`: the weights of a whole search space in one network.

`forward(x, arch)` runs one subnet. Nothing is stored by it: which subnet runs is an argument, and
batch norm either uses the statistics of the batch at hand (training) or statistics that are
passed in as a value (evaluation), so there is no running state to spoil.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from latlas_nas.elastic import ElasticLayer, SlicedLayer
from latlas_nas.primitives import apply, convolve
from latlas_nas.slicing import fold_batch_norm
from latlas_nas.walk import Step, walk
from latlas_ops.errors import InvalidInputError
from latlas_ops.graph import INPUT_TENSOR, OUTPUT_TENSOR
from latlas_ops.space import ArchConfig, SearchSpace

NORM_EPSILON = 1e-5
_NESTED_FAMILIES = {"resolution", "depth", "kernel", "expansion", "width", "inner_width"}
"""Families of genes whose later choices contain the earlier ones."""


@dataclass(frozen=True)
class BatchNormStatistics:
    """Mean and variance in front of every batch norm of one subnet, in execution order.

    Attributes:
        arch: the subnet they belong to.
        means: one `(channels,)` tensor per batch norm.
        variances: alike.
    """

    arch: ArchConfig
    means: tuple[torch.Tensor, ...]
    variances: tuple[torch.Tensor, ...]

    def require(self, arch: ArchConfig) -> None:
        """Raises `InvalidInputError` unless these are the statistics of `arch`."""
        if self.arch != arch:
            raise InvalidInputError(
                f"batch norm statistics of {self.arch.to_json()} given for {arch.to_json()}"
            )


Convolution = Callable[[Step, torch.Tensor, SlicedLayer], torch.Tensor]
"""How a convolution with batch norm is computed: step, input and parameters to output."""


def _with_batch_statistics(step: Step, tensor: torch.Tensor, layer: SlicedLayer) -> torch.Tensor:
    result = convolve(step.node, tensor, layer.weight, None)
    return F.batch_norm(
        result, None, None, layer.scale, layer.shift, training=True, eps=NORM_EPSILON
    )


class Supernet(nn.Module):
    """Shared weights of every architecture of a space.

    The largest architecture (every gene at its last choice) must contain every other: the last
    choice is the widest, deepest, with the largest kernel. `digits`, `course` and `ofa-mobilenetv3`
    are like that; spaces that choose between operations (cells, `fbnet`) are not.

    Args:
        space: the search space.
        generator: draws the initial weights.

    Raises:
        InvalidInputError: the space chooses between operations.
    """

    def __init__(self, space: SearchSpace, generator: torch.Generator) -> None:
        super().__init__()
        for gene in space.genes:
            if gene.family not in _NESTED_FAMILIES:
                raise InvalidInputError(
                    f"the space {space.name!r} has no supernet of nested weights: its gene "
                    f"{gene.name!r} chooses between operations; take a space of sizes alone, such "
                    "as digits, course or ofa-mobilenetv3"
                )
        self.space = space
        self.largest: ArchConfig = space.archs(space.extremes())[1]
        self.layers = nn.ModuleDict()
        kernels = _kernel_sizes(space)
        for step in walk(space, self.largest).steps:
            if step.layer:
                shape = step.node.parameters[0].shape
                smaller = [size for size in kernels.get(step.layer, ()) if size < shape[-1]]
                self.layers[_module_name(step.layer)] = ElasticLayer(
                    shape, smaller, step.norm >= 0, generator
                )

    def layer(self, name: str) -> ElasticLayer:
        """The parameters of `<slot>/<part>`, for example `stage0.layer1/depthwise`."""
        found = self.layers[_module_name(name)]
        assert isinstance(found, ElasticLayer)
        return found

    def has_layer(self, name: str) -> bool:
        """Whether the space has a layer `<slot>/<part>`."""
        return _module_name(name) in self.layers

    def digest(self) -> str:
        """SHA-256 over all parameters, to tell whether labels belong to these weights."""
        state = hashlib.sha256()
        for name, tensor in self.state_dict().items():
            state.update(name.encode())
            state.update(tensor.contiguous().numpy().tobytes())
        return state.hexdigest()

    def forward(
        self,
        x: torch.Tensor,
        arch: ArchConfig,
        statistics: BatchNormStatistics | None = None,
    ) -> torch.Tensor:
        """Logits `(n, classes)` of one subnet.

        Args:
            x: images `(n, channels, side, side)` at the resolution of `arch`.
            arch: the subnet.
            statistics: of this subnet, from `recalibrate`. Without them every batch norm uses
                the statistics of `x` itself, as in training.

        Raises:
            InvalidInputError: `x` has another shape, or `statistics` belong to another subnet.
            SpaceMismatchError: `arch` belongs to another space.
        """
        if statistics is None:
            return self.run(x, arch, _with_batch_statistics)
        statistics.require(arch)
        means, variances = statistics.means, statistics.variances

        def folded(step: Step, tensor: torch.Tensor, layer: SlicedLayer) -> torch.Tensor:
            weight, bias = fold_layer(layer, means[step.norm], variances[step.norm])
            return convolve(step.node, tensor, weight, bias)

        return self.run(x, arch, folded)

    def run(self, x: torch.Tensor, arch: ArchConfig, convolution: Convolution) -> torch.Tensor:
        """Logits of one subnet with a chosen treatment of batch norm; see `forward`."""
        plan = walk(self.space, arch)
        if tuple(x.shape[1:]) != plan.graph.input_shape:
            raise InvalidInputError(
                f"images {tuple(x.shape[1:])} given to a subnet for {plan.graph.input_shape}"
            )
        overwrite = not torch.is_grad_enabled()
        tensors = {INPUT_TENSOR: x}
        for step in plan.steps:
            node = step.node
            inputs = [tensors[name] for name in node.inputs]
            if step.layer:
                layer = self.layer(step.layer).sliced(node.parameters[0].shape)
                if step.norm >= 0:
                    result = convolution(step, inputs[0], layer)
                elif node.primitive == "linear":
                    result = F.linear(inputs[0], layer.weight, layer.bias)
                else:
                    result = convolve(node, inputs[0], layer.weight, layer.bias)
            else:
                inplace = overwrite and node.inputs[0] in step.dying - {INPUT_TENSOR}
                result = apply(node, inputs, inplace)
            tensors[node.output] = result
            for name in step.dying:
                del tensors[name]
        return tensors[OUTPUT_TENSOR]


def fold_layer(
    layer: SlicedLayer, mean: torch.Tensor, variance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a sliced convolution with its batch norm folded in."""
    assert layer.scale is not None
    assert layer.shift is not None
    return fold_batch_norm(
        layer.weight,
        scale=layer.scale,
        shift=layer.shift,
        mean=mean,
        variance=variance,
        epsilon=NORM_EPSILON,
    )


def _kernel_sizes(space: SearchSpace) -> dict[str, set[int]]:
    """Every kernel size that some architecture uses, by `<slot>/depthwise`."""
    entries = space.slot_entries
    return {
        f"{slot.name}/depthwise": {
            op.integer("kernel")
            for op in (entries.ops[index] for index in set(table.ravel().tolist()) if index >= 0)
            if op.kind == "mbconv"
        }
        for slot, table in zip(space.slots, entries.tables, strict=True)
    }


def _module_name(layer: str) -> str:
    """Module names must not hold dots, which torch uses for nesting."""
    return layer.replace(".", "_").replace("/", "-")
