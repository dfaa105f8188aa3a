"""Runtime plug-ins: what can run a program. Found by name without importing any runtime.

A third-party plug-in registers a class under the entry-point group `latlas.runtimes`; the entry
point's name is the runtime's name in targets.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping

from latlas_agent.runtimes.base import ProfiledSession, Runtime, Session
from latlas_ops.errors import RuntimeUnavailableError

__all__ = ["ENTRY_POINT_GROUP", "ProfiledSession", "Runtime", "Session", "load_runtime", "registry"]

ENTRY_POINT_GROUP = "latlas.runtimes"

_BUILT_IN = {
    "litert": "latlas_agent.runtimes.litert:LiteRt",
    "onnxruntime": "latlas_agent.runtimes.onnxruntime:OnnxRuntime",
    "tflite-runtime": "latlas_agent.runtimes.litert:TfliteRuntime",
    "torch": "latlas_agent.runtimes.torch:TorchRuntime",
}


def registry() -> Mapping[str, importlib.metadata.EntryPoint]:
    """Every plug-in by runtime name, built-in and installed; none of them is imported yet."""
    found = {
        name: importlib.metadata.EntryPoint(name, value, ENTRY_POINT_GROUP)
        for name, value in _BUILT_IN.items()
    }
    for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        found.setdefault(entry_point.name, entry_point)
    return found


def load_runtime(name: str) -> Runtime:
    """Imports and creates a plug-in; only ever called in a worker process.

    Raises:
        RuntimeUnavailableError: no plug-in has that name, or what it needs cannot be imported.
    """
    found = registry()
    if name not in found:
        raise RuntimeUnavailableError(
            f"no runtime {name!r} on this device; there are {', '.join(sorted(found))}"
        )
    try:
        runtime: Runtime = found[name].load()()
    except ImportError as error:
        raise RuntimeUnavailableError(
            f"runtime {name!r} cannot be imported on this device: {error}"
        ) from error
    return runtime
