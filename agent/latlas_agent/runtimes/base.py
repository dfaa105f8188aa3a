"""What a runtime plug-in provides. Plug-ins live in a worker process that may die with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from latlas_latency.measurement import InputShapes, RuntimeCapability, Series, Target
from latlas_ops.errors import InvalidInputError

INPUT_SEED = 20200426
"""Every runtime draws the inputs of a program from this seed, so that outputs can be compared."""

_OUT_OF_MEMORY = re.compile(r"bad.?alloc|failed to allocate|cannot allocate|out of memory", re.I)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out; native runtimes only say so in words."""
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


def settled_shape(
    name: str, declared: Sequence[int | None], target: Target, shapes: Mapping[str, Sequence[int]]
) -> list[int]:
    """The shape in which an input is drawn.

    Args:
        name: of the input.
        declared: its shape in the program, None where an axis is free.
        target: gives a free first axis its batch.
        shapes: shapes that the user gave, by name. One that repeats a first axis which the program
            fixes says that this is no batch.

    Raises:
        InvalidInputError: an axis stays free, a given shape does not fit, or the batch is not the
            target's.
    """
    given = shapes.get(name)
    if given is not None:
        if len(given) != len(declared) or any(
            size not in (None, wanted) for size, wanted in zip(declared, given, strict=True)
        ):
            raise InvalidInputError(
                f"input {name!r} has the shape {_in_words(declared)} in the program, which "
                f"{_in_words(given)} does not fit"
            )
        if declared and declared[0] is None and given[0] != target.batch:
            raise InvalidInputError(
                f"input {name!r} has a free first axis, which takes the batch of target "
                f"{target.name!r}, {target.batch}, not {given[0]}: measure on a target of that "
                "batch (latlas target add --batch)"
            )
        return list(given)
    shape = list(declared)
    if shape and shape[0] is None:
        shape[0] = target.batch
    settled = [size for size in shape if size is not None]
    if len(settled) < len(shape):
        example = ",".join(str(size or 224) for size in shape)
        raise InvalidInputError(
            f"input {name!r} has free axes, {_in_words(declared)}: say how large they are, such "
            f"as --shape {name}={example}"
        )
    if len(settled) > 1 and settled[0] != target.batch:
        raise InvalidInputError(
            f"input {name!r} has batch {settled[0]}, target {target.name!r} wants {target.batch}; "
            f"if its first axis is no batch, say --shape {name}={','.join(map(str, settled))}"
        )
    return settled


def require_known_inputs(shapes: Mapping[str, Sequence[int]], names: Sequence[str]) -> None:
    """Raises `InvalidInputError` if a shape was given for an input that is not there."""
    for name in shapes:
        if name not in names:
            raise InvalidInputError(f"the program has no input {name!r}; it has {', '.join(names)}")


def draw_normal(
    rng: np.random.Generator, shape: Sequence[int], dtype: Any = np.float32
) -> NDArray[Any]:
    """Standard normal numbers in a type of floats, the same for all runtimes."""
    if np.dtype(dtype) == np.float64:
        return rng.standard_normal(tuple(shape))
    return rng.standard_normal(tuple(shape), dtype=np.float32).astype(dtype, copy=False)


def input_in_words(drawn: NDArray[Any]) -> str:
    """Type and shape of an input as it was drawn, such as `float32 1x3x32x32`.

    float16 is called float32: its numbers are drawn as such, and rounded.
    """
    dtype = np.dtype(np.float32) if drawn.dtype == np.float16 else drawn.dtype
    return f"{dtype} {_in_words(drawn.shape)}".rstrip()


def _in_words(shape: Sequence[int | None]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


class Session(Protocol):
    """A loaded program with its inputs in place.

    One that can show what it computes is a `TellingSession` as well.
    """

    def run(self) -> object:
        """One inference, from inputs to outputs; returns when the outputs are there."""


@runtime_checkable
class TellingSession(Session, Protocol):
    """A session that shows what it computes.

    Attributes:
        inputs: type and shape of every input as it was drawn; see `input_in_words`. Images are
            drawn channels first, wherever the program has its channels.
    """

    inputs: tuple[str, ...]

    def outputs(self) -> Sequence[object]:
        """The outputs of one more inference.

        Arrays of numbers as a rule, images channels first, quantised numbers as what they stand
        for.
        """


class ProfiledSession(Session, Protocol):
    """A session that records how long each node takes. Recording ends with `node_series`."""

    @property
    def max_runs(self) -> int:
        """Inferences, warm-up included, that the recording has room for."""

    def node_series(self, n_runs: int) -> tuple[Series, ...]:
        """Ends the recording and returns the nodes' times in the last `n_runs` inferences.

        Every node's series has `n_runs` samples; together they hold every recorded kernel once.

        Raises:
            MeasurementError: the recording is incomplete.
            RuntimeUnavailableError: a node ran on another provider than the target's.
        """


class Runtime(Protocol):
    """A runtime plug-in; created without arguments.

    One that imports its runtime late has a method `prepare()` as well, which a worker calls before
    the first program, so that loading a program is not charged for it.

    All methods may raise any `LatlasError`, and `MemoryError` where memory ran out. Any other
    exception, and the death of the process, is reported as a failed measurement of the program.
    """

    def capability(self) -> RuntimeCapability:
        """What this runtime offers on this device.

        Raises:
            RuntimeUnavailableError: the runtime is not installed or does not work here.
        """

    def load(self, program: Path, target: Target, shapes: InputShapes = ()) -> Session:
        """Loads a program for timing whole inferences.

        Args:
            program: the file.
            target: how it is to be run.
            shapes: of inputs with free axes. A first axis that is free and not named takes the
                target's batch.

        Raises:
            CorruptProgramError: the file is no program that the runtime can load.
            InvalidInputError: the program does not fit the target or the shapes, or leaves an axis
                free that neither fixes.
            RuntimeUnavailableError: provider, precision or execution of the target are not to
                be had, or the provider hands nodes to another one and the target forbids it.
        """

    def load_profiled(
        self, program: Path, target: Target, scratch: Path, shapes: InputShapes = ()
    ) -> ProfiledSession:
        """As `load`, recording the time of every node; files go into the folder `scratch`.

        Raises:
            RuntimeUnavailableError: also where the runtime cannot time nodes.
        """
