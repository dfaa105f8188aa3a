from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from latlas_ops import SPACE_NAMES, ArchBatch, Network, OpSpec, get_space
from latlas_ops.errors import InvalidInputError
from latlas_ops.lowering import lower
from latlas_ops.weights import check_weights, random_weights
from latlas_ops.writers.onnx_writer import write_onnx

NETWORK = Network.chain([OpSpec.of("conv", (3, 8, 8), out_channels=4, kernel=3)])


def test_random_weights_are_what_the_graph_needs(example_op: OpSpec) -> None:
    graph = lower(Network.chain([example_op]))
    weights = random_weights(graph, np.random.default_rng(0))
    check_weights(graph, weights)
    assert all(np.any(array != 0) for array in weights.values())


def test_random_weights_are_decided_by_the_generator() -> None:
    graph = lower(NETWORK)
    first, again, other = (random_weights(graph, np.random.default_rng(seed)) for seed in (0, 0, 1))
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
        assert (array != other[name]).all()


# For DARTS see `test_darts`: each of its three hundred random ops makes two images more alike, and
# the mean over the image takes away what is left of their noise at the end.
@pytest.mark.parametrize("name", [name for name in SPACE_NAMES if name != "darts"])
def test_signals_neither_blow_up_nor_vanish_in_the_deepest_network(
    name: str, run_onnx: Callable[..., NDArray[np.float32]]
) -> None:
    space = get_space(name)
    genes = space.extremes().genes[1:].copy()
    if space.resolution_gene is not None:
        genes[:, space.resolution_gene] = 0  # the deepest and widest network, at the smallest one
    network = space.network(space.archs(ArchBatch(space, genes))[0])
    rng = np.random.default_rng(0)
    images = rng.standard_normal((2, 1, *network.input_shape), dtype=np.float32)
    for seed in range(3):
        model = write_onnx(network, seed=seed).model_bytes
        first, second = (run_onnx(model, image) for image in images)
        assert 0.03 < first.std() < 30
        assert np.abs(first - second).max() > 0.01 * first.std()


def test_a_long_chain_of_relu_convolutions_keeps_its_scale(
    run_onnx: Callable[..., NDArray[np.float32]],
) -> None:
    op = OpSpec.of("conv", (32, 12, 12), out_channels=32, kernel=1, activation="relu")
    network = Network.chain([op] * 60)
    images = np.random.default_rng(0).standard_normal((1, 32, 12, 12), dtype=np.float32)
    assert 0.1 < run_onnx(write_onnx(network).model_bytes, images).std() < 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.conv.bias": None}, r"weight '0.conv.bias' of shape \(4,\) is missing"),
        ({"1.conv.bias": np.zeros(4, np.float32)}, "weight '1.conv.bias' belongs to no op"),
        (
            {"0.conv.bias": np.zeros(3, np.float32)},
            r"weight '0.conv.bias' has shape \(3,\), the network needs \(4,\)",
        ),
        ({"0.conv.bias": np.zeros(4)}, "weight '0.conv.bias' is float64"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(
    change: dict[str, NDArray[np.float32] | None], message: str
) -> None:
    graph = lower(NETWORK)
    weights = random_weights(graph, np.random.default_rng(0)) | change
    fitting = {name: array for name, array in weights.items() if array is not None}
    with pytest.raises(InvalidInputError, match=message):
        check_weights(graph, fitting)
