"""Any torch module as an op: exported once, translated into Latlas's own primitives.

The op is of the kind `graph` (`latlas_ops.graph_kind`), so that every writer, cost, table and
campaign takes it, and its key says what it computes: equal modules are one op. Torch is imported
when a module is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas_ops._trace import State, Trace
from latlas_ops.errors import InvalidInputError, MissingDependencyError, UnsupportedModuleError
from latlas_ops.graph_kind import GRAPH, describe
from latlas_ops.network import Network
from latlas_ops.opspec import OpSpec

if TYPE_CHECKING:
    import torch

_CACHE_SIZE = 256
_lock = threading.Lock()
_cache: OrderedDict[tuple[object, ...], Trace] = OrderedDict()


@dataclass(frozen=True, eq=False)
class ImportedModule:
    """A module as an op.

    Attributes:
        op: the op, of the kind `graph`.
        weights: those of the module, batch norms folded in, float32, by the names that they have
            in a network of this op alone. They are copies.
    """

    op: OpSpec
    weights: Mapping[str, NDArray[np.float32]]

    @property
    def network(self) -> Network:
        """The op alone: what writers take together with `weights`."""
        return Network.chain([self.op])

    def weights_at(self, position: int) -> dict[str, NDArray[np.float32]]:
        """The weights by the names that they have where the op is at `position` of a network."""
        return {
            f"{position}.{name.split('.', 1)[1]}": array for name, array in self.weights.items()
        }


def import_module(
    module: torch.nn.Module, *example_inputs: torch.Tensor | Sequence[int]
) -> ImportedModule:
    """A torch module as an op or a block, in evaluation mode.

    Batch norms are folded into the convolution or linear layer before them, dropout vanishes. The
    module is left as it was. A module of the same structure and shapes is not exported again.

    Args:
        module: gives one tensor; images are `(n, c, h, w)`, sequences `(n, length, features)`,
            vectors `(n, features)`.
        example_inputs: per input a tensor, or its shape with the batch axis.

    Raises:
        UnsupportedModuleError: it computes something that Latlas has no primitive for; the error
            names the part of the module, the operator, and what to do.
        InvalidInputError: it does not run on these inputs, or gives several tensors.
        MissingDependencyError: torch is not installed.
    """
    examples = as_tensors(example_inputs)
    trace = cached_trace(module, examples)
    if not trace.steps:
        raise InvalidInputError(f"{type(module).__name__} gives its input as it is: it is no op")
    return imported(trace, _exporter().module_state(module))


def _exporter() -> Any:
    try:
        from latlas_ops import _export
    except ImportError as error:
        raise MissingDependencyError(
            'importing a torch module needs torch: pip install "latlas[torch]"'
        ) from error
    return _export


def as_tensors(given: Sequence[torch.Tensor | Sequence[int]]) -> tuple[torch.Tensor, ...]:
    """Example inputs as tensors; of a shape, zeros.

    Raises:
        InvalidInputError: none are given, or one has no batch axis.
    """
    _exporter()
    import torch

    examples = tuple(
        one if isinstance(one, torch.Tensor) else torch.zeros(tuple(one)) for one in given
    )
    if not examples or any(one.ndim < 2 for one in examples):
        raise InvalidInputError(
            "a module needs an example of each input, the batch axis first, for example "
            "(1, 3, 32, 32)"
        )
    return examples


def cached_trace(module: torch.nn.Module, examples: Sequence[torch.Tensor]) -> Trace:
    """The steps of a module; exported once for all modules of the same content."""
    export = _exporter()
    key = export.content_of(module, examples)
    with _lock:
        if key is not None and key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    trace: Trace = export.trace_module(module, examples)
    if key is not None:
        with _lock:
            _cache[key] = trace
            if len(_cache) > _CACHE_SIZE:
                _cache.popitem(last=False)
    return trace


def imported(trace: Trace, state: State) -> ImportedModule:
    """The op of a trace, and its weights out of the state of the module."""
    op = op_of(trace)
    weights: dict[str, NDArray[np.float32]] = {}
    for index, (step, recipe) in enumerate(zip(trace.steps, trace.recipes, strict=True)):
        if recipe is not None:
            part = f"0.{step.primitive}{index}"
            weights[f"{part}.weight"], weights[f"{part}.bias"] = recipe(state)
    return ImportedModule(op, weights)


def op_of(trace: Trace) -> OpSpec:
    """The op of a trace that has steps.

    Raises:
        InvalidInputError: an input has no influence on the output.
    """
    inputs = [shape[1:] for shape in trace.input_shapes]
    op = OpSpec.of(GRAPH, *inputs, **{GRAPH: describe(trace.steps)})
    wanted = trace.shape(trace.output)[1:]
    if op.outputs[0] != wanted:
        raise UnsupportedModuleError(
            f"the module gives {wanted} where its translation gives {op.outputs[0]}; please report "
            "it, and export the module with torch.onnx.export to measure it meanwhile"
        )
    return op
