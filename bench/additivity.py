"""How well the sum over a calibrated table says what a whole network takes, session by session.

    python bench/additivity.py [FOLDER] [--sessions N] [--quick] [--json FILE] [--figures-only]

Every session starts a coordinator and an agent of its own, profiles OFA-MobileNetV3 at four
resolutions under onnxruntime at graph levels ALL and BASIC, builds the tables, and measures 60
networks that they were not made from: half random, half found by searches with the table itself;
ten more calibrate the table for that sitting. A sitting noisier than 2 % is measured again, up to
three times, as `latlas table show` advises; its device time counts. The first session also measures
what the baselines need: every op alone, and training networks for as long as the table took. The
last one asks thirty times whether a table still holds. One more session runs beside a neighbour
that thrashes the cache. All raw samples stay in FOLDER (`session-N/fleet/latlas.db`): every figure
is recomputed from them, with `--figures-only` without a device.

Exit code 0 when every bar holds, 1 when one does not, 2 when there is nothing to judge.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from _figures import EXIT_UNUSABLE, as_table, exit_code, write_json
from _sessions import (
    DISTURBED,
    QUICK,
    SESSION,
    Amounts,
    device_seconds,
    judging_campaign,
    measure_session,
    open_stores,
)
from latlas.report.figures import Figure
from latlas_coordinator.domain import ProfilePlan, Role, ValidationPlan
from latlas_coordinator.handlers.judging import revalidate_table, validate_table
from latlas_coordinator.handlers.latency_models import build_table
from latlas_coordinator.handlers.measurements import read_observations
from latlas_coordinator.storage import Store
from latlas_latency.baselines import MACS_AFFINE
from latlas_latency.comparison import validate
from latlas_latency.formats import load_latency_model
from latlas_latency.observations import Observation
from latlas_latency.table import NOISY_SITTING, LookupTable
from latlas_latency.validation import BEFORE_SESSION, Errors, Validation
from latlas_ops.errors import LatlasError, NotFoundError
from latlas_ops.spaces import get_space

MOST_MAPE, MOST_MAPE_NOISES = 0.015, 1.5
LEAST_R2, LEAST_SPEARMAN, LEAST_WITHIN_5 = 0.995, 0.995, 0.95
LEAST_ORDER = 0.97
MOST_OF_MACS = {"all": 0.8, "basic": 0.35}
MOST_DEVICE_SECONDS = 60.0
MOST_MEDIAN_CV, MOST_HIGH_CV = 0.01, 0.04
MOST_DISTURBED = 0.15
COVERAGE = (0.85, 0.95)
_BEHIND_TABLES = (Role.COVER, Role.CALIBRATION)
LEAST_VALID = 0.95


@dataclass(frozen=True)
class Judged:
    """One table of one session.

    Attributes:
        session: name of the session's folder.
        level: graph-optimisation level.
        table: the table, recomputed from raw samples.
        validation: its errors on the session's unseen networks.
        unseen: those networks.
        anchors: ten further networks of the session, by which the table is calibrated for it.
        device_seconds: all inferences behind the table, warm-up and rejected sittings included.
        n_sittings: how often its space was profiled until a sitting was quiet enough.
        wall_seconds: from the first to the last visit of the table's campaign, training networks
            of the MLP included.
    """

    session: str
    level: str
    table: LookupTable
    validation: Validation
    unseen: tuple[Observation, ...]
    anchors: tuple[Observation, ...]
    device_seconds: float
    n_sittings: int
    wall_seconds: float

    @property
    def name(self) -> str:
        """For figures: `ALL, session-1`."""
        return f"{self.level.upper()}, {self.session}"

    def baseline(self, name: str) -> Errors | None:
        """A baseline's errors by the beginning of its name."""
        found = (one for one in self.validation.baselines if one.name.startswith(name))
        return next(found, None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what is missing, prints the tables, writes the JSON, and returns the exit code."""
    options = _parser().parse_args(arguments)
    amounts = QUICK if options.quick else Amounts()
    n_sessions = 1 if options.quick else options.sessions
    try:
        if not options.figures_only:
            _measure(options.folder, amounts, n_sessions, disturbed=not options.quick)
        with ExitStack() as stack:
            stores = open_stores(options.folder, stack)
            judged = [one for name, store in stores.items() for one in judge(name, store)]
            print_errors(judged)
            shown = list(_figures(judged, stores))
        if options.json is not None:
            write_json(shown, options.json)
    except (LatlasError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    print(as_table(shown))
    return exit_code(shown)


def _measure(folder: Path, amounts: Amounts, n_sessions: int, *, disturbed: bool) -> None:
    short = dataclasses.replace(amounts, n_training=0, stand_alone=False)
    for number in range(1, n_sessions + 1):
        name = f"{SESSION}-{number}"
        print(f"{name}:", flush=True)
        wanted = amounts if number == 1 else short
        if number == n_sessions and disturbed:
            wanted = dataclasses.replace(wanted, n_revalidations=20, n_changes=5)
        measure_session(folder / name, wanted, sys.stdout)
    if disturbed:
        print(f"{DISTURBED}:", flush=True)
        once = dataclasses.replace(short, n_sittings=1)  # no other would be quieter
        measure_session(folder / DISTURBED, once, sys.stdout, disturbed=True)


def judge(session: str, store: Store) -> Iterator[Judged]:
    """The tables of a session, rebuilt and validated anew from its raw samples."""
    for target in store.list_targets():
        level, name = target.name, f"table-{target.name}"
        try:
            source_campaign = store.get_latency_model(name).campaign
        except NotFoundError:
            continue
        build_table(store, name, source_campaign, time.time_ns())
        campaign = judging_campaign(store, level)
        validation = validate_table(store, name, campaign).validation
        table = load_latency_model(store.read_latency_model(name))
        assert isinstance(table, LookupTable)
        assert validation is not None
        unseen = read_observations(store, campaign, (Role.VALIDATION, Role.SELECTED))
        source = [
            observation
            for _, observation in read_observations(store, source_campaign, _BEHIND_TABLES)
        ]
        sittings = [
            status.campaign.name
            for status in store.list_campaigns()
            if status.campaign.target == level and isinstance(status.campaign.plan, ProfilePlan)
        ]
        started = [visit.started_ns for seen in source for visit in seen.visits]
        yield Judged(
            session,
            level,
            table,
            validation,
            tuple(observation for _, observation in unseen),
            tuple(
                observation
                for _, observation in read_observations(store, campaign, (Role.CALIBRATION,))
            ),
            device_seconds(
                visit
                for sitting in sittings
                for visits in store.read_visits(sitting, _BEHIND_TABLES).values()
                for visit in visits
            ),
            len(sittings),
            (max(started) - min(started)) / 1e9,
        )


# -- figures ---------------------------------------------------------------------------------


def _figures(judged: Sequence[Judged], stores: Mapping[str, Store]) -> Iterator[Figure]:
    calm = [one for one in judged if one.session != DISTURBED]
    for one in calm:
        yield from _error_figures(one)
    yield from _repeatability(calm)
    yield from _coverage(judged)
    yield from _disturbance(judged)
    for store in stores.values():
        yield from _revalidation(store)


def _error_figures(one: Judged) -> Iterator[Figure]:
    found, name = one.validation, one.name
    noise = found.common_mode_free_noise
    bar = max(MOST_MAPE, MOST_MAPE_NOISES * noise) * 100
    yield Figure(f"{name}: networks", found.n_networks)
    yield Figure(f"{name}: common-mode-free noise", 100 * noise, "%", 100 * NOISY_SITTING)
    yield Figure(f"{name}: MAPE", 100 * found.mape, "%", bar)
    for part in found.parts:
        its_bar = None if part.name == BEFORE_SESSION else bar
        yield Figure(f"{name}: MAPE of {part.name}", 100 * part.mape, "%", its_bar)
    drift = 100 * (found.session_scale - 1)
    yield Figure(f"{name}: device slower than calibrated", drift, "%")
    yield Figure(f"{name}: R2", found.r2, "", LEAST_R2, "at least")
    within_5, within_10 = found.share_within_5_percent, found.share_within_10_percent
    yield Figure(f"{name}: within 5 %", 100 * within_5, "%", 100 * LEAST_WITHIN_5, "at least")
    yield Figure(f"{name}: within 10 %", 100 * within_10, "%", 100.0, "at least")
    yield Figure(f"{name}: Spearman", found.spearman, "", LEAST_SPEARMAN, "at least")
    order = 100 * found.pair_order
    yield Figure(
        f"{name}: order of {found.n_pairs} pairs", order, "%", 100 * LEAST_ORDER, "at least"
    )
    macs = one.baseline(MACS_AFFINE)
    if macs is not None:
        yield Figure(f"{name}: order by MACs", 100 * macs.pair_order, "%")
        ratio = found.mape / macs.mape
        yield Figure(f"{name}: MAPE over that of MACs", ratio, "", MOST_OF_MACS[one.level])
    yield Figure(f"{name}: sittings", one.n_sittings)
    yield Figure(f"{name}: device time", one.device_seconds, "s", MOST_DEVICE_SECONDS)
    yield Figure(f"{name}: wall time", one.wall_seconds, "s")


def _repeatability(calm: Sequence[Judged]) -> Iterator[Figure]:
    """How far entries differ between sessions: standard deviation over mean, per entry."""
    for level, tables in _by_level(calm).items():
        if len(tables) < 2:
            continue
        common = set.intersection(*({entry.op for entry in one.table.entries} for one in tables))
        entries = np.array([[one.table.by_op[op].mean_ms for op in common] for one in tables])
        variation = entries.std(axis=0, ddof=1) / entries.mean(axis=0)
        what = f"{level.upper()}: variation of {entries.shape[1]} entries between sessions"
        yield Figure(f"{what}, median", 100 * np.median(variation), "%", 100 * MOST_MEDIAN_CV)
        high = float(np.quantile(variation, 0.95))
        yield Figure(f"{what}, 95th percentile", 100 * high, "%", 100 * MOST_HIGH_CV)
        # What a session shares is no property of an entry; it stays in the figures above.
        free = entries / np.median(entries / entries.mean(axis=0), axis=1, keepdims=True)
        variation = free.std(axis=0, ddof=1) / free.mean(axis=0)
        what += " without what each session shares"
        yield Figure(f"{what}, median", 100 * np.median(variation), "%")
        yield Figure(f"{what}, 95th percentile", 100 * np.quantile(variation, 0.95), "%")


def _coverage(judged: Sequence[Judged]) -> Iterator[Figure]:
    """Interval coverage on unseen networks: of each session's own table, and of the others'.

    Tables are calibrated for the session; beside it the coverage of the table as it was before,
    whose intervals contain the drift between sessions.
    """
    low, high = COVERAGE
    for tables in _by_level(judged).values():
        for session in tables:
            for one in tables:
                if DISTURBED in (one.session, session.session) and one is not session:
                    continue
                space = get_space(one.table.space.name) if one.table.space is not None else None
                found = validate(one.table, session.unseen, space, anchors=session.anchors)
                before = validate(one.table, session.unseen, space)
                whose = "own table" if one is session else f"table of {one.session}"
                inside = 100 * found.interval_coverage
                name = f"{session.name}: {found.interval_level:.0%} intervals of {whose}"
                yield Figure(name, inside, "%", 100 * low, "at least")
                yield Figure(f"{name}: not too wide", inside, "%", 100 * high)
                yield Figure(f"{name}, {BEFORE_SESSION}", 100 * before.interval_coverage, "%")


def _disturbance(judged: Sequence[Judged]) -> Iterator[Figure]:
    """Labels beside the neighbour against those of calm sessions, for the random networks."""
    for level, tables in _by_level(judged).items():
        labels = [
            {seen.arch: seen.latency_ms for seen in one.unseen}
            for one in tables
            if one.session != DISTURBED
        ]
        for one in tables:
            if one.session != DISTURBED or not labels:
                continue
            errors = [
                seen.latency_ms / np.median([label[seen.arch] for label in labels]) - 1
                for seen in one.unseen
                if all(seen.arch in label for label in labels)
            ]
            worst = 100 * max(map(abs, errors)) if errors else None
            name = f"{level.upper()}: worst of {len(errors)} labels beside a neighbour"
            yield Figure(name, worst, "%", 100 * MOST_DISTURBED)
            for what, session in (("beside a neighbour", one), ("in a calm session", tables[0])):
                left_out = sum(seen.n_left_out for seen in session.unseen)
                kept = sum(len(seen.visits) for seen in session.unseen)
                flagged = left_out + sum(seen.n_disturbed for seen in session.unseen)
                share = 100 * flagged / (left_out + kept)
                yield Figure(f"{level.upper()}: visits flagged {what}", share, "%")


def _revalidation(store: Store) -> Iterator[Figure]:
    counts: dict[str, list[str]] = {}
    for status in store.list_campaigns():
        name = status.campaign.name
        kind = name.rpartition("-")[0]
        plan = status.campaign.plan
        revalidates = kind == "revalidate" or kind.startswith("changed-")
        if revalidates and isinstance(plan, ValidationPlan):
            counts.setdefault(kind, []).append(revalidate_table(store, plan.table, name).verdict)
    for kind, verdicts in counts.items():
        valid = verdicts.count("valid")
        if kind == "revalidate":
            name = f"valid, nothing changed, of {len(verdicts)}"
            yield Figure(name, valid, "", np.floor(LEAST_VALID * len(verdicts)), "at least")
        else:
            what = kind.removeprefix("changed-").replace("-", " ")
            yield Figure(f"valid, {what}, of {len(verdicts)}", valid, "", 0)


def _by_level(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    found: dict[str, list[Judged]] = {}
    for one in judged:
        found.setdefault(one.level, []).append(one)
    return found


def print_errors(judged: Sequence[Judged]) -> None:
    """Prints the errors of every table, of parts of its networks, and of the baselines."""
    head = ("", "NETWORKS", "MAPE", "MAX", "IN 5 %", "IN 10 %", "SPEARMAN", "R2", "ORDER")
    rows: list[tuple[str, ...]] = [head]
    for one in judged:
        found = one.validation
        named: list[tuple[str, Errors]] = [(f"{one.name}: table", found)]
        named += [(f"  {errors.name}", errors) for errors in (*found.parts, *found.baselines)]
        rows += [
            (
                name,
                str(errors.n_networks),
                f"{errors.mape:.2%}",
                f"{errors.max_error:.2%}",
                f"{errors.share_within_5_percent:.0%}",
                f"{errors.share_within_10_percent:.0%}",
                f"{errors.spearman:.4f}",
                f"{errors.r2:.4f}",
                f"{errors.pair_order:.1%}" if errors.n_pairs else "-",
            )
            for name, errors in named
        ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        first, *rest = (
            f"{cell:<{width}}" if column == 0 else f"{cell:>{width}}"
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]).rstrip())
    print()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/additivity.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("additivity"),
        help="where sessions keep their raw samples (default: additivity)",
    )
    parser.add_argument(
        "--sessions", type=int, default=3, metavar="N", help="separate sessions (default: 3)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--quick", action="store_true", help="one short session of one level")
    parser.add_argument(
        "--figures-only", action="store_true", help="measure nothing; judge what is there"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
