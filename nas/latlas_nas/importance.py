"""Channel sorting: the most important channels first, so that slices keep them.

Once-for-All, section 3.2, "elastic width": before narrower layers are trained, the channels inside
every block are put in order of the L1 norm of the weights that read them. Every tensor along the
way is permuted alike, so the full network computes what it computed before.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from latlas_nas.supernet import Supernet


def channel_order(weight: torch.Tensor, kept_widths: Sequence[int] = ()) -> torch.Tensor:
    """The order of a layer's input channels by falling importance.

    Args:
        weight: `(out, in, ...)` of the layer that reads the channels.
        kept_widths: numbers of leading channels that narrower subnets already use; channels
            never cross these borders, so those subnets keep theirs.

    Returns:
        `(in,)` int64: position in the new order to channel in the old one.
    """
    axes = [axis for axis in range(weight.dim()) if axis != 1]
    importance = weight.abs().sum(axes)
    borders = [0, *sorted(kept_widths), len(importance)]
    parts = [
        start + torch.argsort(importance[start:stop], descending=True, stable=True)
        for start, stop in pairwise(borders)
    ]
    return torch.cat(parts)


@torch.no_grad()
def sort_channels(supernet: Supernet) -> None:
    """Sorts the inner channels of every block, and those of every squeeze-excite gate, in place.

    The output of the full network does not change. Subnets of smaller width do, so this belongs
    before the phase that trains them.
    """
    space = supernet.space
    for slot in space.slots:
        names = {f"{slot.name}/{part}": part for part in ("expand", "depthwise", "project")}
        if not all(supernet.has_layer(name) for name in names):
            continue
        expand, depthwise, project = (supernet.layer(name) for name in names)
        order = channel_order(project.weight)
        project.permute_inputs(order)
        depthwise.permute_outputs(order)
        expand.permute_outputs(order)
        if supernet.has_layer(f"{slot.name}/se_reduce"):
            reduce = supernet.layer(f"{slot.name}/se_reduce")
            gate = supernet.layer(f"{slot.name}/se_expand")
            reduce.permute_inputs(order)
            gate.permute_outputs(order)
            inner = channel_order(gate.weight)
            gate.permute_inputs(inner)
            reduce.permute_outputs(inner)
