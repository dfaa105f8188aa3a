"""Inputs on which a quantised model's ranges are found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas_ops.errors import InvalidInputError

DRAWN_INPUTS = 8
"""Inputs that are drawn for a program whose weights are random, too."""

_SEED = 20200426


def drawn_inputs(input_shape: Sequence[int], n: int = DRAWN_INPUTS) -> NDArray[np.float32]:
    """Inputs as the agent draws them for float programs: standard normal.

    They are right for programs that are only timed. A model that is to be accurate needs inputs of
    the kind that it was trained on.

    Args:
        input_shape: of one input, without the batch axis.
        n: how many.

    Returns:
        `(n, *input_shape)` float32, the same for equal arguments.
    """
    rng = np.random.default_rng(_SEED)
    return rng.standard_normal((n, *input_shape), dtype=np.float32)


def calibration_batches(
    calibration: NDArray[Any], batch_shape: Sequence[int]
) -> Iterator[NDArray[np.float32]]:
    """Calibration inputs in batches of the size that a model takes; the last one is filled up.

    Args:
        calibration: `(n, *input_shape)`, numbers.
        batch_shape: `(batch, *input_shape)`.

    Returns:
        Arrays `batch_shape` float32, which hold every input at least once.

    Raises:
        InvalidInputError: there are none, their shape is another, or a value is not finite.
    """
    batch, *input_shape = batch_shape
    wanted = "x".join(map(str, input_shape))
    if calibration.ndim < 1 or list(calibration.shape[1:]) != input_shape:
        raise InvalidInputError(
            f"calibration inputs have the shape {'x'.join(map(str, calibration.shape))}, the model "
            f"takes n x {wanted}"
        )
    if not len(calibration):
        raise InvalidInputError("a model cannot be calibrated without inputs")
    if calibration.dtype.kind not in "fiu" or not np.isfinite(calibration).all():
        raise InvalidInputError("calibration inputs must be finite numbers")
    n_batches = -(-len(calibration) // batch)
    filled = np.resize(calibration, (n_batches * batch, *input_shape)).astype(np.float32)
    return iter(filled.reshape(n_batches, *batch_shape))
