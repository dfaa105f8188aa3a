"""`Visit`: the unit that is measured, reported and stored. Raw samples; statistics are derived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from latlas_latency.measurement.outputs import Computed
from latlas_ops.errors import InvalidInputError

PLAIN = "plain"
PROFILED = "profiled"
MODES = (PLAIN, PROFILED)

WHOLE_NETWORK = "network"
"""Label of the series that times a whole inference."""


@dataclass(frozen=True)
class Conditions:
    """The state of the device around one visit; None where the device does not say.

    Attributes:
        clock_mhz: mean clock of the cores in use.
        temperature_celsius: hottest sensor.
        throttled: whether the device reduced its clock during the visit.
        load_1min: the operating system's load average.
        other_cpu_share: share of all cores' time that others used during the visit, 0 to 1.
        available_memory_bytes: memory still to be had.
        governor: frequency governor.
        waiting_share: share of the visit in which the measuring thread that waited longest could
            have run but was kept off its core, 0 to 1: somebody else was on it.
        memory_stall_share: share of the visit in which some process on the device stood still
            for want of memory, 0 to 1.
        power_mode: what the device is set to, in its own words; steadier than a clock reading.
        online_cores: cores that are switched on: those that `other_cpu_share` speaks of.
        max_clock_mhz: the highest clock that the GPU of the target has, or the mean of those that
            the cores in use have, where it runs on none.
        gpu_clock_mhz: clock of the GPU that the target runs on; None where it runs on none.
        other_gpu_share: share of the GPU's time that others used in the last second, 0 to 1.
        other_gpu_memory_bytes: memory on the GPU that others held.
        available_gpu_memory_bytes: memory on the GPU still to be had.
    """

    clock_mhz: float | None = None
    temperature_celsius: float | None = None
    throttled: bool | None = None
    load_1min: float | None = None
    other_cpu_share: float | None = None
    available_memory_bytes: int | None = None
    governor: str | None = None
    waiting_share: float | None = None
    memory_stall_share: float | None = None
    power_mode: str | None = None
    online_cores: int | None = None
    max_clock_mhz: float | None = None
    gpu_clock_mhz: float | None = None
    other_gpu_share: float | None = None
    other_gpu_memory_bytes: int | None = None
    available_gpu_memory_bytes: int | None = None


InputShapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Shapes of a program's inputs by name, batch axis included, for inputs with free axes."""


def input_shapes(shapes: Mapping[str, Sequence[int]]) -> InputShapes:
    """Checked shapes, in order of name.

    Raises:
        InvalidInputError: a shape is empty or has an axis below 1; the input is named.
    """
    for name, sizes in shapes.items():
        if not name or not sizes or any(size < 1 for size in sizes):
            raise InvalidInputError(
                f"input {name!r} cannot have the shape {'x'.join(map(str, sizes)) or 'of nothing'}"
            )
    return tuple(sorted((name, tuple(sizes)) for name, sizes in shapes.items()))


@dataclass(frozen=True)
class Opening:
    """What it took to get a program going, in the visit for which its session was opened.

    Attributes:
        load_ns: loading the program, from the file to a session that is ready to run.
        first_run_ns: the first inference, before anything is warm.
        memory_bytes: resident memory that loading and running it added to its process.
        computed: what it computed; None where the runtime does not tell.
    """

    load_ns: int
    first_run_ns: int
    memory_bytes: int
    computed: Computed | None = None


@dataclass(frozen=True, eq=False)
class Series:
    """Raw samples of one thing: the whole network, or one node of the runtime's own graph.

    Attributes:
        label: `WHOLE_NETWORK`, or the name of the program's tensor that the node belongs to
            (its own output, or the nearest the runtime kept); empty where it cannot be said.
        node: the runtime's type and name of the node, for people; empty for whole networks.
        samples_ns: `(n_runs,)` int64, one duration per timed inference, in order.
        place: what computed the node, for example an execution provider; empty where that is not
            said.
        shapes: of the node's inputs, weights among them, and outputs, such as
            `1x16x64x64 48x16x1x1 48 > 1x48x64x64`; empty where the runtime does not tell.
    """

    label: str
    samples_ns: NDArray[np.int64]
    node: str = ""
    place: str = ""
    shapes: str = ""

    def __post_init__(self) -> None:
        samples = np.ascontiguousarray(self.samples_ns, dtype=np.int64)
        if samples.ndim != 1 or not samples.size:
            raise InvalidInputError(f"series {self.label!r}: needs at least one sample")
        if samples.min() < 0:
            raise InvalidInputError(f"series {self.label!r}: negative duration {samples.min()} ns")
        samples.setflags(write=False)
        object.__setattr__(self, "samples_ns", samples)

    def packed(self) -> bytes:
        """Samples as little-endian int64, the form in which they travel and are stored."""
        return self.samples_ns.astype("<i8").tobytes()

    @classmethod
    def unpack(
        cls, label: str, packed: bytes, node: str = "", place: str = "", shapes: str = ""
    ) -> Series:
        """The series of `packed`; raises `InvalidInputError` on a broken length."""
        if len(packed) % 8:
            raise InvalidInputError(f"series {label!r}: {len(packed)} bytes are not whole int64s")
        return cls(label, np.frombuffer(packed, dtype="<i8"), node, place, shapes)


@dataclass(frozen=True, eq=False)
class Visit:
    """One program on one device in one round. Validated at birth, never changed or thrown away.

    Attributes:
        task_id: the task that this visit belongs to.
        device_id: the board.
        round: round number within the task, from 0.
        mode: `PLAIN`, or `PROFILED` with per-node times.
        started_ns: Unix time at the first timed inference.
        duration_ns: monotonic time from the first timed inference to the end of the last.
        warmup_runs: inferences run before, not timed.
        series: the whole network's series first; profiled visits add one per node. All have
            the same number of samples.
        conditions: state of the device.
        opening: what it took to get the program going; None where its session was open already.
    """

    task_id: str
    device_id: str
    round: int
    mode: str
    started_ns: int
    duration_ns: int
    warmup_runs: int
    series: tuple[Series, ...]
    conditions: Conditions = field(default_factory=Conditions)
    opening: Opening | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidInputError(f"visit of {self.task_id}: mode {self.mode!r} is unknown")
        if self.round < 0:
            raise InvalidInputError(f"visit of {self.task_id}: round {self.round} is negative")
        if not self.series or self.series[0].label != WHOLE_NETWORK:
            raise InvalidInputError(f"visit of {self.task_id}: the whole network comes first")
        if self.mode == PLAIN and len(self.series) > 1:
            raise InvalidInputError(f"visit of {self.task_id}: a plain visit has one series")
        n_runs = len(self.series[0].samples_ns)
        for series in self.series:
            if len(series.samples_ns) != n_runs:
                raise InvalidInputError(
                    f"visit of {self.task_id}: series {series.label!r} has "
                    f"{len(series.samples_ns)} samples, the whole network {n_runs}"
                )
        if self.series[0].samples_ns.min() <= 0:
            raise InvalidInputError(f"visit of {self.task_id}: an inference took no time")

    @property
    def network_ns(self) -> NDArray[np.int64]:
        """Samples of the whole network, `(n_runs,)` int64."""
        return self.series[0].samples_ns

    @property
    def nodes(self) -> tuple[Series, ...]:
        """Series of the nodes; empty for a plain visit."""
        return self.series[1:]
