"""A space and images small enough that a supernet trains in a second, and latency models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from latlas_latency.measurement.target import Target
from latlas_latency.model import LatencyModel, OpLatencies, Prediction
from latlas_nas.data.digits import digits_data
from latlas_nas.data.images import ImageData, ImageSet, resize
from latlas_nas.schedule import ALL, Phase, Schedule
from latlas_nas.supernet import Supernet
from latlas_ops.costs import op_cost
from latlas_ops.errors import NotAdditiveError
from latlas_ops.network import Network
from latlas_ops.space import ArchBatch, SearchSpace
from latlas_ops.spaces.mobile import MobileSpace, Stage

LOOPBACK_TARGET = Target("here", "a board", "onnxruntime", "1.0", "CPUExecutionProvider")


@pytest.fixture(scope="session")
def tiny_space() -> MobileSpace:
    """Every kind of choice and of block, few channels: 16 and 24 px, all genes elastic."""
    return MobileSpace(
        name="tiny",
        version=1,
        in_channels=1,
        classes=10,
        resolutions=(16, 24),
        stem_channels=8,
        stem_stride=2,
        stages=(Stage(16, 1, "relu"), Stage(24, 2, squeeze_excite=True)),
        depths=(1, 2),
        kernels=(3, 5, 7),
        expansions=(2, 3),
        widths=(0.5, 1.0),
        head_channels=24,
        feature_channels=16,
    )


@pytest.fixture(scope="session")
def tiny_data() -> ImageData:
    """Digits at 24 px: 540 for training, 200 for validation, 200 for test."""
    data = digits_data(0, train_copies=1, validation_copies=1, test_copies=1)

    def small(images: ImageSet, n_images: int) -> ImageSet:
        pixels = resize(images.images[:n_images].float(), 24).round().to(torch.uint8)
        return ImageSet(pixels, images.labels[:n_images])

    return ImageData(
        "tiny digits", small(data.train, 540), small(data.validation, 200), small(data.test, 200)
    )


@pytest.fixture(scope="session")
def tiny_schedule() -> Schedule:
    """Two phases of twelve steps."""
    wide = dict.fromkeys(("resolution", "kernel", "depth", "expansion", "width"), ALL)
    return Schedule(
        (
            Phase("full", 12, 6e-3, {"resolution": ALL}, distill=False),
            Phase("shrink", 12, 3e-3, wide, sort_channels=True),
        ),
        batch_size=16,
        warm_up_steps=4,
        checkpoint_steps=5,
    )


@pytest.fixture
def random_supernet(tiny_space: MobileSpace) -> Supernet:
    """A supernet in which nothing is at its neutral initial value, so that every mistake shows."""
    generator = torch.Generator().manual_seed(3)
    supernet = Supernet(tiny_space, generator)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            noise = torch.empty_like(parameter).uniform_(-1, 1, generator=generator)
            spread = 0.1 if "transforms" in name else 0.3
            parameter.add_(spread * noise)
    return supernet


class SumOfMacs:
    """A latency model that knows every op: a microsecond per thousand MACs, and a fixed part."""

    def __init__(self, space: SearchSpace, additive: bool = True, fixed_ms: float = 0.01) -> None:
        self._space, self._additive, self._fixed_ms = space, additive, fixed_ms
        entries = space.slot_entries
        cost_ms = np.array([op_cost(op).macs for op in entries.ops] + [0.0]) / 1e6
        self._tables = tuple(cost_ms[table] for table in entries.tables)
        self._cost_ms = cost_ms

    @property
    def target(self) -> Target:
        return LOOPBACK_TARGET

    def predict(
        self,
        subjects: ArchBatch | Sequence[Network],
        level: float = 0.9,
        *,
        allow_estimates: bool = False,
    ) -> Prediction:
        assert isinstance(subjects, ArchBatch)
        mean = self._fixed_ms + self._cost_ms[self._space.entry_indices(subjects)].sum(1)
        none = np.zeros_like(mean)
        width = 0.1 * level
        return Prediction(mean, mean * (1 - width), mean * (1 + width), mean, none, none, level)

    def op_latencies(self, space: SearchSpace) -> OpLatencies:
        if not self._additive:
            raise NotAdditiveError("no figures per op")
        return OpLatencies(self._fixed_ms, self._tables)


@pytest.fixture
def latency_model() -> Callable[..., LatencyModel]:
    """`latency_model(space, additive=True)`: the sum over ops of their MACs, in milliseconds."""
    return SumOfMacs


@pytest.fixture
def small_space() -> MobileSpace:
    """3,200 architectures: few enough to try them all."""
    return MobileSpace(
        name="small",
        version=1,
        in_channels=1,
        classes=10,
        resolutions=(16, 24),
        stem_channels=8,
        stem_stride=2,
        stages=(Stage(16, 1, "relu"), Stage(24, 2)),
        depths=(1, 2),
        kernels=(3, 5),
        expansions=(2, 3),
        widths=(0.5, 1.0),
        head_channels=24,
    )


@pytest.fixture
def all_archs() -> Callable[[SearchSpace], ArchBatch]:
    """Every distinct architecture of a space."""

    def enumerate_space(space: SearchSpace) -> ArchBatch:
        grids = np.meshgrid(*(np.arange(size) for size in space.sizes), indexing="ij")
        raw = np.stack([grid.ravel() for grid in grids], 1)
        return ArchBatch(space, np.unique(space.canonical(raw), axis=0))

    return enumerate_space


@pytest.fixture
def size_is_accuracy() -> Callable[[ArchBatch], NDArray[np.float64]]:
    """An accuracy that rises with every gene, each by its own amount: bigger is better."""

    def accuracy(archs: ArchBatch) -> NDArray[np.float64]:
        weights = np.random.default_rng(7).uniform(0.5, 1.5, len(archs.space.genes))
        return np.tanh((np.maximum(archs.genes, 0) * weights).sum(1) / 40)

    return accuracy
