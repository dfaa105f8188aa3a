"""What a runtime plug-in provides. Plug-ins live in a worker process that may die with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Protocol

from latlas_latency.measurement import RuntimeCapability, Series, Target

_OUT_OF_MEMORY = re.compile(r"bad.?alloc|failed to allocate|cannot allocate|out of memory", re.I)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that memory ran out; native runtimes only say so in words."""
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))


class Session(Protocol):
    """A loaded program with its inputs in place."""

    def run(self) -> object:
        """One inference, from inputs to outputs; returns when the outputs are there."""


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

    All methods may raise any `LatlasError`, and `MemoryError` where memory ran out. Any other
    exception, and the death of the process, is reported as a failed measurement of the program.
    """

    def capability(self) -> RuntimeCapability:
        """What this runtime offers on this device.

        Raises:
            RuntimeUnavailableError: the runtime is not installed or does not work here.
        """

    def load(self, program: Path, target: Target) -> Session:
        """Loads a program for timing whole inferences.

        Raises:
            CorruptProgramError: the file is no program that the runtime can load.
            InvalidInputError: the program does not fit the target, for example its batch size.
            RuntimeUnavailableError: provider, precision or execution of the target are not to
                be had, or the provider hands nodes to another one and the target forbids it.
        """

    def load_profiled(self, program: Path, target: Target, scratch: Path) -> ProfiledSession:
        """As `load`, recording the time of every node; files go into the folder `scratch`.

        Raises:
            RuntimeUnavailableError: also where the runtime cannot time nodes.
        """
