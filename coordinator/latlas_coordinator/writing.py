"""Programs in the format that a target's runtime loads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from latlas_latency.measurement import RuntimeCapability, Target
from latlas_ops.errors import RuntimeUnavailableError
from latlas_ops.network import Network
from latlas_ops.writers.onnx_writer import write_onnx
from latlas_ops.writers.opgraph import write_opgraph
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


def write_program(network: Network, program_format: str, batch: int) -> WrittenProgram:
    """The program of a network; weights are random but equal for equal networks.

    Raises: as the writer of the format.
    """
    return _WRITERS[program_format](network, batch)
