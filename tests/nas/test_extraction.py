"""Extracted subnets compute what the supernet computes."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from latlas_nas.extraction import Subnet, extract
from latlas_nas.recalibration import recalibrate
from latlas_nas.supernet import BatchNormStatistics, Supernet
from latlas_ops.errors import InvalidInputError
from latlas_ops.lowering import lower
from latlas_ops.space import ArchConfig
from latlas_ops.weights import check_weights
from latlas_ops.writers.onnx_writer import write_onnx
from latlas_ops.writers.torch_writer import torch_module

N_IMAGES = 5
RELATIVE = 1e-5


def prepared(
    supernet: Supernet, arch: ArchConfig
) -> tuple[torch.Tensor, BatchNormStatistics, Subnet]:
    side = supernet.space.network(arch).input_shape[-1]
    generator = torch.Generator().manual_seed(11)
    images = torch.randn(32, 1, side, side, generator=generator)
    statistics = recalibrate(supernet, arch, images)
    return images[:N_IMAGES], statistics, extract(supernet, arch, statistics)


def archs_of(supernet: Supernet) -> list[ArchConfig]:
    space = supernet.space
    rng = np.random.default_rng(4)
    return space.archs(space.extremes()) + space.archs(space.sample(10, rng))


def largest_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_a_subnet_on_torch_gives_the_supernets_output(random_supernet: Supernet) -> None:
    for arch in archs_of(random_supernet):
        images, statistics, subnet = prepared(random_supernet, arch)
        with torch.no_grad():
            expected = random_supernet(images, arch, statistics).numpy()
            found = torch_module(subnet.network, subnet.weights)(images).numpy()
        assert largest_error(found, expected) < RELATIVE


def test_a_subnet_on_onnxruntime_gives_the_supernets_output(random_supernet: Supernet) -> None:
    for arch in archs_of(random_supernet):
        images, statistics, subnet = prepared(random_supernet, arch)
        program = write_onnx(subnet.network, subnet.weights, batch=N_IMAGES)
        session = onnxruntime.InferenceSession(
            program.model_bytes, providers=["CPUExecutionProvider"]
        )
        (found,) = session.run(None, {"input": images.numpy()})
        with torch.no_grad():
            expected = random_supernet(images, arch, statistics).numpy()
        assert largest_error(found, expected) < RELATIVE


def test_a_subnet_holds_exactly_the_weights_of_its_network(random_supernet: Supernet) -> None:
    for arch in archs_of(random_supernet):
        _, _, subnet = prepared(random_supernet, arch)
        check_weights(lower(subnet.network), subnet.weights)
        assert subnet.network == random_supernet.space.network(arch)


def test_a_subnet_shares_no_memory_with_the_supernet(random_supernet: Supernet) -> None:
    _, _, subnet = prepared(random_supernet, random_supernet.largest)
    before = {name: array.copy() for name, array in subnet.weights.items()}
    with torch.no_grad():
        for parameter in random_supernet.parameters():
            parameter.zero_()
    assert all((subnet.weights[name] == array).all() for name, array in before.items())


def test_statistics_of_another_subnet_are_refused(random_supernet: Supernet) -> None:
    smallest, largest = archs_of(random_supernet)[:2]
    _, statistics, _ = prepared(random_supernet, smallest)
    with pytest.raises(InvalidInputError, match="batch norm statistics of"):
        extract(random_supernet, largest, statistics)
