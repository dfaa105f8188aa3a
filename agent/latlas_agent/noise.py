"""How noisy labels measured on this machine would be, from a few seconds of a fixed workload.

`python -m latlas_agent.noise CORES` (as in `0,1`; empty for all) prints a `NoiseEstimate` as JSON
and ends. It is a process of its own so that its pinning and thread count touch nobody else.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latlas_agent.conditions import conditions_between
from latlas_agent.sysfs import ROOT
from latlas_agent.tasks import visit_order
from latlas_agent.timing import time_runs
from latlas_agent.watch import Watch
from latlas_agent.worker import pin
from latlas_latency.measurement import PLAIN, WHOLE_NETWORK, Series, Visit, visit_flags
from latlas_latency.measurement.statistics import common_mode_free_noise, label_noise
from latlas_ops.errors import MeasurementError, RuntimeUnavailableError

N_ROUNDS_OF_A_LABEL = 3
"""Visits per network in a campaign unless asked otherwise."""

_N_LABELS = 3
_WIDTHS = (96, 112, 128, 160, 192, 224, 256, 288)
_N_LAYERS = 4
_MIN_RUNS = 5
_MIN_DURATION_NS = 20_000_000
_WARMUP_RUNS = 2
_TIMEOUT_S = 120.0
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class NoiseEstimate:
    """What labels measured now would be worth; shares are fractions.

    A campaign lasts longer than this estimate and drifts more; bursts rarer than one in some
    seconds are missed. It says what to expect at best.

    Attributes:
        label_noise: one half of a label's rounds against the other, the median over networks.
        common_mode_free_noise: the same without what slowed all networks of a round alike.
        worst_label_error: largest distance of a label from the median of all its network's visits.
        n_rounds: visits that make a label.
        n_visits: visits made in all.
        n_flagged_visits: visits under conditions that tables avoid.
        flags: flag → visits that have it.
        duration_s: how long it took.
    """

    label_noise: float
    common_mode_free_noise: float
    worst_label_error: float
    n_rounds: int
    n_visits: int
    n_flagged_visits: int
    flags: Mapping[str, int]
    duration_s: float


def workload(width: int) -> Callable[[], object]:
    """A small network in numpy: what it computes does not matter, only that it is like one.

    Matrix products with weights of their own, and activations of half a megabyte that pass through
    memory between them.

    Args:
        width: channels; its time grows with the square.
    """
    rng = np.random.default_rng(width)
    n_pixels = (1 << 17) // width
    weights = rng.standard_normal((_N_LAYERS, width, width), dtype=np.float32) / np.sqrt(width)
    image = rng.standard_normal((width, n_pixels), dtype=np.float32)

    def run() -> NDArray[np.float32]:
        activations = image
        for weight in weights:
            activations = np.maximum(weight @ activations, np.float32(0))
        return activations

    return run


def estimate(visits: Sequence[Visit], duration_s: float) -> NoiseEstimate:
    """The estimate from visits that make several labels of every network.

    Args:
        visits: of every network in each of `_N_LABELS * N_ROUNDS_OF_A_LABEL` rounds; their
            `task_id` names the network.
        duration_s: how long they took.
    """
    networks = sorted({visit.task_id for visit in visits})
    n_rounds = max(visit.round for visit in visits) + 1
    matrix = np.full((len(networks), n_rounds), np.nan)
    for visit in visits:
        matrix[networks.index(visit.task_id), visit.round] = np.median(visit.network_ns)
    # Every third round: the visits that make a label lie as far apart as they can.
    parts = [matrix[:, first::_N_LABELS] for first in range(_N_LABELS)]
    truth = np.nanmedian(matrix, axis=1)
    errors = [np.abs(np.nanmedian(part, axis=1) / truth - 1).max() for part in parts]
    found = [visit_flags(visit.conditions) for visit in visits]
    counts = Counter(flag.value for flags in found for flag in flags)
    return NoiseEstimate(
        label_noise=float(np.median([label_noise(part) for part in parts])),
        common_mode_free_noise=float(np.median([common_mode_free_noise(part) for part in parts])),
        worst_label_error=float(max(errors)),
        n_rounds=N_ROUNDS_OF_A_LABEL,
        n_visits=len(visits),
        n_flagged_visits=sum(bool(flags) for flags in found),
        flags=dict(sorted(counts.items())),
        duration_s=duration_s,
    )


def measure_noise(cores: Sequence[int], root: Path = ROOT) -> NoiseEstimate:
    """The estimate for one thread on `cores`, made in a process of its own; takes some seconds.

    Args:
        cores: where the measurement may run; empty means everywhere.
        root: where the kernel's files are.

    Raises:
        RuntimeUnavailableError: a core may not be used.
        MeasurementError: the process failed or hung.
    """
    command = [sys.executable, "-m", __name__, ",".join(map(str, cores)), str(root)]
    environment = {**os.environ, **dict.fromkeys(_THREADS, "1"), "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            check=False,
            text=True,
            timeout=_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MeasurementError(f"the noise of this machine cannot be measured: {error}") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        if done.returncode == 2:
            raise RuntimeUnavailableError(reason)
        raise MeasurementError(f"the noise of this machine cannot be measured: {reason}")
    return NoiseEstimate(**json.loads(done.stdout))


def _visits(root: Path, cores: Sequence[int]) -> list[Visit]:
    """Visits of every network, interleaved in rounds as a campaign does it."""
    watch = Watch(root, cores)
    networks = [workload(width) for width in _WIDTHS]
    for run in networks:
        run()
    rounds = range(_N_LABELS * N_ROUNDS_OF_A_LABEL)
    visits = []
    for index, round_ in visit_order([rounds] * len(networks), seed=0):
        before = watch.before()
        timing = time_runs(
            networks[index],
            warmup_runs=_WARMUP_RUNS,
            min_runs=_MIN_RUNS,
            min_duration_ns=_MIN_DURATION_NS,
        )
        visits.append(
            Visit(
                task_id=f"width-{_WIDTHS[index]}",
                device_id="here",
                round=round_,
                mode=PLAIN,
                started_ns=timing.started_ns,
                duration_ns=timing.duration_ns,
                warmup_runs=_WARMUP_RUNS,
                series=(Series(WHOLE_NETWORK, timing.samples_ns),),
                conditions=conditions_between(before, watch.after()),
            )
        )
    return visits


def main(arguments: Sequence[str]) -> int:
    """Pins this process, measures and prints; 2 if a core may not be used."""
    cores = [int(core) for core in arguments[0].split(",") if core]
    try:
        pin(cores)
    except RuntimeUnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    begin = time.perf_counter()
    visits = _visits(Path(arguments[1]), sorted(os.sched_getaffinity(0)))
    found = estimate(visits, time.perf_counter() - begin)
    sys.stdout.write(json.dumps(dataclasses.asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
