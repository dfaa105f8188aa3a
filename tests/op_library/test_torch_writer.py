import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from latlas_ops import SPACE_NAMES, Network, OpSpec, get_space
from latlas_ops.errors import InvalidInputError, MissingDependencyError
from latlas_ops.lowering import lower
from latlas_ops.space import ArchBatch
from latlas_ops.weights import random_weights
from latlas_ops.writers.onnx_writer import write_onnx
from latlas_ops.writers.torch_writer import torch_module

RunOnnx = Callable[..., NDArray[np.float32]]

NETWORK = Network.chain(
    [
        OpSpec.of("stem", (3, 16, 16), out_channels=8),
        OpSpec.of(
            "mbconv", (8, 8, 8), out_channels=8, expanded_channels=16, kernel=3, se_channels=8
        ),
        OpSpec.of("head", (8, 8, 8), expanded_channels=16, classes=4),
    ]
)


def assert_runtimes_agree(network: Network, batch: int, run_onnx: RunOnnx) -> None:
    """onnxruntime, unoptimised and optimised, within 2e-6 of the largest output of torch."""
    rng = np.random.default_rng(0)
    weights = random_weights(lower(network), rng)
    images = rng.standard_normal((batch, *network.input_shape), dtype=np.float32)
    with torch.inference_mode():
        expected = torch_module(network, weights)(torch.from_numpy(images)).numpy()
    model = write_onnx(network, weights, batch=batch).model_bytes
    for optimise in (False, True):
        output = run_onnx(model, images, optimise=optimise)
        assert output.shape == expected.shape
        assert np.abs(output - expected).max() <= 2e-6 * np.abs(expected).max()


def test_every_kind_gives_the_same_in_onnx_and_torch(example_op: OpSpec, run_onnx: RunOnnx) -> None:
    assert_runtimes_agree(Network.chain([example_op]), 2, run_onnx)


@pytest.mark.parametrize("name", SPACE_NAMES)
def test_whole_architectures_give_the_same_in_onnx_and_torch(name: str, run_onnx: RunOnnx) -> None:
    space = get_space(name)
    n_random = 1 if name in ("darts", "ofa-resnet50", "hat") else 4  # those are long or heavy
    genes = np.concatenate(
        [space.extremes().genes, space.sample(n_random, np.random.default_rng(11)).genes]
    )
    if space.resolution_gene is not None:
        genes[:, space.resolution_gene] = 0  # the smallest one
    for arch in space.archs(ArchBatch(space, genes)):
        assert_runtimes_agree(space.network(arch), 1, run_onnx)


def test_the_keys_of_the_state_dict_are_the_names_of_the_weights() -> None:
    weights = random_weights(lower(NETWORK), np.random.default_rng(0))
    state = torch_module(NETWORK, weights).state_dict()
    assert state.keys() == weights.keys()
    for name, tensor in state.items():
        np.testing.assert_array_equal(tensor.numpy(), weights[name])


def test_weights_are_copied() -> None:
    weights = random_weights(lower(NETWORK), np.random.default_rng(0))
    module = torch_module(NETWORK, weights)
    weights["2.classifier.bias"][:] = 7
    assert (module.state_dict()["2.classifier.bias"] != 7).all()


def test_building_a_module_draws_nothing_from_the_global_generator() -> None:
    before = torch.get_rng_state()
    module = torch_module(NETWORK, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert not module.training


def test_hooks_see_one_op_each() -> None:
    module = torch_module(NETWORK)
    seen: list[tuple[int, tuple[int, ...]]] = []
    for position, op in enumerate(module.ops):
        op.register_forward_hook(
            lambda _op, _inputs, output, position=position: seen.append(
                (position, tuple(output.shape[1:]))
            )
        )
    with torch.inference_mode():
        module(torch.zeros(1, 3, 16, 16))
    assert seen == [(i, op.outputs[0]) for i, op in enumerate(NETWORK.ops)]


def test_gradients_reach_every_weight() -> None:
    module = torch_module(NETWORK)
    module(torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert all(weight.grad is not None for weight in module.parameters())


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"weight '0\.conv\.weight' .* is missing"):
        torch_module(NETWORK, {})


def test_an_op_of_another_dtype_is_refused_by_position() -> None:
    network = Network.chain([OpSpec.of("linear", (4,), out_features=2, dtype="float16")])
    with pytest.raises(InvalidInputError, match=r"op 0 \(linear\) is float16"):
        torch_module(network)


def test_without_torch_the_extra_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "latlas_ops.writers._torch_module")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "latlas\[torch\]"'):
        torch_module(NETWORK)
