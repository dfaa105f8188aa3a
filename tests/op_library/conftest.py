"""What the tests of the op library share: a space small enough to enumerate, one op per case."""

from collections.abc import Callable, Mapping

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from latlas_ops import OpSpec
from latlas_ops.kind_examples import EXAMPLES
from latlas_ops.spaces.mobile import MobileSpace, Stage


@pytest.fixture(params=list(EXAMPLES.values()), ids=list(EXAMPLES))
def example_op(request: pytest.FixtureRequest) -> OpSpec:
    """Every kind, with odd sizes, strides, groups and every activation among them."""
    op: OpSpec = request.param
    return op


@pytest.fixture(scope="session")
def examples() -> Mapping[str, OpSpec]:
    """All of `example_op` at once, by name."""
    return EXAMPLES


@pytest.fixture(scope="session")
def tiny_space() -> MobileSpace:
    """A space with every sort of gene, and 8192 combinations of choices."""
    return MobileSpace(
        name="tiny",
        version=3,
        in_channels=1,
        classes=4,
        resolutions=(12, 17),
        stem_channels=8,
        stem_stride=2,
        stages=(Stage(16, 1, "relu"), Stage(32, 2, squeeze_excite=True)),
        depths=(1, 2),
        kernels=(3, 5),
        expansions=(2, 3),
        widths=(0.5, 1.0),
        head_channels=24,
    )


RunOnnx = Callable[..., NDArray[np.float32]]


@pytest.fixture(scope="session")
def run_onnx() -> RunOnnx:
    """Runs a model on one thread: `run_onnx(model_bytes, images, optimise=True)`."""

    def run(
        model_bytes: bytes, images: NDArray[np.float32], *, optimise: bool = True
    ) -> NDArray[np.float32]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
        )
        session = onnxruntime.InferenceSession(
            model_bytes, options, providers=["CPUExecutionProvider"]
        )
        output: NDArray[np.float32] = session.run(["output"], {"input": images})[0]
        return output

    return run
