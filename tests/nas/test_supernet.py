"""The supernet runs any subnet and keeps no state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from latlas_nas.recalibration import recalibrate
from latlas_nas.supernet import Supernet
from latlas_nas.walk import input_side
from latlas_ops.errors import InvalidInputError, SpaceMismatchError
from latlas_ops.space import ArchConfig
from latlas_ops.spaces import get_space
from latlas_ops.spaces.mobile import MobileSpace


def images_for(space: MobileSpace, arch: ArchConfig, n_images: int = 4) -> torch.Tensor:
    side = input_side(space, arch)
    generator = torch.Generator().manual_seed(side)
    return torch.randn(n_images, space.in_channels, side, side, generator=generator)


def some_archs(space: MobileSpace, n_archs: int) -> list[ArchConfig]:
    rng = np.random.default_rng(1)
    return space.archs(space.extremes()) + space.archs(space.sample(n_archs, rng))


def test_every_subnet_gives_logits_and_subnets_differ(
    random_supernet: Supernet, tiny_space: MobileSpace
) -> None:
    found = set()
    for arch in some_archs(tiny_space, 8):
        logits = random_supernet(images_for(tiny_space, arch), arch)
        assert logits.shape == (4, 10)
        found.add(tuple(logits[0].tolist()))
    assert len(found) == 10


def test_running_and_recalibrating_leave_every_tensor_as_it_was(
    random_supernet: Supernet, tiny_space: MobileSpace
) -> None:
    before = {name: tensor.clone() for name, tensor in random_supernet.state_dict().items()}
    assert list(random_supernet.buffers()) == []
    for arch in some_archs(tiny_space, 4):
        images = images_for(tiny_space, arch)
        kept = images.clone()
        random_supernet(images, arch)
        statistics = recalibrate(random_supernet, arch, images)
        first = random_supernet(images, arch, statistics)
        assert torch.equal(random_supernet(images, arch, statistics), first)
        assert torch.equal(images, kept)
    after = random_supernet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_result_is_the_same_with_and_without_gradients(
    random_supernet: Supernet, tiny_space: MobileSpace
) -> None:
    for arch in some_archs(tiny_space, 4):
        images = images_for(tiny_space, arch)
        with torch.no_grad():
            without = random_supernet(images, arch)
        torch.testing.assert_close(random_supernet(images, arch), without, rtol=1e-5, atol=1e-5)


def test_a_subnet_trains_only_what_it_uses(
    random_supernet: Supernet, tiny_space: MobileSpace
) -> None:
    smallest = some_archs(tiny_space, 0)[0]
    random_supernet(images_for(tiny_space, smallest), smallest).sum().backward()
    deeper = random_supernet.layer("stage0.layer1/expand").weight
    shallow = random_supernet.layer("stage0.layer0/depthwise")
    assert deeper.grad is None
    assert shallow.weight.grad is not None
    n_channels = tiny_space.expanded_channels(tiny_space.stem_channels, 2)
    assert shallow.weight.grad[:n_channels].any()
    assert not shallow.weight.grad[n_channels:].any()
    assert all(matrix.grad is not None for matrix in shallow.kernel_transforms().values())


def test_images_of_another_resolution_are_refused(
    random_supernet: Supernet, tiny_space: MobileSpace
) -> None:
    arch = some_archs(tiny_space, 0)[0]
    with pytest.raises(InvalidInputError, match=r"images \(1, 20, 20\) given to a subnet"):
        random_supernet(torch.zeros(2, 1, 20, 20), arch)


def test_statistics_of_another_subnet_are_refused(
    random_supernet: Supernet, tiny_space: MobileSpace
) -> None:
    smallest, largest = some_archs(tiny_space, 0)
    statistics = recalibrate(random_supernet, smallest, images_for(tiny_space, smallest))
    with pytest.raises(InvalidInputError, match="batch norm statistics of"):
        random_supernet(images_for(tiny_space, largest), largest, statistics)


def test_an_architecture_of_another_space_is_refused(random_supernet: Supernet) -> None:
    other = get_space("ofa-mobilenetv3")
    arch = other.archs(other.extremes())[0]
    with pytest.raises(SpaceMismatchError, match="ofa-mobilenetv3"):
        random_supernet(torch.zeros(1, 3, 128, 128), arch)


def test_equal_generators_give_equal_weights(tiny_space: MobileSpace) -> None:
    first, second, other = (
        Supernet(tiny_space, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert first.digest() == second.digest() != other.digest()


@pytest.mark.parametrize("name", ["ofa-mobilenetv3", "course"])
def test_the_large_spaces_have_supernets_too(name: str) -> None:
    space = get_space(name)
    assert isinstance(space, MobileSpace)
    supernet = Supernet(space, torch.Generator().manual_seed(0))
    arch = space.archs(space.sample(1, np.random.default_rng(0)))[0]
    with torch.no_grad():
        assert supernet(images_for(space, arch, 2), arch).shape == (2, 1000)


@pytest.mark.parametrize("name", ["fbnet", "nas-bench-201", "encoder-pre-norm"])
def test_a_space_that_chooses_between_operations_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name}.*chooses between operations") as error:
        Supernet(get_space(name), torch.Generator())
    assert "\n" not in str(error.value)
