"""Programs in the format that a target's runtime loads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from latlas_latency.measurement import RuntimeCapability, Target
from latlas_ops.errors import RuntimeUnavailableError
from latlas_ops.network import Network
from latlas_ops.writers.calibration import drawn_inputs
from latlas_ops.writers.onnx_int8 import int8_positions, quantise_onnx
from latlas_ops.writers.onnx_writer import write_onnx
from latlas_ops.writers.opgraph import write_opgraph
from latlas_ops.writers.tflite_int8 import quantise_tflite
from latlas_ops.writers.tflite_writer import write_tflite

_WEIGHT_SEED = 0


class WrittenProgram(Protocol):
    """A model and where its tensors come from."""

    @property
    def model_bytes(self) -> bytes:
        """The file; equal networks give equal bytes."""

    @property
    def tensor_positions(self) -> Mapping[str, int]:
        """Name of a tensor → position in the network of the op it belongs to."""


_WRITERS: Mapping[str, Callable[[Network, int], WrittenProgram]] = {
    "onnx": lambda network, batch: write_onnx(network, batch=batch, seed=_WEIGHT_SEED),
    "tflite": lambda network, batch: write_tflite(network, batch=batch, seed=_WEIGHT_SEED),
    "opgraph": lambda network, _: write_opgraph(network, seed=_WEIGHT_SEED),
}


@dataclass(frozen=True)
class _Int8Program:
    """A quantised model; see `WrittenProgram`."""

    model_bytes: bytes
    tensor_positions: Mapping[str, int]


def _int8_onnx(network: Network, batch: int) -> WrittenProgram:
    program = _WRITERS["onnx"](network, batch)
    model = quantise_onnx(program.model_bytes, drawn_inputs(network.input_shape))
    return _Int8Program(model, int8_positions(model, program.tensor_positions))


def _int8_tflite(network: Network, batch: int) -> WrittenProgram:
    program = _WRITERS["tflite"](network, batch)
    channels_first = drawn_inputs(network.input_shape)
    images = channels_first.transpose(0, 2, 3, 1) if channels_first.ndim == 4 else channels_first
    return _Int8Program(quantise_tflite(program.model_bytes, images), program.tensor_positions)


_INT8_WRITERS: Mapping[str, Callable[[Network, int], WrittenProgram]] = {
    "onnx": _int8_onnx,
    "tflite": _int8_tflite,
}

_USUAL_FORMATS = {
    "onnxruntime": "onnx",
    "litert": "tflite",
    "tflite-benchmark": "tflite",
    "tflite-benchmark-builtin": "tflite",
    "tflite-runtime": "tflite",
    "torch": "opgraph",
}

WITHOUT_NODE_TIMES = frozenset({"litert", "tflite-benchmark", "tflite-runtime"})
"""Runtimes that time no single nodes, for where no device has said so."""


def choose_format(target: Target, capabilities: Iterable[RuntimeCapability]) -> str:
    """The format in which programs for a target are written.

    Args:
        target: what they are written for.
        capabilities: what devices offer for it; where there are none, what is known of the
            runtime decides, and onnx serves a runtime that is not known.

    Raises:
        RuntimeUnavailableError: the runtime loads nothing that can be written.
    """
    loaded = [capability.program_formats for capability in capabilities]
    if not loaded:
        return _USUAL_FORMATS.get(target.runtime, "onnx")
    for program_format in _WRITERS:
        if all(program_format in formats for formats in loaded):
            return program_format
    raise RuntimeUnavailableError(
        f"no program can be written for target {target.name!r}: {target.runtime} loads "
        f"{', '.join(loaded[0])}, Latlas writes {' or '.join(_WRITERS)}"
    )


def write_program(
    network: Network, program_format: str, batch: int, precision: str = "fp32"
) -> WrittenProgram:
    """The program of a network; weights are random but equal for equal networks.

    An int8 program is calibrated on inputs drawn as the agent draws them: its latency is that of
    any other weights and inputs, its outputs mean nothing. One in fp16 is written in fp32, for a
    runtime that converts it when it is loaded.

    Args:
        network: what is to be run.
        program_format: of `choose_format`.
        batch: size of the batch axis.
        precision: of the target.

    Raises:
        RuntimeUnavailableError: nothing is written in that precision and format.
        MissingDependencyError: what quantises is not installed.
        InvalidInputError: as the writer of the format.
    """
    if precision == "int8":
        if program_format not in _INT8_WRITERS:
            raise RuntimeUnavailableError(
                f"Latlas writes no int8 programs in the format {program_format}, only "
                f"{' and '.join(_INT8_WRITERS)}: take a target in fp32"
            )
        return _INT8_WRITERS[program_format](network, batch)
    if precision == "fp16" and program_format != "opgraph":
        raise RuntimeUnavailableError(
            f"Latlas writes no fp16 programs in the format {program_format}, only opgraph: take a "
            "target in fp32"
        )
    return _WRITERS[program_format](network, batch)
