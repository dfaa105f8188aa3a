"""The plug-in with the real torch. What needs a GPU is skipped where there is none."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latlas_agent.runtimes.torch import TorchRuntime
from latlas_latency.measurement import Target
from latlas_ops import Network, OpSpec
from latlas_ops.errors import (
    CorruptProgramError,
    InvalidInputError,
    MeasurementError,
    RuntimeUnavailableError,
)
from latlas_ops.lowering import lower
from latlas_ops.weights import random_weights
from latlas_ops.writers.opgraph import write_opgraph
from latlas_ops.writers.torch_writer import torch_module

torch = pytest.importorskip("torch", reason="torch is not installed")

TARGET = Target(
    name="here", device_model="test board", runtime="torch", runtime_version="2", provider="cpu"
)
COMPILED = dataclasses.replace(TARGET, execution="compiled")
NETWORK = Network.chain(
    [
        OpSpec.of("stem", (3, 16, 16), out_channels=8),
        OpSpec.of(
            "mbconv", (8, 8, 8), out_channels=8, expanded_channels=16, kernel=3, se_channels=8
        ),
        OpSpec.of("head", (8, 8, 8), expanded_channels=16, classes=4),
    ]
)

needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")),
    reason="torch.compile needs a C++ compiler",
)
needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no NVIDIA GPU, or torch was built without CUDA"
)


@pytest.fixture
def runtime() -> TorchRuntime:
    return TorchRuntime()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "model.opgraph"
    path.write_bytes(write_opgraph(NETWORK).model_bytes)
    return path


def on_gpu(**fields: Any) -> Target:
    return dataclasses.replace(TARGET, provider="cuda", **fields)


def test_it_says_what_it_offers_without_importing_torch() -> None:
    code = (
        "import sys; from latlas_agent.runtimes import load_runtime\n"
        "found = load_runtime('torch').capability()\n"
        "print(found.version, *found.providers, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    version, first, *others, imported = done.stdout.split()
    assert version == importlib.metadata.version("torch") == torch.__version__
    assert first == "cpu"
    assert ("cuda" in others) == torch.cuda.is_available()
    assert imported == "False" or Path("/dev/nvidiactl").exists()


class TestAgreement:
    """On the same weights every execution answers as the eager module does."""

    @pytest.fixture
    def expected(self) -> np.ndarray:
        images = np.random.default_rng(20200426).standard_normal((2, 3, 16, 16), np.float32)
        weights = random_weights(lower(NETWORK), np.random.default_rng(0))
        with torch.inference_mode():
            output: np.ndarray = torch_module(NETWORK, weights)(torch.from_numpy(images)).numpy()
        return output

    # torch's compiler uses what torch itself deprecates.
    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    @pytest.mark.parametrize(
        "target",
        [
            TARGET,
            pytest.param(COMPILED, marks=[needs_compiler, pytest.mark.slow]),
            pytest.param(on_gpu(), marks=needs_gpu),
            pytest.param(on_gpu(execution="compiled"), marks=needs_gpu),
        ],
        ids=["eager", "compiled", "gpu", "gpu-compiled"],
    )
    def test_outputs(
        self, runtime: TorchRuntime, program: Path, expected: np.ndarray, target: Target
    ) -> None:
        session: Any = runtime.load(program, dataclasses.replace(target, batch=2))
        output = session.run().cpu().numpy()
        assert np.abs(output - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@needs_compiler
@pytest.mark.slow
def test_one_process_compiles_any_number_of_networks(runtime: TorchRuntime, tmp_path: Path) -> None:
    path = tmp_path / "model.opgraph"
    for features in range(4, 14):  # torch keeps eight compiled forms of one function
        network = Network.chain([OpSpec.of("linear", (8,), out_features=features)])
        path.write_bytes(write_opgraph(network).model_bytes)
        compiled: Any = runtime.load(path, COMPILED)
        eager: Any = runtime.load(path, TARGET)
        np.testing.assert_allclose(compiled.outputs()[0], eager.outputs()[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "target", [TARGET, pytest.param(on_gpu(), marks=needs_gpu)], ids=["cpu", "gpu"]
)
def test_every_op_is_timed_in_every_run(
    runtime: TorchRuntime, program: Path, tmp_path: Path, target: Target
) -> None:
    session = runtime.load_profiled(program, target, tmp_path)
    for _ in range(5):
        session.run()
    series = session.node_series(3)
    positions = write_opgraph(NETWORK).tensor_positions
    assert [positions[one.label] for one in series] == [0, 1, 2]
    assert series[0].node.startswith("Conv2d+Hardswish+Conv2d+ReLU+Conv2d+Add p000/")
    assert all(len(one.samples_ns) == 3 and (one.samples_ns > 0).all() for one in series)


def test_a_profile_ends_where_its_room_ends(
    runtime: TorchRuntime, program: Path, tmp_path: Path
) -> None:
    session = runtime.load_profiled(program, TARGET, tmp_path)
    assert session.max_runs == 200_000 // 4
    session.run()
    with pytest.raises(MeasurementError, match="holds 1 inferences where 2"):
        session.node_series(2)


def test_threads_are_the_target_s(runtime: TorchRuntime, program: Path) -> None:
    before = torch.get_num_threads()
    try:
        runtime.load(program, dataclasses.replace(TARGET, threads=3))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"provider": "tpu"}, "no provider 'tpu'; it has cpu"),
        ({"precision": "int8"}, "asks for precision 'int8', in which torch does not compute here"),
        ({"precision": "fp16"}, "fp16.* computes in fp32 between two casts"),
        ({"graph_level": "basic"}, "no graph level 'basic'"),
    ],
)
def test_what_this_installation_cannot_do_is_refused(
    runtime: TorchRuntime, program: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(RuntimeUnavailableError, match=message):
        runtime.load(program, dataclasses.replace(TARGET, **fields))


def test_fp16_computes_in_fp16(
    runtime: TorchRuntime, program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the processor, which is told to try: no figure comes from there."""
    monkeypatch.setattr("latlas_agent.runtimes.torch.require_computed", lambda _: None)
    monkeypatch.setattr(runtime, "_precisions", lambda: ("fp32", "fp16"), raising=True)
    narrow = runtime.load(program, dataclasses.replace(TARGET, precision="fp16"))
    wide = runtime.load(program, TARGET)
    found, wanted = narrow.run(), wide.run()
    assert (found.dtype, wanted.dtype) == (torch.float16, torch.float32)
    error = (found.float() - wanted).norm() / wanted.norm()
    assert 0 < error < 0.02


@pytest.mark.parametrize(
    ("version", "offered"), [("2.13.0+cpu", ("fp32",)), ("2.13.0+cu130", ("fp32", "fp16"))]
)
def test_fp16_is_offered_where_there_is_a_gpu(
    runtime: TorchRuntime, monkeypatch: pytest.MonkeyPatch, version: str, offered: tuple[str, ...]
) -> None:
    monkeypatch.setattr(runtime, "_version", version)
    monkeypatch.setattr("latlas_agent.runtimes.torch._exists", lambda _: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runtime.capability().precisions == offered


def test_nodes_of_a_compiled_network_cannot_be_timed(
    runtime: TorchRuntime, program: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeUnavailableError, match="measure ops in chains instead"):
        runtime.load_profiled(program, COMPILED, tmp_path)


def test_shapes_are_no_matter_of_op_graphs(runtime: TorchRuntime, program: Path) -> None:
    with pytest.raises(InvalidInputError, match="leave out --shape"):
        runtime.load(program, TARGET, (("input", (1, 3, 16, 16)),))


def test_a_file_that_is_no_op_graph_is_refused(runtime: TorchRuntime, tmp_path: Path) -> None:
    path = tmp_path / "model.opgraph"
    path.write_bytes(b"\x80\x04\x95junk")
    with pytest.raises(CorruptProgramError, match="torch cannot load the program: not an op graph"):
        runtime.load(path, TARGET)


def test_a_batch_that_does_not_fit_into_memory_is_out_of_memory(
    runtime: TorchRuntime, program: Path
) -> None:
    with pytest.raises(MemoryError):
        runtime.load(program, dataclasses.replace(TARGET, batch=1 << 45))
