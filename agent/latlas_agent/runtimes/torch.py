"""torch as a runtime plug-in: op graphs, eager or compiled, on the processor or an NVIDIA GPU.

State in which a program is timed: its input is drawn once per session from a fixed seed (standard
normal) and lies where the network computes; tensors are float32, or float16 where the target says
fp16, and contiguous, as torch makes them by itself; no gradients are recorded. On a GPU an
inference ends when its output is there, so that handing over the kernels counts, and TF32 is
switched off, which would not be fp32. Compiling is done when a program is loaded and never timed.

An eager network is timed op by op: on the processor with the clock between ops, on a GPU with
events. A node is an op of the program, with all that its module does in Python.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import time
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from latlas_agent.runtimes.base import (
    INPUT_SEED,
    ProfiledSession,
    Session,
    draw_normal,
    input_in_words,
    is_out_of_memory,
)
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
from latlas_ops.writers.opgraph import read_opgraph
from latlas_ops.writers.torch_writer import torch_module

if TYPE_CHECKING:
    from latlas_ops.writers._torch_module import NetworkModule

NAME = "torch"
CPU, CUDA = "cpu", "cuda"
EAGER, COMPILED = "eager", "compiled"

_GRAPH_LEVEL = "all"
_MAX_PROFILE_TIMES = 200_000
_NVIDIA_DEVICES = ("/dev/nvidiactl", "/dev/nvhost-ctrl-gpu", "/dev/nvmap")


class TorchRuntime:
    """The plug-in; see the module's text.

    torch is not imported when the plug-in is created: that takes seconds, and every agent asks
    every runtime what it offers.
    """

    def __init__(self) -> None:
        """Raises `ImportError` where torch is not installed."""
        if importlib.util.find_spec("torch") is None:
            raise ImportError("No module named 'torch'")
        self._version = importlib.metadata.version("torch")

    def prepare(self) -> None:
        """Imports torch and lets it compute once; what that takes is not a program's."""
        torch = importlib.import_module("torch")
        with torch.inference_mode():
            torch.nn.functional.conv2d(torch.ones(1, 1, 3, 3), torch.ones(1, 1, 3, 3))

    def capability(self) -> RuntimeCapability:
        """See `Runtime.capability`."""
        return RuntimeCapability(
            runtime=NAME,
            version=self._version,
            providers=self._providers(),
            precisions=self._precisions(),
            graph_levels=(_GRAPH_LEVEL,),
            program_formats=("opgraph",),
            per_node_times=True,
            executions=(EAGER, COMPILED),
        )

    def load(self, program: Path, target: Target, shapes: InputShapes = ()) -> Session:
        """See `Runtime.load`; compiles where the target says so."""
        _require_no_shapes(shapes)
        session: TorchSession = self._open(program, target, TorchSession)
        return session

    def load_profiled(
        self, program: Path, target: Target, scratch: Path, shapes: InputShapes = ()
    ) -> ProfiledSession:
        """See `Runtime.load_profiled`."""
        _require_no_shapes(shapes)
        if target.execution != EAGER:
            raise RuntimeUnavailableError(
                f"torch times no single nodes of {target.execution} networks; measure ops in "
                "chains instead"
            )
        kind = ProfiledCudaSession if target.provider == CUDA else ProfiledCpuSession
        session: ProfiledSession = self._open(program, target, kind)
        return session

    def _providers(self) -> tuple[str, ...]:
        """Where networks can run. A CPU build, or a board without a GPU, need not be asked."""
        if self._version.endswith("+cpu") or not any(map(_exists, _NVIDIA_DEVICES)):
            return (CPU,)
        return (CPU, CUDA) if importlib.import_module("torch").cuda.is_available() else (CPU,)

    def _precisions(self) -> tuple[str, ...]:
        """What networks are computed in; `require_computed` says where fp16 is."""
        return ("fp32", "fp16") if CUDA in self._providers() else ("fp32",)

    def _open(self, program: Path, target: Target, kind: Callable[..., Any]) -> Any:
        self._require_supported(target)
        try:
            network, weights = read_opgraph(program.read_bytes())
        except InvalidInputError as error:
            raise CorruptProgramError(f"torch cannot load the program: {error}") from error
        torch = importlib.import_module("torch")
        torch.set_num_threads(target.threads)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        rng = np.random.default_rng(INPUT_SEED)
        shape = (target.batch, *network.input_shape)
        try:
            dtype = torch.float16 if target.precision == "fp16" else torch.float32
            module = torch_module(network, weights).requires_grad_(False)
            images = torch.from_numpy(draw_normal(rng, shape))
            return kind(
                module.to(target.provider, dtype), images.to(target.provider, dtype), target
            )
        except LatlasError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())
            if is_out_of_memory(error):
                raise MemoryError(text) from error
            raise CorruptProgramError(f"torch cannot run the program: {text}") from error

    def _require_supported(self, target: Target) -> None:
        require_computed(target)
        for field, wanted, offered in (
            ("provider", target.provider, self._providers()),
            ("execution", target.execution, (EAGER, COMPILED)),
            ("precision", target.precision, self._precisions()),
            ("graph level", target.graph_level, (_GRAPH_LEVEL,)),
        ):
            if wanted not in offered:
                raise RuntimeUnavailableError(
                    f"torch here has no {field} {wanted!r}; it has {', '.join(offered)}"
                )


class TorchSession:
    """A network with its input in place."""

    def __init__(self, module: NetworkModule, images: Any, target: Target) -> None:
        self._torch = importlib.import_module("torch")
        self._images = images
        self.inputs = (input_in_words(images.cpu().numpy()),)
        self._forward: Callable[[Any], Any] = module
        self._synchronise: Callable[[], object] | None = None
        if target.provider == CUDA:
            self._synchronise = self._torch.cuda.synchronize
        if target.execution == COMPILED:
            self._forward = self._compile(module)

    def run(self) -> object:
        """See `Session.run`."""
        with self._torch.inference_mode():
            output = self._forward(self._images)
            if self._synchronise is not None:
                self._synchronise()
        return output

    def outputs(self) -> Sequence[object]:
        """See `TellingSession.outputs`."""
        output: Any = self.run()
        return [output.float().cpu().numpy()]

    def _compile(self, module: NetworkModule) -> Callable[[Any], Any]:
        # In this process: a pool of compilers would outlive the load and compute beside the timing.
        settings: Any = importlib.import_module("torch._inductor.config")
        settings.compile_threads = 1
        # Code of its own: what is compiled is kept with the code, for a few networks at most, and
        # looked through at every call.
        forward = type(module).forward
        own = types.FunctionType(forward.__code__.replace(), forward.__globals__)
        own.__defaults__ = forward.__defaults__
        vars(module)["forward"] = types.MethodType(own, module)
        compiled: Callable[[Any], Any] = self._torch.compile(module, fullgraph=True, dynamic=False)
        try:
            with self._torch.inference_mode():
                compiled(self._images)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            text = " ".join(str(error).split())
            raise RuntimeUnavailableError(f"torch cannot compile here: {text:.300}") from error
        return compiled


class _ProfiledTorchSession:
    """What timing ops has in common, wherever they run."""

    def __init__(self, module: NetworkModule, images: Any, target: Target) -> None:
        self._torch = importlib.import_module("torch")
        self._module = module
        self._images = images
        self._place = target.provider
        self.max_runs = max(1, _MAX_PROFILE_TIMES // (len(module.ops) + 1))

    def _series(self, stamps_ns: NDArray[np.int64], n_runs: int) -> tuple[Series, ...]:
        """Series of the last runs from `(n_runs, n_ops + 1)` stamps before and after every op."""
        if len(stamps_ns) < n_runs:
            raise MeasurementError(
                f"the profile holds {len(stamps_ns)} inferences where {n_runs} were timed"
            )
        took_ns = np.diff(stamps_ns[-n_runs:], axis=1)
        return tuple(
            Series(op.result, took_ns[:, index], f"{'+'.join(_types(op))} {op.name}", self._place)
            for index, op in enumerate(self._module.ops)
        )


class ProfiledCpuSession(_ProfiledTorchSession):
    """An eager network on the processor, with the clock read between its ops."""

    def __init__(self, module: NetworkModule, images: Any, target: Target) -> None:
        super().__init__(module, images, target)
        n_stamps = len(module.ops) + 1
        self._stamps_ns = np.zeros(self.max_runs * n_stamps, dtype=np.int64)
        self._n_stamps = 0

    def run(self) -> object:
        """See `Session.run`."""
        with self._torch.inference_mode():
            self._stamp()
            return self._module(self._images, self._stamp)

    def _stamp(self) -> None:
        self._stamps_ns[self._n_stamps] = time.perf_counter_ns()
        self._n_stamps += 1

    def node_series(self, n_runs: int) -> tuple[Series, ...]:
        """See `ProfiledSession.node_series`."""
        stamps_ns = self._stamps_ns[: self._n_stamps]
        return self._series(stamps_ns.reshape(-1, len(self._module.ops) + 1), n_runs)


class ProfiledCudaSession(_ProfiledTorchSession):
    """An eager network on a GPU, with an event between its ops.

    An event says when the GPU got there. Where the GPU waits for the processor to hand over the
    next kernel, the wait counts as the op's: that is what the op costs in an eager network.
    """

    def __init__(self, module: NetworkModule, images: Any, target: Target) -> None:
        super().__init__(module, images, target)
        self._events = [
            self._torch.cuda.Event(enable_timing=True) for _ in range(len(module.ops) + 1)
        ]
        self._runs_ns = np.zeros((self.max_runs, len(self._events)), dtype=np.int64)
        self._n_runs = 0

    def run(self) -> object:
        """See `Session.run`."""
        waiting = iter(self._events)
        with self._torch.inference_mode():
            next(waiting).record()
            output = self._module(self._images, lambda: next(waiting).record())
            self._torch.cuda.synchronize()
        first = self._events[0]
        self._runs_ns[self._n_runs] = [
            round(first.elapsed_time(event) * 1e6) for event in self._events
        ]
        self._n_runs += 1
        return output

    def node_series(self, n_runs: int) -> tuple[Series, ...]:
        """See `ProfiledSession.node_series`."""
        return self._series(self._runs_ns[: self._n_runs], n_runs)


def _require_no_shapes(shapes: InputShapes) -> None:
    if shapes:
        raise InvalidInputError("the input of an op graph has no free axes: leave out --shape")


def _types(op: Any) -> list[str]:
    """The modules that an op consists of, for people."""
    return [type(child).__name__ for child in op.children()]


def _exists(path: str) -> bool:
    return Path(path).exists()
