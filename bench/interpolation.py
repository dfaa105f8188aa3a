"""What it costs to measure ops at some resolutions only and to interpolate the others.

    python bench/interpolation.py FOLDER [--resolutions N,N] [--json FILE]

FOLDER is that of a finished `bench/additivity.py`; nothing is measured. Every table of every
session is rebuilt twice from its raw samples: as it was measured, and without the cover networks of
the other resolutions, which are then interpolated. Both are judged on the unseen networks of the
session (those found by search were found with the whole table). Beside that: how far interpolated
entries are from the measured ones, and what each table says of itself about that, by leaving out
entries.

Exit code 0 when every bar holds, 1 when one does not, 2 when there is nothing to judge.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from _figures import EXIT_UNUSABLE, as_table, exit_code, write_json
from _sessions import DISTURBED, device_seconds, judging_campaign, open_stores
from latlas.cli.options import rising
from latlas.report.figures import Figure
from latlas_coordinator.domain import Role
from latlas_coordinator.handlers.measurements import read_observations
from latlas_coordinator.planning import covered_choices
from latlas_coordinator.storage import Store
from latlas_latency.comparison import validate
from latlas_latency.entries import INTERPOLATED
from latlas_latency.measurement import PROFILED
from latlas_latency.observations import Observation
from latlas_latency.partial import with_interpolation_check
from latlas_latency.table import LookupTable
from latlas_latency.table_building import build_table
from latlas_latency.validation import BEFORE_SESSION, Validation
from latlas_ops.errors import InvalidInputError, LatlasError, NotFoundError
from latlas_ops.space import SearchSpace
from latlas_ops.spaces import get_space

MOST_MAPE, MOST_MAPE_NOISES = 0.015, 1.5
LEAST_COVERAGE = 0.85

_PART = "networks with interpolated ops"


@dataclass(frozen=True)
class Compared:
    """One table of one session, whole and in part.

    Attributes:
        name: for figures: `ALL, session-1`.
        resolutions: those that were kept.
        whole: the table of all cover networks.
        part: that of the kept ones, the rest interpolated.
        whole_validation, part_validation: their errors on the unseen networks, calibrated for the
            session.
        whole_seconds, part_seconds: device time of all visits that were made for them.
    """

    name: str
    resolutions: tuple[int, ...]
    whole: LookupTable
    part: LookupTable
    whole_validation: Validation
    part_validation: Validation
    whole_seconds: float
    part_seconds: float

    def entry_errors(self) -> np.ndarray:
        """Relative errors of interpolated entries against the measured ones."""
        return np.array(
            [
                entry.mean_ms / self.whole.by_op[entry.op].mean_ms - 1
                for entry in self.part.entries
                if entry.kind == INTERPOLATED and entry.op in self.whole.by_op
            ]
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the figures, writes the JSON, and returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        with ExitStack() as stack:
            stores = open_stores(options.folder, stack)
            compared = [
                one
                for session, store in stores.items()
                if session != DISTURBED
                for one in compare(session, store, options.resolutions)
            ]
        shown = [figure for one in compared for figure in _figures(one)]
        if not shown:
            raise InvalidInputError(f"{options.folder} holds no table of a calm session")
        if options.json is not None:
            write_json(shown, options.json)
    except (LatlasError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    print(as_table(shown))
    return exit_code(shown)


def compare(session: str, store: Store, resolutions: Sequence[int] = ()) -> Iterator[Compared]:
    """The tables of a session, whole and in part.

    Args:
        session: its name.
        store: its raw samples.
        resolutions: to keep, rising; empty for the smallest and the largest of the space.

    Raises:
        InvalidInputError: the space has not these resolutions, or a level was never validated.
    """
    for target in store.list_targets():
        try:
            source = store.get_latency_model(f"table-{target.name}")
        except NotFoundError:
            continue
        campaign, space = source.campaign, get_space(source.space)
        cover_tasks = read_observations(store, campaign, (Role.COVER,))
        cover = [seen for _, seen in cover_tasks]
        calibration = _observations(store, campaign, Role.CALIBRATION)
        judging = judging_campaign(store, target.name)
        unseen = _observations(store, judging, Role.VALIDATION, Role.SELECTED)
        anchors = _observations(store, judging, Role.CALIBRATION)
        kept = tuple(resolutions) or _ends(space)
        inside = [seen for seen in cover if _is_of(space, seen, kept)]
        near = [seen for seen in calibration if _is_of(space, seen, kept)]
        beyond = [seen for seen in calibration if not _is_of(space, seen, kept)]
        whole = _table(cover, calibration, space)
        part = with_interpolation_check(_table(inside, near, space), beyond, [*inside, *near])
        part = part.interpolated(space)
        by_task = store.read_visits(campaign, (Role.COVER, Role.CALIBRATION))
        visits = list(itertools.chain.from_iterable(by_task.values()))
        left_out = {task.task_id for task, seen in cover_tasks if not _is_of(space, seen, kept)}
        between = [i for i, seen in enumerate(unseen) if not _is_of(space, seen, kept)]
        yield Compared(
            f"{target.name.upper()}, {session}",
            kept,
            whole,
            part,
            validate(whole, unseen, space, anchors=anchors, parts={_PART: between}),
            validate(part, unseen, space, anchors=anchors, parts={_PART: between}),
            device_seconds(visits),
            device_seconds(visit for visit in visits if visit.task_id not in left_out),
        )


def _observations(store: Store, campaign: str, *roles: Role) -> list[Observation]:
    return [observation for _, observation in read_observations(store, campaign, roles)]


def _ends(space: SearchSpace) -> tuple[int, ...]:
    if space.resolution_gene is None:
        raise InvalidInputError(f"space {space.name!r} has no resolutions to leave out")
    choices = space.genes[space.resolution_gene].choices
    return (int(choices[0]), int(choices[-1]))


def _is_of(space: SearchSpace, seen: Observation, resolutions: Sequence[int]) -> bool:
    assert seen.arch is not None
    ((gene, choices),) = covered_choices(space, resolutions).items()
    return seen.arch.genes[gene] in choices


def _table(
    cover: Sequence[Observation], calibration: Sequence[Observation], space: SearchSpace
) -> LookupTable:
    target = cover[0].target
    assert target is not None
    return build_table(
        profiled=[seen for seen in cover if seen.mode == PROFILED],
        plain=[seen for seen in cover if seen.mode != PROFILED],
        calibration=calibration,
        target=target,
        space=space,
    )


def _figures(one: Compared) -> Iterator[Figure]:
    kept = " and ".join(map(str, one.resolutions))
    of_part = f"{one.name}, measured at {kept}"
    noise = one.part_validation.common_mode_free_noise
    bar = 100 * max(MOST_MAPE, MOST_MAPE_NOISES * noise)
    yield Figure(f"{one.name}: common-mode-free noise", 100 * noise, "%")
    for name, found, its_bar in (
        (one.name, one.whole_validation, None),
        (of_part, one.part_validation, bar),
    ):
        yield Figure(f"{name}: MAPE", 100 * found.mape, "%", its_bar)
        for part in found.parts:
            if part.name == BEFORE_SESSION:
                yield Figure(f"{name}: MAPE {part.name}", 100 * part.mape, "%")
            if part.name == _PART:
                text = f"{name}: MAPE of {part.n_networks} networks between"
                yield Figure(text, 100 * part.mape, "%")
        yield Figure(f"{name}: greatest error", 100 * found.max_error, "%")
    level, covered = one.part_validation.interval_level, one.part_validation.interval_coverage
    name = f"{of_part}: {level:.0%} intervals"
    yield Figure(name, 100 * covered, "%", 100 * LEAST_COVERAGE, "at least")
    yield Figure(f"{one.name}: device time", one.whole_seconds, "s")
    yield Figure(f"{of_part}: device time", one.part_seconds, "s")
    sizes = np.abs(one.entry_errors())
    name = f"{of_part}: {len(sizes)} interpolated entries against measured"
    yield Figure(f"{name}, median", 100 * float(np.median(sizes)) if len(sizes) else None, "%")
    high = 100 * float(np.quantile(sizes, 0.9)) if len(sizes) else None
    yield Figure(f"{name}, 90 % within", high, "%")
    for name, table in ((one.name, one.whole), (of_part, one.part)):
        for error in table.interpolation.errors:
            if error.is_total:
                left = f"{name}: {error.n_entries} entries left out over {error.axis}"
                if error.n_entries:
                    yield Figure(f"{left}, median", 100 * error.median, "%")
                    yield Figure(f"{left}, 90 % within", 100 * error.p90, "%")
                yield Figure(f"{left}, taken to be in common", 100 * error.shared, "%")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench/interpolation.py", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="of a finished bench/additivity.py")
    parser.add_argument(
        "--resolutions",
        type=rising,
        default=(),
        metavar="N,N",
        help="to keep (default: the smallest and the largest)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
