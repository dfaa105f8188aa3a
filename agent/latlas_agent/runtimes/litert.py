"""LiteRT and its predecessor tflite-runtime as runtime plug-ins: one code, two packages.

State in which a program is timed: inputs are drawn once per session from a fixed seed (standard
normal for floats and for what quantised integers stand for, zeros and ones for others) and copied
into the interpreter's own tensors, where every inference finds them again; images are drawn
channels first, so that other runtimes get the same ones, and laid out as the program has them;
outputs stay in the interpreter's memory. A session that stays open keeps its weights packed and
its arena warm; what the processor's caches hold depends on the warm-up runs alone.

Providers are `xnnpack`, the delegate that runtimes of this family apply by themselves; `builtin`,
their own kernels alone; and `delegate:PATH`, a shared library that the agent was told of.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas_agent.runtimes.base import (
    INPUT_SEED,
    ProfiledSession,
    draw_normal,
    input_in_words,
    is_out_of_memory,
    require_known_inputs,
    settled_shape,
)
from latlas_agent.runtimes.tflite_graph import check_tflite
from latlas_agent.runtimes.tflite_placement import TfliteNode, left_over
from latlas_agent.runtimes.tflite_precision import require_computed_right
from latlas_latency.measurement import InputShapes, RuntimeCapability, Target, require_computed
from latlas_ops.errors import (
    CorruptProgramError,
    InvalidInputError,
    LatlasError,
    RuntimeUnavailableError,
)

XNNPACK, BUILTIN = "xnnpack", "builtin"
DELEGATE_PREFIX = "delegate:"

DELEGATES_VARIABLE = "LATLAS_DELEGATES"
"""Environment variable with the paths of delegates, separated as in `PATH`."""

_GRAPH_LEVEL = "all"
_PRECISIONS = ("fp32", "int8")
_IMAGE_AXES = 4
_DELEGATE_FUNCTIONS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")
_MOST_NAMED = 5


class LiteRt:
    """The plug-in for the package ai-edge-litert; see the module's text."""

    name = "litert"
    package = "ai_edge_litert"

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Imports the runtime.

        Args:
            environment: environment variables; see `DELEGATES_VARIABLE`.

        Raises:
            ImportError: the package is not installed.
            RuntimeUnavailableError: it cannot work with what is installed beside it.
        """
        self._require_working()
        self._module = importlib.import_module(f"{self.package}.interpreter")
        self._version = _version(self.package)
        self._delegates = find_delegates(environment)
        self._providers = (XNNPACK, BUILTIN, *self._delegates)

    def _require_working(self) -> None:
        """Raises `RuntimeUnavailableError` where importing succeeds and using fails."""

    def capability(self) -> RuntimeCapability:
        """See `Runtime.capability`."""
        return RuntimeCapability(
            runtime=self.name,
            version=self._version,
            providers=self._providers,
            precisions=_PRECISIONS,
            graph_levels=(_GRAPH_LEVEL,),
            program_formats=("tflite",),
            per_node_times=False,
        )

    def load(self, program: Path, target: Target, shapes: InputShapes = ()) -> LiteRtSession:
        """See `Runtime.load`."""
        self._require_supported(target)
        model = program.read_bytes()
        n_nodes = check_tflite(model)
        require_computed_right(model, target)
        try:
            interpreter = self._open(program, target)
            _fit_shapes(interpreter, target, dict(shapes))
            if target.provider in self._delegates:
                _require_placed(interpreter, n_nodes, target)
            interpreter.allocate_tensors()
            if target.provider == XNNPACK:  # applied when memory is laid out
                _require_placed(interpreter, n_nodes, target)
            return LiteRtSession(interpreter)
        except LatlasError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            if is_out_of_memory(error):
                raise MemoryError(text) from error
            raise CorruptProgramError(f"{self.name} cannot load the program: {text}") from error

    def load_profiled(
        self, program: Path, target: Target, scratch: Path, shapes: InputShapes = ()
    ) -> ProfiledSession:
        """Refuses: from Python, runtimes of this family do not time nodes."""
        raise RuntimeUnavailableError(
            f"{self.name} does not time single nodes; measure ops in chains instead"
        )

    def _require_supported(self, target: Target) -> None:
        if target.provider not in self._providers:
            raise RuntimeUnavailableError(
                f"{self.name} here has no provider {target.provider!r}; it has "
                f"{', '.join(self._providers)}; a delegate is offered once the agent runs with "
                "--delegate PATH"
            )
        require_computed(target)
        for field, wanted, offered in (
            ("execution", target.execution, ("eager",)),
            ("precision", target.precision, _PRECISIONS),
            ("graph level", target.graph_level, (_GRAPH_LEVEL,)),
        ):
            if wanted not in offered:
                raise RuntimeUnavailableError(
                    f"{self.name} has no {field} {wanted!r}, only {' and '.join(offered)}"
                )

    def _open(self, program: Path, target: Target) -> Any:
        resolvers = self._module.OpResolverType
        library = self._delegates.get(target.provider)
        return self._module.Interpreter(
            model_path=str(program),
            num_threads=target.threads,
            experimental_delegates=None if library is None else [self._load_delegate(library)],
            experimental_op_resolver_type=resolvers.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            if target.provider == BUILTIN
            else resolvers.AUTO,
        )

    def _load_delegate(self, library: Path) -> Any:
        try:
            functions = ctypes.CDLL(str(library))
            for function in _DELEGATE_FUNCTIONS:
                getattr(functions, function)
            return self._module.load_delegate(str(library))
        except (OSError, AttributeError, ValueError) as error:
            text = " ".join(str(error).split())
            raise RuntimeUnavailableError(f"delegate {library} cannot be loaded: {text}") from error


class TfliteRuntime(LiteRt):
    """The plug-in for the package tflite-runtime; see the module's text."""

    name = "tflite-runtime"
    package = "tflite_runtime"

    def _require_working(self) -> None:
        """Refuses numpy 2, under which the package imports cleanly and its first use fails."""
        if importlib.util.find_spec(self.package) is None:
            return
        if int(np.__version__.split(".", maxsplit=1)[0]) >= 2:
            raise RuntimeUnavailableError(
                f"tflite-runtime needs numpy < 2 and would fail with the numpy {np.__version__} "
                "that is installed here; give it an environment of its own: pip install "
                '"latlas[tflite]"'
            )


class LiteRtSession:
    """A loaded model with its inputs in place and its outputs left where they are."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        rng = np.random.default_rng(INPUT_SEED)
        words = []
        for entry in interpreter.get_input_details():
            drawn = _draw(entry, rng)
            words.append(input_in_words(drawn))
            interpreter.set_tensor(entry["index"], _quantised(entry, _channels_last(drawn)))
        self.inputs = tuple(words)
        self.run: Callable[[], object] = interpreter.invoke

    def outputs(self) -> Sequence[object]:
        """See `TellingSession.outputs`."""
        self.run()
        return [
            _channels_first(_dequantised(entry, self._interpreter.get_tensor(entry["index"])))
            for entry in self._interpreter.get_output_details()
        ]


def _version(package: str) -> str:
    """Version of an imported package; of its distribution where it does not say one itself."""
    said = getattr(importlib.import_module(package), "__version__", None)
    return str(said or importlib.metadata.version(package.replace("_", "-")))


def find_delegates(environment: Mapping[str, str]) -> dict[str, Path]:
    """Delegates that the agent was told of, by the name of their provider.

    Files that are not there are passed over: a delegate may come with a device that is not plugged
    in. Whether one works shows when a program is loaded.
    """
    paths = map(Path, filter(None, environment.get(DELEGATES_VARIABLE, "").split(os.pathsep)))
    return {f"{DELEGATE_PREFIX}{path}": path for path in paths if path.is_file()}


def _fit_shapes(interpreter: Any, target: Target, shapes: Mapping[str, Sequence[int]]) -> None:
    """Gives the free axes of every input their sizes; see `settled_shape`."""
    inputs = interpreter.get_input_details()
    require_known_inputs(shapes, [entry["name"] for entry in inputs])
    for entry in inputs:
        signature = [int(size) for size in entry.get("shape_signature", entry["shape"])]
        declared = [None if size < 0 else size for size in signature]
        shape = settled_shape(entry["name"], declared, target, shapes)
        if None in declared:
            interpreter.resize_tensor_input(entry["index"], shape, strict=True)


def _require_placed(interpreter: Any, n_nodes: int, target: Target) -> None:
    """Refuses a program of which the target's provider left nodes to the plain kernels."""
    if target.allow_fallback:
        return
    list_nodes = getattr(interpreter, "_get_ops_details", None)
    if list_nodes is None:
        raise RuntimeUnavailableError(
            f"target {target.name!r} asks for {target.provider}, and this version of "
            f"{target.runtime} does not say where nodes run; set allow_fallback to accept that"
        )
    listed = [
        TfliteNode(
            op=str(entry["op_name"]),
            inputs=tuple(map(int, entry["inputs"])),
            outputs=tuple(map(int, entry["outputs"])),
        )
        for entry in list_nodes()
    ]
    results = [int(entry["index"]) for entry in interpreter.get_output_details()]
    left = left_over(listed[:n_nodes], listed[n_nodes:], results)
    if left:
        raise RuntimeUnavailableError(
            f"target {target.name!r} asks for {target.provider} but {len(left)} of {n_nodes} nodes "
            f"run on plain kernels instead ({_in_words(left)}); set allow_fallback to accept that"
        )


def _in_words(nodes: Sequence[TfliteNode]) -> str:
    """The operators of some nodes."""
    ops = list(dict.fromkeys(node.op for node in nodes))
    return ", ".join([*ops[:_MOST_NAMED], *(["..."] if len(ops) > _MOST_NAMED else [])])


def _draw(entry: Mapping[str, Any], rng: np.random.Generator) -> NDArray[Any]:
    """An input as an interpreter describes it, images channels first, nothing quantised."""
    dtype, shape = np.dtype(entry["dtype"]), list(map(int, entry["shape"]))
    if len(shape) == _IMAGE_AXES:
        shape.insert(1, shape.pop())
    if dtype.kind == "f":
        return draw_normal(rng, shape, dtype)
    if dtype.kind in "iu" and entry["quantization"][0]:
        return draw_normal(rng, shape)
    if dtype.kind == "b":
        return np.asarray(rng.integers(0, 2, shape)).astype(dtype)
    if dtype.kind not in "iu":
        raise InvalidInputError(f"input {entry['name']!r} has the unsupported type {dtype}")
    return np.asarray(rng.integers(0, 1, shape, dtype=dtype, endpoint=True))


def _channels_last(array: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(array, 1, -1) if array.ndim == _IMAGE_AXES else array


def _channels_first(array: NDArray[Any]) -> NDArray[Any]:
    return np.moveaxis(array, -1, 1) if array.ndim == _IMAGE_AXES else array


def _quantised(entry: Mapping[str, Any], drawn: NDArray[Any]) -> NDArray[Any]:
    """What the tensor of an input holds for the numbers that were drawn."""
    scale, zero_point = entry["quantization"]
    if not scale:
        return drawn
    limits = np.iinfo(entry["dtype"])
    steps = np.round(drawn / np.float32(scale)) + zero_point
    stored: NDArray[Any] = np.clip(steps, limits.min, limits.max).astype(entry["dtype"])
    return stored


def _dequantised(entry: Mapping[str, Any], array: NDArray[Any]) -> NDArray[Any]:
    """What the numbers of a tensor stand for."""
    scale, zero_point = entry["quantization"]
    return (array.astype(np.float32) - zero_point) * np.float32(scale) if scale else array
