"""What sessions tell of their outputs, and that runtimes compute the same of the same inputs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from latlas_agent.runtimes import load_runtime
from latlas_agent.runtimes.base import INPUT_SEED, TellingSession, draw_normal, input_in_words
from latlas_agent.watch import open_watch
from latlas_agent.worker import VisitOrder, Worker
from latlas_latency.measurement import PLAIN, PROFILED, Target, Visit, output_error
from latlas_ops import Network, OpSpec
from latlas_ops.writers.onnx_writer import write_onnx
from latlas_ops.writers.opgraph import write_opgraph
from latlas_ops.writers.tflite_writer import write_tflite

TARGETS = {
    "onnx": Target("ort", "board", "onnxruntime", "1", "CPUExecutionProvider"),
    "tflite": Target("litert", "board", "litert", "2", "xnnpack"),
    "opgraph": Target("torch", "board", "torch", "2", "cpu"),
}
WRITERS = {"onnx": write_onnx, "tflite": write_tflite, "opgraph": write_opgraph}
MODULES = {"onnx": "onnxruntime", "tflite": "ai_edge_litert", "opgraph": "torch"}
NETWORKS = {
    "classifier": Network.chain(
        [
            OpSpec.of("stem", (3, 10, 8), out_channels=8),
            OpSpec.of("head", (8, 5, 4), expanded_channels=16, classes=5),
        ]
    ),
    "image": Network.chain([OpSpec.of("conv", (3, 9, 7), out_channels=4, kernel=3)]),
    "tokens": Network.chain([OpSpec.of("feed_forward", (5, 12), ffn_features=8)]),
}


def write(network: Network, program_format: str, folder: Path) -> Path:
    path = folder / f"model.{program_format}"
    path.write_bytes(WRITERS[program_format](network).model_bytes)
    return path


def session(network: Network, program_format: str, folder: Path) -> TellingSession:
    pytest.importorskip(MODULES[program_format])
    target = TARGETS[program_format]
    found = load_runtime(target.runtime).load(write(network, program_format, folder), target)
    assert isinstance(found, TellingSession)
    return found


@pytest.mark.parametrize("program_format", ["tflite", "opgraph"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_runtime_draws_and_computes_what_onnxruntime_does(
    name: str, program_format: str, tmp_path: Path
) -> None:
    ours = session(NETWORKS[name], program_format, tmp_path)
    theirs = session(NETWORKS[name], "onnx", tmp_path)
    assert ours.inputs == theirs.inputs
    (output,), (expected,) = ours.outputs(), theirs.outputs()
    assert isinstance(output, np.ndarray)
    assert isinstance(expected, np.ndarray)
    assert output.shape == expected.shape
    assert np.abs(output - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_half_floats_are_the_rounded_numbers_of_single_ones(dtype: type) -> None:
    drawn = draw_normal(np.random.default_rng(INPUT_SEED), (2, 3), dtype)
    single = draw_normal(np.random.default_rng(INPUT_SEED), (2, 3))
    assert drawn.dtype == dtype
    assert input_in_words(drawn) == "float32 2x3"
    np.testing.assert_array_equal(drawn, single.astype(dtype))


def test_doubles_are_other_numbers_and_are_called_so() -> None:
    drawn = draw_normal(np.random.default_rng(INPUT_SEED), (2, 3), np.float64)
    assert input_in_words(drawn) == "float64 2x3"


class TestVisits:
    def visits(self, folder: Path, *modes: str) -> list[Visit]:
        cores = sorted(os.sched_getaffinity(0))
        worker = Worker(
            load_runtime("onnxruntime"),
            TARGETS["onnx"],
            device_id="board-1",
            watch=open_watch(Path("/"), cores, "CPUExecutionProvider", {}),
            scratch=folder,
            session_budget_bytes=1 << 30,
        )
        order = VisitOrder("t", write(NETWORKS["classifier"], "onnx", folder), PLAIN, 0, 1, 2, 1)
        return [worker.visit(dataclasses.replace(order, mode=mode)) for mode in modes]

    def test_the_first_visit_tells_what_the_program_computes(self, tmp_path: Path) -> None:
        first, second = self.visits(tmp_path, PLAIN, PLAIN)
        assert first.opening is not None
        computed = first.opening.computed
        assert computed is not None
        assert computed.inputs == ("float32 1x3x10x8",)
        assert [output.shape for output in computed.outputs] == [(1, 5)]
        assert len(computed.outputs[0].values) == 5
        assert second.opening is None

    def test_another_worker_tells_the_same(self, tmp_path: Path) -> None:
        found = []
        for _ in range(2):
            (visit,) = self.visits(tmp_path, PLAIN)
            assert visit.opening is not None
            found.append(visit.opening.computed)
        assert output_error(*found) == 0

    def test_a_profile_holds_nothing_but_what_was_asked_for(self, tmp_path: Path) -> None:
        (visit,) = self.visits(tmp_path, PROFILED)
        assert visit.opening is not None
        assert visit.opening.computed is None


def test_a_runtime_that_does_not_tell_is_measured_all_the_same(tmp_path: Path) -> None:
    class Silent:
        def run(self) -> object:
            return sum(range(1000))

    class Runtime:
        def load(self, *_: object) -> Silent:
            return Silent()

    program = tmp_path / "program"
    program.write_bytes(b"any")
    worker = Worker(
        Runtime(),  # type: ignore[arg-type]
        TARGETS["onnx"],
        device_id="board-1",
        watch=open_watch(Path("/"), [0], "CPUExecutionProvider", {}),
        scratch=tmp_path,
        session_budget_bytes=1,
    )
    visit = worker.visit(VisitOrder("t", program, PLAIN, 0, 1, 2, 1))
    assert visit.opening is not None
    assert visit.opening.computed is None
