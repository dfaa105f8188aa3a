"""Which way of measuring ops gives the best table: in situ, in chains, or alone.

    python bench/methods.py [--space NAME] [--quick] [--json FILE]

Everything that the three methods need, and unseen networks, is measured by the agent's own worker
under onnxruntime, on one core, in one sitting: round by round, in an order that is shuffled anew.
Cover and calibration networks without node times are measured once and serve all three. So the
tables differ by nothing but where their entries come from. Device time is that of all inferences
behind a table, warm-up included.

Exit code 0 when every bar holds, 1 when one does not, 2 when there is nothing to judge.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from _figures import EXIT_UNUSABLE, as_table, exit_code, write_json
from _sessions import device_seconds
from latlas.progress import Progress
from latlas.report.figures import Figure
from latlas_agent.runtimes.onnxruntime import OnnxRuntime
from latlas_agent.watch import open_watch
from latlas_agent.worker import VisitOrder, Worker, pin
from latlas_coordinator.chaining import alone_programs, chain_programs
from latlas_coordinator.domain import ProfilePlan, Role
from latlas_coordinator.planning import plan_profile
from latlas_latency.comparison import validate
from latlas_latency.measurement import PLAIN, PROFILED, Target, Visit
from latlas_latency.methods import ALONE, CHAINED, IN_SITU, METHODS
from latlas_latency.observations import Observation, undisturbed
from latlas_latency.plain_building import build_alone_table, build_chained_table
from latlas_latency.table import NOISY_SITTING, LookupTable
from latlas_latency.table_building import build_table
from latlas_ops import ArchConfig, Network, get_space
from latlas_ops.errors import LatlasError
from latlas_ops.lowering import lower
from latlas_ops.space import SearchSpace
from latlas_ops.writers.onnx_writer import write_onnx

MOST_MAPE, MOST_MAPE_NOISES = 0.015, 1.5
LEAST_WITHIN_5 = 0.95
WARMUP_RUNS, MIN_RUNS = 2, 3
_SESSION_BYTES = 4 << 30
_LEVEL = 0.9

ENTRY_SOURCES = {
    IN_SITU: (Role.COVER, PROFILED),
    CHAINED: (Role.CHAIN, PLAIN),
    ALONE: (Role.ALONE, PLAIN),
}
"""What the entries of a method come from: method → role and mode."""


@dataclass(frozen=True)
class Amounts:
    """How much is measured.

    Attributes:
        min_occurrences: cover networks that each op occurs in, at least.
        n_calibration, n_unseen: whole networks that calibrate and that judge.
        n_rounds: visits per program and mode.
        min_duration_ns: least time of the inferences of one visit.
    """

    min_occurrences: int = 3
    n_calibration: int = 10
    n_unseen: int = 60
    n_rounds: int = 3
    min_duration_ns: int = 30_000_000


QUICK = Amounts(
    min_occurrences=1, n_calibration=6, n_unseen=10, n_rounds=2, min_duration_ns=3_000_000
)


@dataclass(frozen=True)
class Item:
    """A program to measure, in one mode, and what for."""

    role: Role
    network: Network
    mode: str
    arch: ArchConfig | None = None


@dataclass(frozen=True, eq=False)
class Sitting:
    """What was measured, by role and mode.

    Attributes:
        space: the search space.
        target: what it was measured on.
        found: what tables are made from, without visits that were disturbed.
        visits: every visit.
    """

    space: SearchSpace
    target: Target
    found: Mapping[tuple[Role, str], tuple[Observation, ...]]
    visits: Mapping[tuple[Role, str], Sequence[Visit]]

    def of(self, role: Role, mode: str = PLAIN) -> tuple[Observation, ...]:
        """The observations of a role in a mode."""
        return self.found[role, mode]

    def table(self, method: str, *, calibrated: bool = True) -> LookupTable:
        """The table of a method."""
        source = self.of(*ENTRY_SOURCES[method])
        plain, calibration = self.of(Role.COVER), self.of(Role.CALIBRATION)
        if not calibrated:
            calibration = ()
        target, space = self.target, self.space
        if method == CHAINED:
            return build_chained_table(
                chains=source, plain=plain, calibration=calibration, target=target, space=space
            )
        if method == ALONE:
            return build_alone_table(
                alone=source, plain=plain, calibration=calibration, target=target, space=space
            )
        return build_table(
            profiled=source, plain=plain, calibration=calibration, target=target, space=space
        )

    def device_seconds(self, method: str) -> float:
        """Device time of all visits that were made for the table of a method."""
        behind = (ENTRY_SOURCES[method], (Role.COVER, PLAIN), (Role.CALIBRATION, PLAIN))
        return device_seconds(visit for source in behind for visit in self.visits[source])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the JSON, and returns the exit code."""
    options = _parser().parse_args(arguments)
    amounts = QUICK if options.quick else Amounts()
    try:
        space = get_space(options.space)
        sitting = measure(space, planned(space, amounts), amounts)
        shown = list(figures(sitting))
        if options.json is not None:
            write_json(shown, options.json)
    except (LatlasError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    print(as_table(shown))
    return exit_code(shown)


def planned(space: SearchSpace, amounts: Amounts) -> list[Item]:
    """Everything that the three methods need, as their campaigns would have it, once."""
    plan = ProfilePlan(
        space.name,
        n_training_networks=0,
        n_calibration_networks=amounts.n_calibration,
        n_validation_networks=amounts.n_unseen,
        min_occurrences=amounts.min_occurrences,
        seed=0,
    )
    items = []
    for one in plan_profile(space, plan):
        network = space.network(one.arch)
        modes = (PROFILED, PLAIN) if one.role is Role.COVER else (PLAIN,)
        items += [Item(one.role, network, mode, one.arch) for mode in modes]
    for role, groups in (
        (Role.CHAIN, chain_programs(space)),
        (Role.ALONE, alone_programs(space)),
    ):
        items += [Item(role, network, PLAIN) for network in itertools.chain(*groups)]
    return items


def measure(space: SearchSpace, items: Sequence[Item], amounts: Amounts) -> Sitting:
    """One interleaved sitting in this process, confined to one core."""
    core = max(os.sched_getaffinity(0))
    pin([core])
    runtime = OnnxRuntime()
    target = Target(
        name="here",
        device_model="this machine",
        runtime="onnxruntime",
        runtime_version=runtime.capability().version,
        provider="CPUExecutionProvider",
        threads=1,
        cores=(core,),
    )
    visits: list[list[Visit]] = [[] for _ in items]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        worker = Worker(
            runtime,
            target,
            device_id="here",
            watch=open_watch(Path("/"), [core], target.provider, os.environ),
            scratch=scratch,
            session_budget_bytes=_SESSION_BYTES,
        )
        total = amounts.n_rounds * len(items)
        with Progress(space.name, total=total, stream=sys.stderr, unit="visits") as bar:
            order = [
                (index, round_)
                for round_ in range(amounts.n_rounds)
                for index in rng.permutation(len(items)).tolist()
            ]
            for done, (index, round_) in enumerate(order, 1):
                visits[index].append(_visit(worker, scratch, items[index], index, round_, amounts))
                bar.update(done)
    by_source: dict[tuple[Role, str], list[Visit]] = defaultdict(list)
    for item, of_item in zip(items, visits, strict=True):
        by_source[item.role, item.mode] += of_item
    return Sitting(space, target, _by_role(items, visits, target), by_source)


def _visit(
    worker: Worker, scratch: Path, item: Item, index: int, round_: int, amounts: Amounts
) -> Visit:
    """One visit; the program lies on the disk for as long as that takes."""
    program = scratch / f"{item.network.key.removeprefix('net:')}.onnx"
    program.write_bytes(write_onnx(item.network).model_bytes)
    try:
        return worker.visit(
            VisitOrder(
                task_id=f"{item.role.value} {index}",
                program=program,
                mode=item.mode,
                round=round_,
                warmup_runs=WARMUP_RUNS,
                min_runs=MIN_RUNS,
                min_duration_ns=amounts.min_duration_ns,
            )
        )
    finally:
        program.unlink()


def _by_role(
    items: Sequence[Item], visits: Sequence[Sequence[Visit]], target: Target
) -> dict[tuple[Role, str], tuple[Observation, ...]]:
    seen = undisturbed(
        [
            Observation(
                item.network,
                lower(item.network).tensor_positions(),
                tuple(of_item),
                item.arch,
                target,
            )
            for item, of_item in zip(items, visits, strict=True)
        ]
    )
    return {
        (role, mode): tuple(
            one
            for one, item in zip(seen, items, strict=True)
            if (item.role, item.mode) == (role, mode)
        )
        for role in Role
        for mode in (PLAIN, PROFILED)
    }


def figures(sitting: Sitting) -> Iterator[Figure]:
    """Errors of every method on the same unseen networks, and what it took."""
    unseen = sitting.of(Role.VALIDATION)
    noise: float | None = None
    for method in METHODS:
        begun = time.perf_counter()
        table = sitting.table(method)
        seconds = time.perf_counter() - begun
        found = validate(table, unseen, sitting.space, level=_LEVEL)
        raw = sitting.table(method, calibrated=False)
        if noise is None:
            noise = found.common_mode_free_noise
            yield Figure("common-mode-free noise", 100 * noise, "%", 100 * NOISY_SITTING)
            yield Figure("label noise", 100 * found.label_noise, "%")
            yield Figure("unseen networks", float(found.n_networks))
        bars = method != ALONE
        most_mape = 100 * max(MOST_MAPE, MOST_MAPE_NOISES * noise)
        yield Figure(f"{method}: MAPE", 100 * found.mape, "%", most_mape if bars else None)
        yield Figure(f"{method}: greatest error", 100 * found.max_error, "%")
        within = 100 * found.share_within_5_percent
        least = 100 * LEAST_WITHIN_5 if bars else None
        yield Figure(f"{method}: within 5 %", within, "%", least, "at least")
        yield Figure(f"{method}: Spearman", found.spearman)
        yield Figure(f"{method}: interval coverage", 100 * found.interval_coverage, "%")
        uncalibrated = validate(raw, unseen, sitting.space, level=_LEVEL)
        yield Figure(f"{method}: MAPE uncalibrated", 100 * uncalibrated.mape, "%")
        yield Figure(f"{method}: entries", float(len(table.entries)))
        yield Figure(f"{method}: device time", sitting.device_seconds(method), "s")
        yield Figure(f"{method}: time to build the table", seconds, "s")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Which way of measuring ops gives the best table: in situ, chained, or alone."
    )
    parser.add_argument("--space", default="digits", metavar="NAME", help="default: digits")
    parser.add_argument("--quick", action="store_true", help="within a minute, figures mean little")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
