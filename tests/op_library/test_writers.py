"""What holds for every writer of model files."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Protocol

import numpy as np
import pytest

from latlas_ops import Network, OpSpec, get_space
from latlas_ops.errors import InvalidInputError
from latlas_ops.lowering import lower
from latlas_ops.weights import Weights, random_weights
from latlas_ops.writers.onnx_writer import OnnxProgram, write_onnx
from latlas_ops.writers.tflite_writer import TfliteProgram, write_tflite

NETWORK = Network.chain(
    [
        OpSpec.of("stem", (3, 16, 16), out_channels=8),
        OpSpec.of(
            "mbconv", (8, 8, 8), out_channels=8, expanded_channels=16, kernel=3, se_channels=8
        ),
        OpSpec.of("head", (8, 8, 8), expanded_channels=16, classes=4),
    ]
)


class Writer(Protocol):
    """What a writer of model files looks like."""

    __name__: str
    __module__: str

    def __call__(
        self,
        network: Network,
        weights: Weights | None = None,
        *,
        batch: int = 1,
        seed: int = 0,
        name: str = "latlas",
    ) -> OnnxProgram | TfliteProgram: ...


@pytest.fixture(params=["onnx", "tflite"])
def write(request: pytest.FixtureRequest) -> Writer:
    """Every writer of model files."""
    if request.param == "onnx":
        return write_onnx
    pytest.importorskip(
        "ai_edge_litert.schema_py_generated", reason="ai-edge-litert is not installed"
    )
    return write_tflite


def test_equal_input_gives_equal_bytes_in_another_process_too(write: Writer) -> None:
    space = get_space("digits")
    arch = space.archs(space.extremes())[1]
    code = (
        "import hashlib; from latlas_ops import get_space\n"
        f"from {write.__module__} import {write.__name__} as write\n"
        "space = get_space('digits'); network = space.network(space.archs(space.extremes())[1])\n"
        "print(hashlib.sha256(write(network, seed=5).model_bytes).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    here = write(space.network(arch), seed=5).model_bytes
    assert hashlib.sha256(here).hexdigest() == done.stdout.strip()


def test_the_seed_decides_the_weights_where_none_are_given(write: Writer) -> None:
    weights = random_weights(lower(NETWORK), np.random.default_rng(3))
    assert write(NETWORK, seed=3) == write(NETWORK, weights)
    assert write(NETWORK, seed=3) != write(NETWORK, seed=4)


def test_weights_in_another_memory_layout_give_the_same_model(write: Writer) -> None:
    weights = random_weights(lower(NETWORK), np.random.default_rng(0))
    fortran = {name: np.asfortranarray(array) for name, array in weights.items()}
    assert write(NETWORK, fortran) == write(NETWORK, weights)


def test_weights_that_do_not_fit_are_refused(write: Writer) -> None:
    with pytest.raises(InvalidInputError, match=r"weight '0\.conv\.weight' .* is missing"):
        write(NETWORK, {})


def test_a_batch_of_nothing_is_refused(write: Writer) -> None:
    with pytest.raises(InvalidInputError, match="batch must be at least 1, not 0"):
        write(NETWORK, batch=0)


def test_an_op_of_another_dtype_is_refused_by_position(write: Writer) -> None:
    network = Network.chain([OpSpec.of("linear", (4,), out_features=2, dtype="int8")])
    with pytest.raises(InvalidInputError, match=r"op 0 \(linear\) is int8"):
        write(network)
