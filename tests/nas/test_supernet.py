"""A subnet is an argument of the supernet's forward pass, not a state of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latlas_nas.supernet import Supernet
from latlas_ops.errors import LatlasError
from latlas_ops.spaces import get_space

SPACE = get_space("digits")


@pytest.fixture(scope="module")
def supernet() -> Supernet:
    return Supernet(SPACE, torch.Generator().manual_seed(0))


def images(side: int) -> torch.Tensor:
    return torch.randn(4, 1, side, side, generator=torch.Generator().manual_seed(1))


def test_a_forward_pass_changes_nothing(supernet: Supernet) -> None:
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    for arch in SPACE.archs(SPACE.sample(3, np.random.default_rng(0))):
        side = int(SPACE.genes[0].choices[arch.genes[0]])
        assert supernet(images(side), arch).shape == (4, 10)
    for name, value in supernet.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_subnets_differ(supernet: Supernet) -> None:
    smallest, largest = SPACE.archs(SPACE.extremes())
    side = int(SPACE.genes[0].choices[0])
    one = supernet(images(side), smallest)
    two = supernet(images(int(SPACE.genes[0].choices[-1])), largest)
    assert not torch.allclose(one, two)


def test_an_image_of_the_wrong_size_is_refused(supernet: Supernet) -> None:
    smallest = SPACE.archs(SPACE.extremes())[0]
    with pytest.raises(LatlasError):
        supernet(images(17), smallest)
