"""Looking at the board right before and right after a visit, with all that it can tell."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from latlas_agent.android import Phone, PhoneReader, find_shell
from latlas_agent.clocks import allowed_clocks_mhz
from latlas_agent.conditions import Snapshot, take_snapshot
from latlas_agent.gpu import NVIDIA_PROVIDERS, Gpu, find_devfreq, read_devfreq
from latlas_agent.nvml import Nvml
from latlas_ops.errors import RuntimeUnavailableError

ReadGpu = Callable[[], Gpu]
ReadPhone = Callable[[], Phone]


class Watch:
    """Takes snapshots around visits of this process.

    What is slow to ask is asked outside of the time that the snapshots enclose, so that the asking
    itself is not taken for a neighbour, and does not dilute what is counted between them.

    Vendors cap some cores below their highest clock for good: a phone's core counts as capped where
    it may reach less than it might at any time since this watch began.

    Args:
        root: the root directory.
        cores: cores that the measurement runs on.
        read_gpu: reads the GPU that the target runs on; None if it runs on none that tells.
        read_phone: reads the phone's state; None if this is no phone.
    """

    def __init__(
        self,
        root: Path,
        cores: Sequence[int],
        read_gpu: ReadGpu | None = None,
        read_phone: ReadPhone | None = None,
    ) -> None:
        self._root = root
        self._cores = cores
        self._read_gpu = read_gpu
        self._read_phone = read_phone
        self._usual_mhz = allowed_clocks_mhz(root, cores)

    def before(self) -> Snapshot:
        """The state before the warm-up."""
        phone, gpu = self._phone(), self._gpu()
        return dataclasses.replace(self._snapshot(), gpu=gpu, phone=phone)

    def after(self) -> Snapshot:
        """The state after the last inference.

        A GPU comes next: within milliseconds it lowers its clock and forgets why it held it back.
        """
        snapshot = self._snapshot()
        gpu = self._gpu()
        return dataclasses.replace(snapshot, gpu=gpu, phone=self._phone())

    def _snapshot(self) -> Snapshot:
        snapshot = take_snapshot(
            self._root, self._cores, time.process_time_ns(), time.perf_counter_ns()
        )
        return dataclasses.replace(snapshot, clock_capped=self._clock_capped())

    def _clock_capped(self) -> bool | None:
        allowed = allowed_clocks_mhz(self._root, self._cores)
        for core, mhz in allowed.items():
            self._usual_mhz[core] = max(mhz, self._usual_mhz.get(core, mhz))
        return (
            any(mhz < self._usual_mhz[core] for core, mhz in allowed.items()) if allowed else None
        )

    def _gpu(self) -> Gpu | None:
        return self._read_gpu() if self._read_gpu else None

    def _phone(self) -> Phone | None:
        return self._read_phone() if self._read_phone else None


def open_watch(
    root: Path, cores: Sequence[int], provider: str, environment: Mapping[str, str]
) -> Watch:
    """A watch over visits to programs on `provider`; a GPU that tells nothing is passed over.

    Args:
        root: the root directory.
        cores: cores that the measurement runs on.
        provider: execution provider of the target.
        environment: environment variables of this process.
    """
    read_gpu: ReadGpu | None = None
    if provider in NVIDIA_PROVIDERS:
        try:
            read_gpu = open_gpu(root, environment, own_pid=os.getpid())
        except RuntimeUnavailableError:
            read_gpu = None
    shell = find_shell(root)
    return Watch(root, cores, read_gpu, PhoneReader(shell) if shell else None)


def open_gpu(
    root: Path,
    environment: Mapping[str, str],
    own_pid: int | None,
    load_nvml: Callable[[], Nvml] = Nvml.load,
) -> ReadGpu:
    """What reads the NVIDIA GPU that CUDA takes for its first one.

    Args:
        root: the root directory.
        environment: environment variables of the process that computes.
        own_pid: that process; None if it is not there yet.
        load_nvml: loads NVIDIA's management library.

    Raises:
        RuntimeUnavailableError: no GPU can be asked; the message says why.
    """
    node = find_devfreq(root)
    if node is not None:
        return lambda: read_devfreq(root, node)
    library = load_nvml()
    index = library.find(environment)
    return lambda: library.read(index, own_pid, time.time_ns())
