"""onnxruntime as a runtime plug-in. The runtime itself is imported when the plug-in is created.

State in which a program is timed: inputs are drawn once per session from a fixed seed (standard
normal for floats, zeros and ones for integers and booleans) and used by every inference, outputs
are allocated by the runtime as in normal use, operators run one after another, and thread pools
do not spin where one thread computes. A session that stays open keeps its weights packed and its
arena warm; what the processor's caches hold depends on the warm-up runs alone.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas_agent.runtimes.base import (
    INPUT_SEED,
    draw_normal,
    input_in_words,
    is_out_of_memory,
    require_known_inputs,
    settled_shape,
)
from latlas_agent.runtimes.onnx_attribution import Anchor, Originals, anchor_nodes
from latlas_agent.runtimes.onnx_graph import OnnxGraph, OnnxNode, read_graph
from latlas_agent.runtimes.onnx_precision import require_int8
from latlas_agent.runtimes.onnx_profile import node_series, read_profile
from latlas_latency.measurement import (
    InputShapes,
    RuntimeCapability,
    Series,
    Target,
    require_computed,
)
from latlas_ops.errors import (
    CorruptProgramError,
    InvalidInputError,
    LatlasError,
    MeasurementError,
    RuntimeUnavailableError,
)

NAME = "onnxruntime"

_CPU_PROVIDER = "CPUExecutionProvider"
_PRECISIONS = ("fp32", "int8")
_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_LOG_ERRORS_ONLY = 3
_FLOAT_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
}
_COUNT_TYPES = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(int8)": np.int8,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
_MAX_PROFILE_EVENTS = 200_000
"""Kernel times that one profile may hold; onnxruntime itself drops events beyond a million."""


@dataclass(frozen=True)
class _Attribution:
    """How the kernels of one session map to the tensors of its program."""

    originals: Originals
    nodes: tuple[OnnxNode, ...]
    anchors: tuple[Anchor, ...]


class OnnxRuntime:
    """The plug-in; see the module's text for the state in which programs are timed."""

    def __init__(self) -> None:
        self._ort = importlib.import_module("onnxruntime")
        self._originals: dict[Path, Originals] = {}

    def capability(self) -> RuntimeCapability:
        """See `Runtime.capability`."""
        return RuntimeCapability(
            runtime=NAME,
            version=str(self._ort.__version__),
            providers=tuple(self._ort.get_available_providers()),
            precisions=_PRECISIONS,
            graph_levels=tuple(_LEVELS),
            program_formats=("onnx",),
            per_node_times=True,
        )

    def load(self, program: Path, target: Target, shapes: InputShapes = ()) -> OnnxSession:
        """See `Runtime.load`."""
        require_int8(self._require_self_contained(program), target)
        session = self._open(program, target, self._options(target))
        return OnnxSession(session, target, shapes)

    def load_profiled(
        self, program: Path, target: Target, scratch: Path, shapes: InputShapes = ()
    ) -> ProfiledOnnxSession:
        """See `Runtime.load_profiled`.

        The optimised graph is saved by the very session that is profiled: another session of the
        same model names and orders the nodes that the optimiser inserts differently.
        """
        originals = self._originals.get(program)
        if originals is None:
            given = self._require_self_contained(program)
            require_int8(given, target)
            originals = self._originals[program] = Originals.of(given)
        optimised = scratch / "optimised.onnx"
        options = self._options(target)
        options.enable_profiling = True
        options.profile_file_prefix = str(scratch / "profile")
        options.optimized_model_filepath = str(optimised)
        session = self._open(program, target, options)
        graph = read_graph(optimised.read_bytes())
        optimised.unlink()
        attribution = _Attribution(originals, graph.nodes, anchor_nodes(originals, graph))
        return ProfiledOnnxSession(session, target, attribution, shapes)

    def _options(self, target: Target) -> Any:
        options = self._ort.SessionOptions()
        options.graph_optimization_level = getattr(
            self._ort.GraphOptimizationLevel, _LEVELS[target.graph_level]
        )
        options.execution_mode = self._ort.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = target.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _LOG_ERRORS_ONLY
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0" if target.threads == 1 else "1"
        )
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        if target.provider != _CPU_PROVIDER and not target.allow_fallback:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options

    def _open(self, program: Path, target: Target, options: Any) -> Any:
        available = self._ort.get_available_providers()
        if target.provider not in available:
            raise RuntimeUnavailableError(
                f"onnxruntime here has no {target.provider}; it has {', '.join(available)}"
            )
        if target.execution != "eager":
            raise RuntimeUnavailableError(
                f"onnxruntime has no execution {target.execution!r}, only 'eager'"
            )
        require_computed(target)
        if target.precision not in _PRECISIONS:
            raise RuntimeUnavailableError(
                f"onnxruntime has no precision {target.precision!r}, only "
                f"{' and '.join(_PRECISIONS)}"
            )
        try:
            session = self._ort.InferenceSession(
                str(program), sess_options=options, providers=[target.provider]
            )
        except Exception as error:
            raise _load_error(error, target) from error
        chosen = session.get_providers()
        if chosen[0] != target.provider and not target.allow_fallback:
            raise _fallback_error(target, chosen[0])
        return session

    def _require_self_contained(self, program: Path) -> OnnxGraph:
        """The program's graph; refuses a model that reads files beside itself."""
        graph = read_graph(program.read_bytes())
        if graph.has_external_data:
            raise CorruptProgramError(
                "the model keeps weights in another file; save it as one file and submit it again"
            )
        return graph


class OnnxSession:
    """A loaded model and its inputs."""

    def __init__(self, session: Any, target: Target, shapes: InputShapes = ()) -> None:
        self._session = session
        drawn = _make_inputs(session.get_inputs(), target, dict(shapes))
        self.inputs = tuple(map(input_in_words, drawn.values()))
        self.run: Callable[[], list[object]] = functools.partial(session.run, None, drawn)

    def outputs(self) -> Sequence[object]:
        """See `TellingSession.outputs`."""
        return self.run()


class ProfiledOnnxSession(OnnxSession):
    """A session that records kernel times; see `ProfiledSession`."""

    def __init__(
        self, session: Any, target: Target, attribution: _Attribution, shapes: InputShapes = ()
    ) -> None:
        super().__init__(session, target, shapes)
        self._target = target
        self._attribution = attribution
        self.max_runs = max(1, _MAX_PROFILE_EVENTS // max(1, len(attribution.nodes)))

    def node_series(self, n_runs: int) -> tuple[Series, ...]:
        """See `ProfiledSession.node_series`; deletes the profile."""
        profile = Path(self._session.end_profiling())
        with open(profile, encoding="utf-8", errors="replace") as lines:
            runs = read_profile(lines)
        profile.unlink()
        if len(runs) < n_runs or not runs[-1]:
            raise MeasurementError(
                f"onnxruntime's profile holds {len(runs)} inferences where {n_runs} were timed"
            )
        runs = runs[-n_runs:]
        target = self._target
        if not target.allow_fallback:
            for kernel in runs[-1]:
                if kernel.provider != target.provider:
                    raise _fallback_error(target, f"{kernel.provider} ({kernel.name})")
        attribution = self._attribution
        return node_series(runs, attribution.nodes, attribution.anchors, attribution.originals)


def _make_inputs(
    inputs: Sequence[Any], target: Target, shapes: Mapping[str, Sequence[int]]
) -> dict[str, NDArray[Any]]:
    """Inputs of a session, the same for equal programs."""
    require_known_inputs(shapes, [entry.name for entry in inputs])
    rng = np.random.default_rng(INPUT_SEED)
    return {entry.name: _make_input(entry, target, shapes, rng) for entry in inputs}


def _make_input(
    entry: Any, target: Target, shapes: Mapping[str, Sequence[int]], rng: np.random.Generator
) -> NDArray[Any]:
    declared = [size if isinstance(size, int) else None for size in entry.shape]
    shape = settled_shape(entry.name, declared, target, shapes)
    if entry.type in _FLOAT_TYPES:
        return draw_normal(rng, shape, _FLOAT_TYPES[entry.type])
    if entry.type in _COUNT_TYPES:
        return rng.integers(0, 2, shape).astype(_COUNT_TYPES[entry.type])
    raise InvalidInputError(f"input {entry.name!r} has the unsupported type {entry.type}")


def _fallback_error(target: Target, instead: str) -> LatlasError:
    return RuntimeUnavailableError(
        f"target {target.name!r} asks for {target.provider} but nodes run on {instead}; set "
        "allow_fallback to accept that"
    )


def _load_error(error: Exception, target: Target) -> Exception:
    """What a failed load means."""
    text = " ".join(str(error).split())
    if is_out_of_memory(error):
        return MemoryError(text)
    if "fallback to CPU EP" in text:
        return _fallback_error(target, _CPU_PROVIDER)
    return CorruptProgramError(f"onnxruntime cannot load the program: {text}")
