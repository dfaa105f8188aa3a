"""FLOPs are not latency: networks of equal MACs, measured.

A transformer and a mobile network are grown from a small base, once by more layers and once by
more width, so that both ways cost the same multiply-accumulates (within 2 %). Stacks of depthwise
convolutions have equal MACs too, in 49 layers of 3x3 or in 9 of 7x7. All are measured on any
targets of a coordinator; a table is printed and a page with plots is written.

    python examples/flops_are_not_latency.py                     # this machine, all runtimes
    python examples/flops_are_not_latency.py --coordinator lab:7443 --target pi5-ort-4t

Without `--coordinator` it starts a coordinator and an agent for itself. The cells (`# %%`) open as
a notebook in editors that know them. What came of it on one machine: docs/guides/flops.md.
"""

# %% What is needed
from __future__ import annotations

import argparse
import html
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

import latlas
from latlas.progress import Progress
from latlas.quickstart.measuring import await_device
from latlas.quickstart.processes import exclusive, fleet
from latlas.report.svg import COLOURS, render
from latlas_ops.costs import network_cost
from latlas_ops.writers.onnx_writer import write_onnx
from latlas_ops.writers.opgraph import write_opgraph
from latlas_ops.writers.tflite_writer import write_tflite

TOLERANCE = 0.02
"""How far the MACs of two networks of a pair may lie apart, as a share."""

SAMPLING = latlas.Sampling(n_rounds=15, min_runs=3, min_duration_ns=40_000_000)
QUICK_SAMPLING = latlas.Sampling(n_rounds=2, min_runs=2, min_duration_ns=2_000_000)

FEWEST_ROUNDS = 5
"""Undisturbed rounds that suffice; with fewer, disturbed ones count too."""

FORMATS = {
    "onnxruntime": "onnx",
    "litert": "tflite",
    "tflite-runtime": "tflite",
    "torch": "opgraph",
}
"""What each runtime loads."""


# %% Networks: a transformer, a mobile network
def transformer(layers: int, width: float, length: int = 64) -> latlas.Network:
    """An encoder; features are `width` times 64, four times that inside the feed-forward."""
    features = 4 * round(64 * width / 4)
    layer = latlas.OpSpec.of(
        "encoder_layer",
        (length, features),
        heads=4,
        qkv_features=features,
        ffn_features=8 * round(256 * width / 8),
    )
    return latlas.Network.chain([layer] * layers)


def mobile(layers: int, width: float, side: int = 128) -> latlas.Network:
    """A stem, three stages of `layers` MBConv blocks (MobileNetV2) each, a classifier."""
    channels, side = 16, side // 2
    ops = [latlas.OpSpec.of("stem", (3, 2 * side, 2 * side), out_channels=channels, stride=2)]
    for base in (16, 24, 40):
        out_channels = 8 * max(1, round(base * width / 8))
        for index in range(layers):
            stride = 2 if index == 0 else 1
            block = latlas.OpSpec.of(
                "mbconv",
                (channels, side, side),
                out_channels=out_channels,
                expanded_channels=8 * max(1, round(4 * base * width / 8)),
                kernel=3,
                stride=stride,
                activation="relu6",
                skip=index > 0,
            )
            ops.append(block)
            channels, side = out_channels, side // stride
    ops.append(latlas.OpSpec.of("classifier", (channels, side, side), classes=100))
    return latlas.Network.chain(ops)


# %% Pairs of equal MACs
@dataclass(frozen=True)
class Candidate:
    """A network and how it was made.

    Attributes:
        way: `deeper` or `wider`, `3x3` or `7x7`.
        shape: number of layers and their width, as in `2 x 1.41`.
        network: the network.
        macs: multiply-accumulates of one inference.
    """

    way: str
    shape: str
    network: latlas.Network
    macs: int

    @property
    def name(self) -> str:
        """What listings call it."""
        return f"{self.way} {self.shape}"


@dataclass(frozen=True)
class Pair:
    """Two networks of one family whose MACs agree within `TOLERANCE`."""

    family: str
    first: Candidate
    second: Candidate

    def __post_init__(self) -> None:
        apart = abs(self.second.macs / self.first.macs - 1)
        if apart > TOLERANCE:
            shapes = f"{self.first.shape} and {self.second.shape}"
            raise ValueError(f"{self.family}, {shapes}: {apart:.1%} apart in MACs")


def candidate(way: str, shape: str, network: latlas.Network) -> Candidate:
    """A network with its cost."""
    return Candidate(way, shape, network, network_cost(network).macs)


def grown(
    family: str, build: Callable[[int, float], latlas.Network], base: int, depths: Iterable[int]
) -> Iterator[Pair]:
    """The base of `base` layers, grown to each depth, and to the width that costs the same.

    Channels are multiples of four or eight, so that MACs rise in steps with the width: of the
    widths around the one that bisection finds, the best is taken.
    """
    for depth in depths:
        deep = candidate("deeper", f"{depth} x 1.00", build(depth, 1.0))
        low, high = 1.0, float(depth)
        while high - low > 0.01:
            middle = (low + high) / 2
            if network_cost(build(base, middle)).macs < deep.macs:
                low = middle
            else:
                high = middle
        widths = [low * (0.9 + 0.0025 * step) for step in range(81)]
        wide = min(
            (candidate("wider", f"{base} x {width:.2f}", build(base, width)) for width in widths),
            key=lambda one: abs(one.macs - deep.macs),
        )
        yield Pair(family, deep, wide)


def pairs(quick: bool = False) -> list[Pair]:
    """Everything that is compared; `quick` for a few small networks."""
    if quick:
        return [
            *grown("transformer", lambda n, w: transformer(n, w, length=16), 1, [4]),
            *grown("MBConv network", lambda n, w: mobile(n, w, side=32), 1, [4]),
            Pair("depthwise", *(stack(n, k, 16, 14) for n, k in ((49, 3), (9, 7)))),
        ]
    return [
        *grown("transformer", transformer, 2, [8, 24, 70]),
        *grown("MBConv network", mobile, 2, [6, 20, 52]),
        Pair("depthwise", stack(49, 3), stack(9, 7)),
    ]


def stack(layers: int, kernel: int, channels: int = 96, side: int = 28) -> Candidate:
    """Equal depthwise convolutions; 49 layers of 3x3 have the MACs of 9 of 7x7."""
    layer = latlas.OpSpec.of("depthwise", (channels, side, side), kernel=kernel)
    network = latlas.Network.chain([layer] * layers)
    return candidate(f"{kernel}x{kernel}", f"{layers} layers", network)


# %% Measure
@dataclass(frozen=True)
class Row:
    """What was measured of a pair on a target.

    Attributes:
        target: its name.
        pair: the two networks.
        first_ms, second_ms: latencies, medians over the rounds in which both were measured.
        ratio: the first over the second in the same round, median over rounds.
        lower, upper: quartiles of that ratio over rounds.
    """

    target: str
    pair: Pair
    first_ms: float
    second_ms: float
    ratio: float
    lower: float
    upper: float


def program(network: latlas.Network, program_format: str, batch: int) -> bytes:
    """The network as a file that a runtime loads, with random weights."""
    if program_format == "tflite":
        return write_tflite(network, batch=batch).model_bytes
    if program_format == "opgraph":  # holds for every batch
        return write_opgraph(network).model_bytes
    return write_onnx(network, batch=batch).model_bytes


def measure(
    lab: latlas.Lab, target: str, wanted: Sequence[Pair], sampling: latlas.Sampling, name: str
) -> list[Row]:
    """Measures all networks on one target in one campaign, round by round.

    Raises:
        latlas.LatlasError: no such target, or a network cannot be measured on it.
    """
    known = {one.name: one for one in lab.targets()}
    if target not in known:
        raise latlas.NotFoundError(f"no target {target!r}; there are: {', '.join(known) or 'none'}")
    kind, batch = FORMATS.get(known[target].runtime, "onnx"), known[target].batch
    programs = [
        (lab.upload(program(one.network, kind, batch), kind), f"{pair.family} {one.name}")
        for pair in wanted
        for one in (pair.first, pair.second)
    ]
    campaign = f"{name}-{target}"
    status = lab.start_measure(campaign, target, programs, sampling)
    total = status.n_visits_wanted
    with Progress(f"  {target}", total=total, stream=sys.stderr, unit="visits") as bar:
        for status in lab.watch(campaign):
            bar.update(status.n_visits_done, total=status.n_visits_wanted)
    for task in status.failed:
        raise latlas.MeasurementError(f"{task.label} on {target}: {task.reason}")
    rows = {row.label: row for row in lab.measurements(campaign)}
    found = [rows[label] for _, label in programs]
    return [compare(target, *one) for one in zip(wanted, found[::2], found[1::2], strict=True)]


def compare(target: str, pair: Pair, first: latlas.Measurement, second: latlas.Measurement) -> Row:
    """The latencies of a pair, and their ratio round by round.

    Rounds in which either was disturbed are passed over where enough others are left.
    """
    both = [
        (one, other) for one in first.visits for other in second.visits if one.round == other.round
    ]
    if first.latency_ms is None or second.latency_ms is None or not both:
        raise latlas.MeasurementError(f"{first.label} on {target}: no round with both networks")
    quiet = [(one, other) for one, other in both if not (one.left_out or other.left_out)]
    kept = quiet if len(quiet) >= FEWEST_ROUNDS else both
    ratios = [one.median_ns / other.median_ns for one, other in kept]
    quartiles = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios
    first_ms, second_ms = (
        statistics.median(visits[index].median_ns for visits in kept) / 1e6 for index in (0, 1)
    )
    ratio = statistics.median(ratios)
    return Row(target, pair, first_ms, second_ms, ratio, quartiles[0], quartiles[-1])


@contextmanager
def lab_of(
    coordinator: str | None, targets: Sequence[str]
) -> Iterator[tuple[latlas.Lab, list[str]]]:
    """A coordinator that runs, or one of our own with an agent; and the targets to measure on.

    Raises:
        latlas.LatlasError: no coordinator answers, or no target of it was named.
    """
    if coordinator is not None:
        with latlas.connect(coordinator) as lab:
            if not targets:
                there = ", ".join(one.name for one in lab.targets()) or "none"
                raise latlas.InvalidInputError(f"name a target with --target; there are: {there}")
            yield lab, list(targets)
        return
    with (
        tempfile.TemporaryDirectory() as scratch,
        exclusive(Path(scratch), sys.stderr) as lock,
        fleet(Path(scratch) / "fleet", lock) as members,
        latlas.connect(members.grpc, wait_s=60) as lab,
    ):
        device = await_device(lab, members).device
        core = max(os.sched_getaffinity(0))
        offered = [one.runtime for one in device.runtimes if one.runtime in FORMATS]
        for runtime in offered:
            target = lab.add_target(runtime, runtime=runtime, cores=(core,))
            print(f"{runtime} {target.runtime_version} on {device.device_model}, one core")
        if missing := ", ".join(sorted(set(targets) - set(offered))):
            raise latlas.NotFoundError(f"not here: {missing}; here: {', '.join(offered)}")
        yield lab, list(targets) or offered


# %% Tell
def table(rows: Sequence[Row]) -> str:
    """The rows as text, a line per pair and target."""
    lines = [
        f"{'target':13}{'family':15}{'MACs':>7}  {'network':17}{'ms':>9}  {'against':17}{'ms':>9}"
        f"{'ratio':>8}  half of the rounds"
    ]
    for row in rows:
        first, second = row.pair.first, row.pair.second
        lines.append(
            f"{row.target:13}{row.pair.family:15}{first.macs / 1e6:6.1f}M  "
            f"{first.name:17}{row.first_ms:9.3f}  {second.name:17}{row.second_ms:9.3f}"
            f"{row.ratio:8.2f}  {row.lower:.2f} to {row.upper:.2f}"
        )
    return "\n".join(lines)


def plots(rows: Sequence[Row]) -> str:
    """The rows as one `<svg>`: a row of panels per family, a column per target."""
    targets = list(dict.fromkeys(row.target for row in rows))
    families = list(dict.fromkeys(row.pair.family for row in rows))

    def draw(figure: Figure) -> None:
        panels = figure.subplots(len(families), len(targets), squeeze=False)
        for line, family in zip(panels, families, strict=True):
            for axes, target in zip(line, targets, strict=True):
                shown = [r for r in rows if (r.target, r.pair.family) == (target, family)]
                macs = [row.pair.first.macs / 1e6 for row in shown]
                ways = (
                    (shown[0].pair.first.way, [row.first_ms for row in shown], "table", "o"),
                    (shown[0].pair.second.way, [row.second_ms for row in shown], "mlp", "s"),
                )
                for way, values, colour, marker in ways:
                    axes.plot(macs, values, marker=marker, color=COLOURS[colour], label=way)
                axes.set(xlim=(0, 1.1 * max(macs)), xlabel="million MACs", ylabel="ms")
                axes.set_ylim(bottom=0)
                axes.set_title(f"{family}, {target}")
                axes.legend()

    return render(
        draw,
        width=300 * len(targets),
        height=260 * len(families),
        name="flops",
        description="Latency against MACs of networks of equal MACs: " + ", ".join(families),
    )


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><title>FLOPs are not latency</title>
<style>
:root {{ --ink: #1b1f24; --muted: #667; --grid: #e3e5ea; --table: #1f5fbf; --mlp: #c2571a; }}
body {{ font: 16px/1.5 system-ui, sans-serif; color: var(--ink); margin: 2rem; }}
</style></head>
<body>
<h1>FLOPs are not latency</h1>
<p>Two networks in every pair, equal in MACs within 2 %, measured on one target round by round.</p>
{plots}
<pre>{table}</pre>
</body></html>
"""


# %% Run
def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the page, and returns the exit code."""
    parser = argparse.ArgumentParser(description="Networks of equal MACs, measured.")
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="instead of one of its own")
    words = "a target of the coordinator, or a runtime of this machine; may be repeated"
    parser.add_argument("--target", action="append", default=[], metavar="NAME", help=words)
    parser.add_argument("--name", default="flops", help="how campaigns begin (default: flops)")
    parser.add_argument("--output", type=Path, default=Path("flops.html"), help="the page")
    parser.add_argument("--quick", action="store_true", help="few small networks, two rounds")
    options = parser.parse_args(arguments)
    sampling = QUICK_SAMPLING if options.quick else SAMPLING
    try:
        wanted = pairs(options.quick)
        with lab_of(options.coordinator, options.target) as (lab, targets):
            found = [measure(lab, name, wanted, sampling, options.name) for name in targets]
        rows = list(itertools.chain.from_iterable(found))
        shown = table(rows)
        page = PAGE.format(plots=plots(rows), table=html.escape(shown))
        options.output.write_text(page, encoding="utf-8")
    except (latlas.LatlasError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{shown}\nPlots: {options.output}")
    return 0


# %%
if __name__ == "__main__":
    in_notebook = "ipykernel" in sys.modules
    status = main([] if in_notebook else None)
    if not in_notebook:
        sys.exit(status)
