"""How surely shifted stretches of a series are found: injected into recorded ones, by size.

    LATLAS_DATA_DIR=FOLDER python bench/suspicion.py [--quick] [--json FILE]

A series is third-party latencies in the order of their file, each over what a robust regression on
the network's own features expects: HAT's transformers (logarithm, quadratic in the features) and
the FBNet and Once-for-All networks of HELP (sums over the layers). The benchmark

1. runs `find_shifts` on every series as recorded and shows what it finds: there are real shifts;
2. shuffles every series, which leaves noise and outliers but no stretch: each find is false;
3. cuts the series into windows of about 1,000 items, removes from each whatever is found until
   nothing is (the real shifts), and injects into the rest, again and again, one to three
   stretches of 10 to 250 items, all slower by 5 to 40 %.

An injected stretch counts as found if one reported stretch has an intersection over union of at
least 0.5 with it: *recall* is their share. A reported stretch counts as right if at least half of
its items were injected: *precision* is their share, so a stretch reported in two halves costs
recall but not precision. Since the detector itself cleaned the windows, precision tells of the
false alarms that an injection brings along; those that noise alone brings are seen in step 2, which
owes nothing to the cleaning. Figures by item stand beside those by stretch. The noise of a window
is the robust standard deviation of its logarithms (errors of the regression included).

Exit code 0 when both bars hold, 1 when one does not, 2 when there are no data.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from _figures import EXIT_UNUSABLE, as_table, exit_code, write_json
from latlas.report.figures import Figure
from latlas_latency.measurement.statistics import robust_standard_deviation
from latlas_latency.suspicion import Shift, find_shifts
from latlas_ops.errors import InvalidInputError, LatlasError, NotFoundError

BAR_PERCENT = 95.0
BAR_SHIFT_PERCENT = 15
BAR_NOISE = 0.02

_SHIFTS_PERCENT = (5, 10, 15, 20, 30, 40)
_LENGTHS = (10, 250)
_LENGTH_CLASSES = ((10, 24), (25, 99), (100, 250))
_WINDOW = 1000
_LEAST_WINDOW = 500
_MOST_SHIFTED = 0.4
_COMPUTED_NOISE = 1e-4
_SHOWN_STRETCHES = 6
_SEED = 7

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Series:
    """Measured over expected latency `(n,)`, in the order of the file, and what was found in it."""

    name: str
    ratios: Floats
    stretches: tuple[Shift, ...]

    @property
    def noise(self) -> float:
        """Noise outside the stretches."""
        return noise_of(_without(self.ratios, self.stretches))

    @property
    def windows(self) -> list[Floats]:
        """Windows of about `_WINDOW` items in which nothing is found any more.

        Those of which the cleaning leaves too little are not among them.
        """
        parts = np.array_split(self.ratios, max(1, round(len(self.ratios) / _WINDOW)))
        return [window for part in parts if len(window := _cleaned(part)) >= _LEAST_WINDOW]


@dataclass
class Tally:
    """Counts over many trials. Lists hold one truth value per stretch."""

    found: list[bool] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    items: NDArray[np.int64] = field(default_factory=lambda: np.zeros(3, dtype=np.int64))

    def add(self, injected: Sequence[tuple[int, int]], reported: Sequence[Shift], n: int) -> None:
        """One trial in a window of `n` items."""
        truth, claim = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        for start, stop in injected:
            truth[start:stop] = True
            self.found.append(any(_overlap(start, stop, shift) >= 0.5 for shift in reported))
            self.lengths.append(stop - start)
        for shift in reported:
            claim[shift.start : shift.stop] = True
            self.right.append(bool(truth[shift.start : shift.stop].mean() >= 0.5))
        self.items += [np.count_nonzero(both) for both in (truth, claim, truth & claim)]

    def recall(self, lengths: tuple[int, int] = _LENGTHS) -> float | None:
        """Percentage of injected stretches that were found, of those within two lengths."""
        least, most = lengths
        pairs = zip(self.found, self.lengths, strict=True)
        return _percent([found for found, length in pairs if least <= length <= most])

    @property
    def precision(self) -> float | None:
        """Percentage of reported stretches that were injected."""
        return _percent(self.right)

    def by_item(self) -> tuple[float | None, float | None]:
        """Recall and precision in percent, counting items."""
        injected, reported, both = self.items.tolist()
        return _share(both, injected), _share(both, reported)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints what was found and the table, writes the JSON, and returns the exit code."""
    options = _parser().parse_args(arguments)
    n_trials, n_shuffles, step = (1, 2, 2) if options.quick else (6, 20, 1)
    rng = np.random.default_rng(_SEED)
    try:
        series = recorded_series(_data_folder())
        print("\n".join(_shown_stretches(series)), end="\n\n")
        windows = [window for one in series for window in one.windows]
        shown = [
            *inject(windows[::step], n_trials, rng),
            *untouched_figures(series, windows, n_shuffles, rng),
            _seconds_figure(rng),
        ]
        if options.json is not None:
            write_json(shown, options.json)
    except (LatlasError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    print(as_table(shown))
    return exit_code(shown)


# -- experiments -----------------------------------------------------------------------------


def inject(windows: Sequence[Floats], n_trials: int, rng: np.random.Generator) -> list[Figure]:
    """Recall and precision by size of the shift, for quiet and for other windows."""
    tallies: dict[tuple[bool, int], Tally] = {}
    for window in windows:
        for percent in _SHIFTS_PERCENT:
            tally = tallies.setdefault((noise_of(window) <= BAR_NOISE, percent), Tally())
            for _ in range(n_trials):
                stretches = _random_stretches(len(window), rng)
                values = window.copy()
                for start, stop in stretches:
                    values[start:stop] *= 1 + percent / 100
                tally.add(stretches, find_shifts(values), len(window))
    figures = []
    for quiet, where in ((True, "noise <= 2 %"), (False, "noise > 2 %")):
        own = {percent: tally for (kind, percent), tally in tallies.items() if kind is quiet}
        figures += _figures_of(own, where, barred=quiet)
    return figures


def _figures_of(tallies: dict[int, Tally], where: str, *, barred: bool) -> list[Figure]:
    large = _joined(tally for percent, tally in tallies.items() if percent >= BAR_SHIFT_PERCENT)
    sizes = f"shifts >= {BAR_SHIFT_PERCENT} %, {where}"
    bar = BAR_PERCENT if barred else None
    item_recall, item_precision = large.by_item()
    figures = [
        Figure(f"recall, {sizes}", large.recall(), "%", bar, "at least"),
        Figure(f"precision, {sizes}", large.precision, "%", bar, "at least"),
        Figure(f"recall by item, {sizes}", item_recall, "%"),
        Figure(f"precision by item, {sizes}", item_precision, "%"),
        Figure(f"injected stretches, {sizes}", len(large.found)),
    ]
    if not barred:
        return figures
    figures += [
        Figure(f"recall, {least} to {most} items, {sizes}", large.recall((least, most)), "%")
        for least, most in _LENGTH_CLASSES
    ]
    for percent, tally in tallies.items():
        figures.append(Figure(f"recall, shifts of {percent} %, {where}", tally.recall(), "%"))
        figures.append(Figure(f"precision, shifts of {percent} %, {where}", tally.precision, "%"))
    return figures


def untouched_figures(
    series: Sequence[Series], windows: Sequence[Floats], n_shuffles: int, rng: np.random.Generator
) -> list[Figure]:
    """What is reported where nothing was injected: as recorded, cleaned, and shuffled."""
    n_kept = sum(map(len, windows))
    n_items = sum(len(one.ratios) for one in series)
    n_shifted = sum(stretch.n_items for one in series for stretch in one.stretches)
    shuffled = [
        bool(find_shifts(rng.permutation(one.ratios))) for one in series for _ in range(n_shuffles)
    ]
    return [
        Figure("series", len(series)),
        Figure("stretches in the series as recorded", sum(len(one.stretches) for one in series)),
        Figure("items in them", 100 * n_shifted / n_items, "%"),
        Figure("items removed before injecting", 100 * (1 - n_kept / n_items), "%"),
        Figure("series with a stretch", sum(bool(one.stretches) for one in series)),
        Figure("shuffled series with a find", _percent(shuffled), "%"),
    ]


def _seconds_figure(rng: np.random.Generator) -> Figure:
    ratios = np.exp(rng.normal(0, 0.02, 2000))
    began_s = time.perf_counter()
    find_shifts(ratios)
    return Figure("time for 2,000 items", 1e3 * (time.perf_counter() - began_s), "ms")


def _random_stretches(n: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """One to three stretches apart from one another, lengths log-uniform, sorted."""
    least, most = _LENGTHS
    n_wanted = int(rng.integers(1, 4))
    while True:
        lengths = np.exp(rng.uniform(np.log(least), np.log(most + 1), n_wanted)).astype(int)
        starts = np.sort(rng.integers(0, n - lengths.min() + 1, n_wanted))
        stops = starts + lengths
        apart = (starts[1:] - stops[:-1] >= 2 * least).all()
        if lengths.sum() <= _MOST_SHIFTED * n and stops[-1] <= n and apart:
            return list(zip(starts.tolist(), stops.tolist(), strict=True))


def _cleaned(ratios: Floats) -> Floats:
    """The ratios without what is found in them, nor in what is left then, and so on."""
    while len(ratios) >= _LEAST_WINDOW and (found := find_shifts(ratios)):
        ratios = _without(ratios, found)
    return ratios


def _without(ratios: Floats, stretches: Sequence[Shift]) -> Floats:
    keep = np.ones(len(ratios), dtype=bool)
    for stretch in stretches:
        keep[stretch.start : stretch.stop] = False
    return ratios[keep]


def _overlap(start: int, stop: int, shift: Shift) -> float:
    """Intersection over union."""
    both = min(stop, shift.stop) - max(start, shift.start)
    return max(both, 0) / (max(stop, shift.stop) - min(start, shift.start))


def _joined(tallies: Iterable[Tally]) -> Tally:
    total = Tally()
    for tally in tallies:
        total.found += tally.found
        total.lengths += tally.lengths
        total.right += tally.right
        total.items += tally.items
    return total


def _percent(flags: Sequence[bool]) -> float | None:
    return _share(sum(flags), len(flags))


def _share(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def noise_of(ratios: Floats) -> float:
    """Robust standard deviation of the logarithms."""
    return robust_standard_deviation(np.log(ratios))


# -- recorded series -------------------------------------------------------------------------


def recorded_series(folder: Path) -> list[Series]:
    """Every series in the folder.

    Columns that the regression explains to the last digit were computed by somebody, not measured,
    and are left out.
    """
    found = []
    for name, features, measured_ms, additive in _recordings(folder):
        if not (np.isfinite(measured_ms).all() and measured_ms.min() > 0):
            raise InvalidInputError(f"{name}: a latency is not positive")
        ratios = measured_ms / _expected(features, measured_ms, additive)
        if noise_of(ratios) > _COMPUTED_NOISE:
            found.append(Series(name, ratios, find_shifts(ratios)))
    if not found:
        raise NotFoundError(f"{folder} holds no series: neither hat/*.csv nor help/*/latency/*.csv")
    return found


def _recordings(folder: Path) -> Iterator[tuple[str, Floats, Floats, bool]]:
    """Name, features `(n, n_features)`, latency in ms `(n,)`, whether layers add up."""
    for path in sorted((folder / "hat").glob("*.csv")):
        rows = _read(path, range(12))
        features = _quadratic(np.log(rows[:, :10]))
        for part, column in (("encoder", 10), ("decoder", 11)):
            yield f"hat {path.stem} {part}", features, rows[:, column], False
    for space, n_columns, encode in (("fbnet", 23, _fbnet_features), ("ofa", 47, _ofa_features)):
        archs = folder / "help" / space / "archs.csv"
        paths = sorted((folder / "help" / space / "latency").glob("*.csv"))
        if paths and archs.is_file():
            features = encode(_read(archs, range(1, n_columns)))
            for path in paths:
                yield f"help {space} {path.stem}", features, _read(path, range(1, 2))[:, 0], True


def _read(path: Path, columns: range) -> Floats:
    """Columns of a csv file with a header, `(n, n_columns)`."""
    try:
        return np.loadtxt(path, delimiter=",", skiprows=1, usecols=columns, ndmin=2)
    except ValueError as error:
        raise InvalidInputError(f"{path}: {error}") from error


def _quadratic(features: Floats) -> Floats:
    """A constant, the features that vary, and all their products."""
    varying = features[:, np.ptp(features, axis=0) > 0]
    scaled = (varying - varying.mean(axis=0)) / varying.std(axis=0)
    one, other = np.triu_indices(scaled.shape[1])
    return np.hstack([np.ones((len(scaled), 1)), scaled, scaled[:, one] * scaled[:, other]])


def _fbnet_features(ops: Floats) -> Floats:
    """A constant and one column per layer and op; the last op, skip, costs nothing."""
    chosen = (ops[:, :, None] == np.arange(8)).reshape(len(ops), -1)
    return np.hstack([np.ones((len(ops), 1)), chosen])


def _ofa_features(archs: Floats) -> Floats:
    """A constant and, per active layer, itself, its kernel and its expansion, times the area."""
    kernels, expansions, depths = archs[:, :20], archs[:, 20:40], archs[:, 40:45]
    area = (archs[:, 45:46] / 224) ** 2
    layer = np.arange(20)
    active = layer % 4 < depths[:, layer // 4]
    parts = [np.ones_like(area), area, active, active * area]
    parts += [active * (kernels == kernel) * area for kernel in (5, 7)]
    parts += [active * (expansions == expansion) * area for expansion in (4, 6)]
    return np.hstack(parts)


def _expected(features: Floats, measured_ms: Floats, additive: bool) -> Floats:
    """Latency in ms from a regression that shifted stretches have no say in, `(n,)`.

    Iteratively reweighted least squares with Tukey's biweight, which forgets what lies beyond 4.7
    standard deviations. Errors are relative in both forms, additive and logarithmic.
    """
    weights = np.ones_like(measured_ms)
    design = features / measured_ms[:, None] if additive else features
    wanted = weights if additive else np.log(measured_ms)
    for _ in range(20):
        weighted = design * weights[:, None]
        solution = np.linalg.pinv(weighted.T @ design, hermitian=True) @ (weighted.T @ wanted)
        residuals = wanted - design @ solution
        spread = max(robust_standard_deviation(residuals), 1e-12)
        weights = np.maximum(1 - (residuals / (4.685 * spread)) ** 2, 0) ** 2
    least = measured_ms.min() / 2
    return np.maximum(features @ solution, least) if additive else np.exp(features @ solution)


# -- command line ----------------------------------------------------------------------------


def _data_folder() -> Path:
    folder = os.environ.get("LATLAS_DATA_DIR")
    if not folder:
        raise NotFoundError("LATLAS_DATA_DIR names no folder of third-party measurements")
    if not (path := Path(folder)).is_dir():
        raise NotFoundError(f"LATLAS_DATA_DIR is {folder}, which is no folder")
    return path


def _shown_stretches(series: Sequence[Series]) -> list[str]:
    """A line per series, and its longest stretches by row of the file (from 0, header apart)."""
    lines = ["stretches in the series as recorded (noise of the rest; rows and ratio of each)"]
    for one in series:
        longest = sorted(one.stretches, key=lambda shift: -shift.n_items)[:_SHOWN_STRETCHES]
        longest.sort(key=lambda shift: shift.start)
        shown = [f"{shift.start}-{shift.stop - 1} x{shift.ratio:.2f}" for shift in longest]
        if len(one.stretches) > len(shown):
            shown.append(f"and {len(one.stretches) - len(shown)} shorter")
        lines.append(f"  {one.name} ({one.noise:.1%}): {', '.join(shown) or 'none'}")
    return lines


def _parser() -> argparse.ArgumentParser:
    about = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="bench/suspicion.py", description=about)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    parser.add_argument("--quick", action="store_true", help="fewer trials; within a minute")
    return parser


if __name__ == "__main__":
    sys.exit(main())
