"""Torch modules that look like something else: told apart, or refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from latlas_ops import import_module
from latlas_ops.errors import UnsupportedModuleError


def test_shares_of_attention_cannot_be_changed() -> None:
    class Scaled(nn.Module):
        def __init__(self, twice: bool) -> None:
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
            self.twice = twice

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (
                layer(x).unflatten(-1, (2, 4)).transpose(1, 2)
                for layer in (self.query, self.key, self.value)
            )
            shares = (q @ k.transpose(-2, -1) * 0.5).softmax(-1)
            shares = shares.softmax(-1) if self.twice else shares * 0.5
            return (shares @ v).transpose(1, 2).flatten(2)

    for twice in (False, True):
        with pytest.raises(UnsupportedModuleError, match="shares of attention"):
            import_module(Scaled(twice), (1, 5, 8))


class Shown(nn.Module):
    """Does what a function says, after a convolution."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.conv(x))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.view(1, 4, 2, 4, 8).transpose(1, 2).reshape(1, 4, 8, 8),
        lambda x: x.flatten(1, 2).mean(-1),
    ],
    ids=["height-split", "mean-of-rows"],
)
def test_what_only_looks_like_a_primitive_is_refused(
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    with pytest.raises(UnsupportedModuleError):
        import_module(Shown(function), (1, 4, 8, 8))


def test_tied_weights_are_not_taken_for_those_of_an_untied_module() -> None:
    def two(tied: bool) -> nn.Sequential:
        net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
        if tied:
            net[2].weight = net[0].weight
        return net

    import_module(two(tied=True), (1, 6))
    untied = two(tied=False)
    arrays = list(import_module(untied, (1, 6)).weights.values())
    np.testing.assert_array_equal(arrays[0], untied[0].weight.detach().numpy())
    np.testing.assert_array_equal(arrays[2], untied[2].weight.detach().numpy())
