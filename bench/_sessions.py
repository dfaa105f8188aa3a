"""Measuring sessions for `additivity.py` and `elsewhere.py`: real processes, real campaigns.

A session that was interrupted is gone on with; what it has measured is not measured again. Here is
also what all benchmarks call device time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import numpy as np

from latlas.lab import Lab, connect
from latlas.progress import Progress
from latlas.quickstart.measuring import await_device, round_matrix
from latlas.quickstart.processes import Fleet, exclusive, fleet
from latlas.records import CAREFUL, CampaignStatus, Measurement, Sampling
from latlas_coordinator.domain import CampaignState
from latlas_coordinator.storage import Store
from latlas_coordinator.storage.sql import open_store
from latlas_latency.measurement import Visit
from latlas_latency.measurement.statistics import label_noise
from latlas_latency.observations import telling_common_mode
from latlas_latency.table import NOISY_SITTING
from latlas_ops.errors import InvalidInputError, MeasurementError

LEVELS = ("all", "basic")
DONE_FILE = "done"
SESSION, DISTURBED = "session", "disturbed"
MOST_SITTINGS = 3
_START_SECONDS = 60.0
_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Amounts:
    """How much one session measures.

    Attributes:
        space: the search space.
        runtime: the agent's runtime plug-in.
        levels: graph-optimisation levels, one target each.
        min_occurrences: cover networks that each op occurs in, at least.
        n_calibration, n_training: whole networks of the profile campaign; the latter are for the
            MLP among the baselines.
        n_random, n_selected: whole networks that judge the table.
        n_rounds: visits per network and mode of the profile campaign.
        n_validation_rounds: visits per network that judges.
        min_duration_ns: least time of the inferences of one visit.
        n_revalidations: how often ten networks say whether a table still holds.
        n_changes: the same for targets that differ, each.
        stand_alone: whether every op is also measured alone.
        n_sittings: sittings to try for one that is quiet enough.
    """

    space: str = "ofa-mobilenetv3"
    runtime: str = "onnxruntime"
    levels: tuple[str, ...] = LEVELS
    min_occurrences: int = 3
    n_calibration: int = 10
    n_training: int = 240
    n_random: int = 30
    n_selected: int = 30
    n_rounds: int = 4
    n_validation_rounds: int = 5
    min_duration_ns: int = 30_000_000
    n_revalidations: int = 0
    n_changes: int = 0
    stand_alone: bool = True
    n_sittings: int = MOST_SITTINGS


QUICK = Amounts(
    levels=("all",),
    min_occurrences=1,
    n_calibration=6,
    n_training=0,
    n_random=6,
    n_selected=6,
    n_rounds=2,
    n_validation_rounds=2,
    min_duration_ns=10_000_000,
    stand_alone=False,
    n_sittings=1,
)


def database(folder: Path) -> Path:
    """Where a session keeps its raw samples."""
    return folder / "fleet" / "latlas.db"


def open_stores(folder: Path, stack: ExitStack) -> dict[str, Store]:
    """The stores of all finished sessions by name, the disturbed one last; closed by `stack`."""
    stores: dict[str, Store] = {}
    for path in sorted(folder.glob(f"*/{DONE_FILE}"), key=lambda path: path.parent.name):
        store = open_store(database(path.parent))
        stack.callback(store.close)
        stores[path.parent.name] = store
    if not stores:
        raise InvalidInputError(
            f"{folder} holds no finished session; run this benchmark without --figures-only"
        )
    return dict(sorted(stores.items(), key=lambda item: (item[0] == DISTURBED, item[0])))


def judging_campaign(store: Store, level: str) -> str:
    """The last sitting of a level: the first that was quiet enough, or the last that was tried."""
    names = [f"validate-{level}-{sitting}" for sitting in range(MOST_SITTINGS, 0, -1)]
    ended = {
        status.campaign.name
        for status in store.list_campaigns()
        if status.campaign.state is CampaignState.FINISHED
    }
    for name in names:
        if name in ended:
            return name
    raise InvalidInputError(f"level {level!r} was never validated; remove its session")


def device_seconds(visits: Iterable[Visit]) -> float:
    """Time of all inferences of `visits`, warm-up included, each of it taken as the median one.

    What a table costs is the time of all visits that were made for it: those that were disturbed,
    which it passes over, as well.
    """
    spent_ns = (
        visit.duration_ns + visit.warmup_runs * float(np.median(visit.network_ns))
        for visit in visits
    )
    return sum(spent_ns) / 1e9


def measure_session(
    folder: Path, amounts: Amounts, stream: TextIO, *, disturbed: bool = False
) -> None:
    """Everything that one session measures, with processes of its own.

    Args:
        folder: the session's; made if absent.
        amounts: how much.
        stream: where progress is told.
        disturbed: a neighbour thrashes the cache from another core in random bursts.

    Raises:
        MeasurementError: a network could not be measured.
        LatlasError: the processes did not start, or something else is in the folder.
    """
    done = folder / DONE_FILE
    if done.exists():
        return
    core = max(os.sched_getaffinity(0))
    others = sorted(os.sched_getaffinity(0) - {core})
    noise = _neighbour(others[0]) if disturbed and others else nullcontext()
    with exclusive(folder, stream) as lock, fleet(folder / "fleet", lock) as members, noise:
        lab = connect(members.grpc, wait_s=_START_SECONDS)
        await_device(lab, members)
        session = _Session(lab, members, amounts, core, stream)
        for level in amounts.levels:
            session.profile(level)
            session.validate(level)
        session.revalidate()
    done.touch()


@dataclass(frozen=True)
class _Session:
    lab: Lab
    members: Fleet
    amounts: Amounts
    core: int
    stream: TextIO

    def profile(self, level: str) -> None:
        """Sittings until one is quiet enough; the last one counts if none is."""
        amounts, table = self.amounts, f"table-{level}"
        self.lab.add_target(
            level, runtime=amounts.runtime, graph_level=level, threads=1, cores=(self.core,)
        )
        if any(info.name == table for info in self.lab.latency_models()):
            return
        for sitting in range(1, amounts.n_sittings + 1):
            name = f"profile-{level}-{sitting}"
            self._follow(
                self.lab.start_profile(
                    name,
                    amounts.space,
                    level,
                    n_training_networks=amounts.n_training,
                    n_calibration_networks=amounts.n_calibration,
                    n_validation_networks=0,
                    min_occurrences=amounts.min_occurrences,
                    sampling=Sampling(amounts.n_rounds, min_duration_ns=amounts.min_duration_ns),
                )
            )
            if _noise(self.lab.measurements(name)) <= NOISY_SITTING:
                break
        self.lab.build_table(table, name)

    def validate(self, level: str) -> None:
        """Sittings until one is quiet enough; the last one counts if none is."""
        amounts = self.amounts
        for sitting in range(1, amounts.n_sittings + 1):
            name = f"validate-{level}-{sitting}"
            self._follow(
                self.lab.start_validation(
                    name,
                    f"table-{level}",
                    level,
                    n_random_networks=amounts.n_random,
                    n_selected_networks=amounts.n_selected,
                    stand_alone=amounts.stand_alone,
                    sampling=self._judging(amounts.n_validation_rounds),
                )
            )
            validation = self.lab.validate_table(f"table-{level}", name).validation
            if validation is None or validation.common_mode_free_noise <= NOISY_SITTING:
                return

    def revalidate(self) -> None:
        """Ten networks on the same target, and on one of another level and one of two threads."""
        level = self.amounts.levels[0]
        for number in range(self.amounts.n_revalidations):
            self._spread(f"revalidate-{number}", level, number)
        if self.amounts.n_changes:
            changed = {"other level": self.amounts.levels[-1], "two threads": "two-threads"}
            cores = sorted(os.sched_getaffinity(0))[-2:]
            self.lab.add_target("two-threads", graph_level=level, threads=2, cores=cores)
            for what, target in changed.items():
                for number in range(self.amounts.n_changes):
                    self._spread(f"changed-{what.replace(' ', '-')}-{number}", target, number)

    def _spread(self, name: str, target: str, seed: int) -> None:
        self._follow(
            self.lab.start_validation(
                name,
                f"table-{self.amounts.levels[0]}",
                target,
                n_random_networks=0,
                n_selected_networks=0,
                n_spread_networks=10,
                stand_alone=False,
                seed=seed,
                sampling=self._judging(3),
            )
        )

    def _judging(self, n_rounds: int) -> Sampling:
        """What judges a table is timed with more care than the table itself."""
        return replace(CAREFUL, n_rounds=n_rounds, min_duration_ns=self.amounts.min_duration_ns)

    def _follow(self, status: CampaignStatus) -> None:
        with Progress(
            f"  {status.name}",
            total=status.n_visits_wanted,
            done=status.n_visits_done,
            stream=self.stream,
            unit="visits",
        ) as bar:
            while status.is_running:
                time.sleep(_POLL_SECONDS)
                self.members.require_running()
                status = self.lab.campaign(status.name)
                bar.update(status.n_visits_done, total=status.n_visits_wanted)
        if status.failed:
            raise MeasurementError(f"{status.failed[0].label}: {status.failed[0].reason}")


def _noise(rows: Sequence[Measurement]) -> float:
    """Common-mode-free noise of a sitting, NaN with one round."""
    matrix = round_matrix(rows)
    return label_noise(matrix / telling_common_mode(matrix).factors)


_NEIGHBOUR = """
import os, random, sys, time
import numpy as np
os.sched_setaffinity(0, {int(sys.argv[1])})
data = np.zeros(1 << 25)
rng = random.Random(0)
while os.getppid() == int(sys.argv[2]):
    until = time.monotonic() + rng.uniform(0.1, 1.0)
    while time.monotonic() < until:
        data[:: 8] += 1.0
    time.sleep(rng.uniform(0.1, 3.0))
"""


@contextmanager
def _neighbour(core: int) -> Iterator[None]:
    """A process on `core` that walks over 256 MB for 0.1 to 1 s, then rests for 0.1 to 3 s."""
    command = [sys.executable, "-c", _NEIGHBOUR, str(core), str(os.getpid())]
    process = subprocess.Popen(command)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
