"""What a program computed, small enough to travel with a visit, and how far two of them differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latlas_ops.errors import InvalidInputError

MOST_VALUES = 256
"""Numbers kept of all outputs of a program together; `_LEAST_VALUES` of each at any rate."""

_LEAST_VALUES = 4
_CHUNK = 1 << 16
"""Numbers squared at once: a large output is not copied."""


@dataclass(frozen=True)
class OutputDigest:
    """A few numbers of one output.

    Attributes:
        shape: of the output, batch axis included; images channels first.
        norm: square root of the sum of squares of all its numbers.
        values: some of its numbers, evenly spaced from the first to the last in C order.
        is_finite: whether all its numbers are; where not, `norm` is 0 and `values` is empty.

    Raises:
        InvalidInputError: it holds what is no number, or too many.
    """

    shape: tuple[int, ...]
    norm: float
    values: tuple[float, ...]
    is_finite: bool = True

    def __post_init__(self) -> None:
        if len(self.values) > MOST_VALUES or not all(map(math.isfinite, (self.norm, *self.values))):
            raise InvalidInputError(
                "what is kept of an output are a few numbers, all of them finite"
            )


@dataclass(frozen=True)
class Computed:
    """What a program computed of its drawn inputs.

    Attributes:
        inputs: type and shape of every input as it was drawn, such as `float32 1x3x32x32`. Equal
            words are equal numbers: all runtimes draw from one seed in one way.
        outputs: its outputs, in the program's order.
    """

    inputs: tuple[str, ...] = ()
    outputs: tuple[OutputDigest, ...] = ()


def digests(outputs: Sequence[object]) -> tuple[OutputDigest, ...]:
    """A digest of every output; empty where one is no array of numbers."""
    arrays: list[NDArray[np.generic]] = []
    for output in outputs:
        if not isinstance(output, np.ndarray) or output.dtype.kind not in "biuf":
            return ()
        arrays.append(output)
    n_values = max(_LEAST_VALUES, MOST_VALUES // max(1, len(arrays)))
    return tuple(_digest(array, n_values) for array in arrays)


def _digest(array: NDArray[np.generic], n_values: int) -> OutputDigest:
    shape = tuple(map(int, array.shape))
    flat = np.asarray(array).reshape(-1)
    kept = np.unique(np.linspace(0, max(0, flat.size - 1), n_values).round().astype(np.int64))
    with np.errstate(over="ignore", invalid="ignore"):
        parts = (flat[first : first + _CHUNK] for first in range(0, flat.size, _CHUNK))
        norm = math.sqrt(sum(float(np.square(part, dtype=np.float64).sum()) for part in parts))
        values = flat[kept[: flat.size]].astype(np.float32)
    if not (math.isfinite(norm) and np.isfinite(values).all()):
        return OutputDigest(shape, 0.0, (), is_finite=False)
    return OutputDigest(shape, norm, tuple(map(float, values)))


def output_error(computed: Computed | None, reference: Computed | None) -> float:
    """How far the outputs of a program are from those of a reference, as a share.

    Of every output the larger of two figures counts: the largest difference of its kept numbers,
    over the largest of these in the reference; and the difference of the norms over the
    reference's. The result is that of the output which is furthest off; infinite where the program
    computes what is no number. What differs between kept numbers and leaves the norm as it is, is
    not seen.

    Args:
        computed: what the program computed; None where that is not known.
        reference: what it should have.

    Raises:
        InvalidInputError: they cannot be compared; the message says why.
    """
    for one, what in ((computed, "its"), (reference, "the reference's")):
        if one is None or not one.outputs:
            raise InvalidInputError(
                f"{what} outputs are not known: an older agent measured it, or a runtime that "
                "tells none; another --name measures anew"
            )
    assert computed is not None
    assert reference is not None
    if computed.inputs != reference.inputs:
        raise InvalidInputError(
            f"its inputs are {', '.join(computed.inputs)}, the reference's "
            f"{', '.join(reference.inputs)}"
        )
    if len(computed.outputs) != len(reference.outputs):
        raise InvalidInputError(
            f"it has {len(computed.outputs)} outputs, the reference {len(reference.outputs)}"
        )
    pairs = zip(computed.outputs, reference.outputs, strict=True)
    return max(_error(number, *pair) for number, pair in enumerate(pairs))


def _error(number: int, one: OutputDigest, reference: OutputDigest) -> float:
    if one.shape != reference.shape:
        raise InvalidInputError(
            f"output {number} has the shape {_in_words(one.shape)}, the reference's "
            f"{_in_words(reference.shape)}"
        )
    if not reference.is_finite:
        raise InvalidInputError(f"the reference's output {number} holds what is no number")
    if not one.is_finite:
        return math.inf
    if len(one.values) != len(reference.values):
        raise InvalidInputError(f"of output {number} other numbers were kept")
    pairs = list(zip(one.values, reference.values, strict=True))
    difference = max((abs(mine - theirs) for mine, theirs in pairs), default=0.0)
    largest = max(map(abs, reference.values), default=0.0)
    return max(_share(difference, largest), _share(abs(one.norm - reference.norm), reference.norm))


def _share(difference: float, whole: float) -> float:
    if whole:
        return difference / whole
    return math.inf if difference else 0.0


def _in_words(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "of one number"
