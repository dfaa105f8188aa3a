"""Every kind of op through every writer and runtime: how far off it is, or why it is not there.

Programs run as an agent runs them: by its plug-ins, on the inputs that they draw. The reference
is torch in double precision on the same weights and inputs.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas_agent.runtimes import load_runtime
from latlas_agent.runtimes.base import INPUT_SEED, TellingSession, draw_normal
from latlas_latency.measurement import Target
from latlas_ops import Network, OpSpec
from latlas_ops.errors import LatlasError, RuntimeUnavailableError
from latlas_ops.kind_examples import EXAMPLES
from latlas_ops.kinds import KINDS
from latlas_ops.lowering import lower
from latlas_ops.weights import Weights, random_weights
from latlas_ops.writers.calibration import drawn_inputs
from latlas_ops.writers.onnx_int8 import quantise_onnx
from latlas_ops.writers.onnx_writer import write_onnx
from latlas_ops.writers.opgraph import write_opgraph
from latlas_ops.writers.tflite_int8 import quantise_tflite
from latlas_ops.writers.tflite_writer import write_tflite
from latlas_ops.writers.torch_writer import torch_module

Write = Callable[[Network, int], bytes]

BATCH = 2
MOST_ERROR_FP32 = 2e-6
"""Of the largest output, as the tests of the writers ask for."""

MOST_ERROR_INT8 = {"onnx": 0.1, "tflite": 0.3}
"""Of small ops on normal numbers, of which the quantiser of TFLite models cuts more off."""

FALLBACK = "of some examples, LiteRT's own kernels compute the nodes that XNNPACK leaves"

_SEED = 0
_N_CALIBRATION = 32

_INTRODUCTION = """\
# What agrees with what

<!-- Written by bench/runtimes.py --docs; change that and run it again. -->

Every kind of op, written in every format and run by every runtime as an agent runs it, against
torch in double precision on the same weights and inputs. The figure bounds the largest difference
over the examples of the kind (`latlas_ops.kind_examples`), as a share of the largest output; what
a runtime or a format cannot do says why. Compiled torch is shown for the first example of a kind.
A figure in bold is larger than it should be. In int8 the ranges come from 32 drawn inputs, and the
reference is the network in double precision all the same. `python bench/runtimes.py` prints the
errors themselves on your machine, and a test computes them again.
"""


@dataclass(frozen=True, eq=False)
class Precision:
    """A precision in which programs are written.

    Attributes:
        name: for the table.
        most_error: the largest error that is accepted, for every format.
        writers: for every format the function that writes a network in this precision, with the
            weights of the seed 0.
    """

    name: str
    most_error: Mapping[str, float]
    writers: Mapping[str, Write]


@dataclass(frozen=True, eq=False)
class Runtime:
    """A runtime, set up in one way.

    Attributes:
        title: for the table.
        program_format: what it loads.
        target: fields of the target that runs it.
        is_slow: a program takes seconds to load: only the first example of a kind is run.
    """

    title: str
    program_format: str
    target: Mapping[str, Any] = field(default_factory=dict)
    is_slow: bool = False


def _onnx_int8(network: Network, batch: int) -> bytes:
    model = write_onnx(network, batch=batch, seed=_SEED).model_bytes
    return quantise_onnx(model, drawn_inputs(network.input_shape, _N_CALIBRATION))


def _tflite_int8(network: Network, batch: int) -> bytes:
    model = write_tflite(network, batch=batch, seed=_SEED).model_bytes
    images = drawn_inputs(network.input_shape, _N_CALIBRATION)
    return quantise_tflite(model, np.moveaxis(images, 1, -1) if images.ndim == 4 else images)


PRECISIONS: tuple[Precision, ...] = (
    Precision(
        "fp32",
        dict.fromkeys(("onnx", "tflite", "opgraph"), MOST_ERROR_FP32),
        {
            "onnx": lambda network, batch: write_onnx(network, batch=batch, seed=_SEED).model_bytes,
            "tflite": lambda network, batch: (
                write_tflite(network, batch=batch, seed=_SEED).model_bytes
            ),
            "opgraph": lambda network, _: write_opgraph(network, seed=_SEED).model_bytes,
        },
    ),
    Precision("int8", MOST_ERROR_INT8, {"onnx": _onnx_int8, "tflite": _tflite_int8}),
)
"""Another precision is one more entry."""

RUNTIMES: tuple[Runtime, ...] = (
    Runtime("onnxruntime", "onnx", {"provider": "CPUExecutionProvider"}),
    Runtime(
        "onnxruntime, graph as written",
        "onnx",
        {"provider": "CPUExecutionProvider", "graph_level": "disabled"},
    ),
    Runtime("LiteRT, XNNPACK", "tflite", {"runtime": "litert", "provider": "xnnpack"}),
    Runtime("LiteRT, own kernels", "tflite", {"runtime": "litert", "provider": "builtin"}),
    Runtime("torch", "opgraph", {"runtime": "torch", "provider": "cpu"}),
    Runtime(
        "torch, compiled",
        "opgraph",
        {"runtime": "torch", "provider": "cpu", "execution": "compiled"},
        is_slow=True,
    ),
)


@dataclass(frozen=True)
class Column:
    """A precision and a runtime."""

    precision: Precision
    runtime: Runtime

    @property
    def title(self) -> str:
        """For the table."""
        return f"{self.runtime.title}, {self.precision.name}"

    @property
    def most_error(self) -> float:
        """The largest error that is accepted."""
        return self.precision.most_error[self.runtime.program_format]


@dataclass(frozen=True)
class Cell:
    """One kind in one column.

    Attributes:
        error: the largest over its examples, as a share of the largest output; None where one
            could not be run.
        reason: why not, or what is to be said of it.
    """

    error: float | None
    reason: str = ""


def columns(*, slow: bool = True) -> list[Column]:
    """What the table compares."""
    return [
        Column(precision, runtime)
        for precision in PRECISIONS
        for runtime in RUNTIMES
        if runtime.program_format in precision.writers and (slow or not runtime.is_slow)
    ]


def kinds() -> list[str]:
    """Every kind that is registered, in order."""
    return list(KINDS)


def examples(kind: str) -> list[OpSpec]:
    """The examples of a kind."""
    return [op for op in EXAMPLES.values() if op.kind == kind]


def measure(kind: str, column: Column) -> Cell:
    """The agreement of a kind's examples."""
    ops = examples(kind)
    if not ops:
        return Cell(None, "no example of this kind in latlas_ops.kind_examples")
    errors, note = [], ""
    for op in ops[:1] if column.runtime.is_slow else ops:
        network = Network.chain([op])
        try:
            output, fell_back = run(network, column)
        except LatlasError as error:
            return Cell(None, str(error))
        errors.append(relative_error(output, reference(network)))
        note = FALLBACK if fell_back else note
    return Cell(max(errors), note)


def reference(network: Network) -> NDArray[np.float64]:
    """What a network computes, by torch in double precision; `(batch, ...)`."""
    import torch

    images = draw_normal(np.random.default_rng(INPUT_SEED), (BATCH, *network.input_shape))
    module = torch_module(network, weights_of(network)).double()
    with torch.inference_mode():
        output: NDArray[np.float64] = module(torch.from_numpy(images).double()).numpy()
    return output


def weights_of(network: Network) -> Weights:
    """The weights that every writer draws from its seed."""
    return random_weights(lower(network), np.random.default_rng(_SEED))


def relative_error(output: NDArray[Any], expected: NDArray[np.float64]) -> float:
    """Largest difference over the largest expected value; infinite for what is no number."""
    if output.shape != expected.shape or not np.isfinite(output).all():
        return math.inf
    difference, largest = np.abs(output - expected).max(), np.abs(expected).max()
    return float(difference / largest if largest else difference)


def run(network: Network, column: Column) -> tuple[NDArray[Any], bool]:
    """The output of a network on a runtime, and whether plain kernels took some of it.

    Returns:
        `(batch, ...)`, images channels first.

    Raises:
        LatlasError: it cannot be written or run so.
    """
    fields = {"runtime": "onnxruntime", "runtime_version": "", **column.runtime.target}
    fields["precision"] = column.precision.name
    target = Target(name="here", device_model="this machine", batch=BATCH, **fields)
    runtime = load_runtime(target.runtime)
    data = column.precision.writers[column.runtime.program_format](network, BATCH)
    with tempfile.TemporaryDirectory() as scratch:
        program = Path(scratch) / f"program.{column.runtime.program_format}"
        program.write_bytes(data)
        fell_back = False
        try:
            session = runtime.load(program, target)
        except RuntimeUnavailableError as error:
            if "allow_fallback" not in str(error):
                raise
            session, fell_back = runtime.load(program, replace(target, allow_fallback=True)), True
        if not isinstance(session, TellingSession):
            raise RuntimeUnavailableError(f"{target.runtime} does not tell what it computes")
        (output,) = session.outputs()
    if not isinstance(output, np.ndarray):
        raise RuntimeUnavailableError(f"{target.runtime} gives no array")
    return output, fell_back


Table = Mapping[tuple[str, Column], Cell]
"""By kind and column."""


def as_markdown(table: Table) -> str:
    """The page of the documentation. It shows bounds, not errors, which differ from CPU to CPU."""
    reasons: dict[str, int] = {}
    sections = [_INTRODUCTION]
    for precision in PRECISIONS:
        shown = [column for column in columns() if column.precision == precision]
        header = ["kind", *(column.runtime.title for column in shown)]
        rows = [
            [f"`{kind}`", *(in_words(table[kind, column], column, reasons) for column in shown)]
            for kind in kinds()
        ]
        lines = [header, ["---"] * len(header), *rows]
        sections.append(
            "\n".join(
                [f"## {precision.name}", "", *(f"| {' | '.join(line)} |" for line in lines), ""]
            )
        )
    if reasons:
        sections.append("\n".join([*(f"{n}. {reason}" for reason, n in reasons.items()), ""]))
    return "\n".join(sections)


def in_words(cell: Cell, column: Column, reasons: dict[str, int]) -> str:
    """A cell of the page; a reason gets the next number unless it has one in `reasons`."""
    number = f" ({reasons.setdefault(cell.reason, len(reasons) + 1)})" if cell.reason else ""
    if cell.error is None:
        return f"no{number}"
    most = column.most_error
    found = f"≤ {most:g}" if cell.error <= most else f"**{cell.error:.0e}**"
    return found.replace("e-0", "e-") + number
