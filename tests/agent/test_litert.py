"""The plug-in with the real ai-edge-litert, and tflite-runtime where only its packaging matters."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latlas_agent.runtimes import load_runtime
from latlas_agent.runtimes.litert import BUILTIN, DELEGATES_VARIABLE, XNNPACK, LiteRt
from latlas_latency.measurement import Target
from latlas_ops.errors import (
    CorruptProgramError,
    InvalidInputError,
    LatlasError,
    RuntimeUnavailableError,
)

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

WriteModel = Callable[..., bytes]
Save = Callable[[bytes], Path]

TARGET = Target(
    name="here", device_model="test board", runtime="litert", runtime_version="2", provider=XNNPACK
)
ON_BUILTIN = dataclasses.replace(TARGET, provider=BUILTIN)


@pytest.fixture(scope="module")
def runtime() -> LiteRt:
    return LiteRt({})


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write_file(data: bytes) -> Path:
        path = tmp_path / "model.tflite"
        path.write_bytes(data)
        return path

    return write_file


def tensors(session: Any) -> tuple[np.ndarray, np.ndarray]:
    """Input and output of a session as they lie in its interpreter."""
    interpreter = session.run.__self__
    return tuple(
        interpreter.get_tensor(entry[0]["index"])
        for entry in (interpreter.get_input_details(), interpreter.get_output_details())
    )


def test_it_says_what_it_offers(runtime: LiteRt) -> None:
    capability = runtime.capability()
    assert capability.runtime == "litert"
    assert capability.version == importlib.metadata.version("ai-edge-litert")
    assert capability.providers == (XNNPACK, BUILTIN)
    assert capability.program_formats == ("tflite",)
    assert not capability.per_node_times


@pytest.mark.parametrize("target", [TARGET, ON_BUILTIN], ids=["xnnpack", "builtin"])
@pytest.mark.parametrize("threads", [1, 2])
def test_inference_after_inference_finds_the_same_inputs(
    runtime: LiteRt, tflite_model: WriteModel, save: Save, target: Target, threads: int
) -> None:
    session = runtime.load(
        save(tflite_model("RELU", "HARD_SWISH")), dataclasses.replace(target, threads=threads)
    )
    before, _ = tensors(session)
    for _ in range(3):
        session.run()
    after, output = tensors(session)
    np.testing.assert_array_equal(before, after)
    assert before.std() > 0.5
    rectified = np.maximum(before, 0)
    expected = rectified * np.clip(rectified + 3, 0, 6) / 6
    np.testing.assert_allclose(output, expected, rtol=1e-5)


def test_equal_programs_get_equal_inputs(
    runtime: LiteRt, tflite_model: WriteModel, save: Save
) -> None:
    path = save(tflite_model("RELU"))
    first, second = (tensors(runtime.load(path, TARGET))[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_threads_are_those_of_the_target_on_the_cores_of_the_worker(
    runtime: LiteRt, tflite_model: WriteModel, save: Save
) -> None:
    path = save(tflite_model("RELU", "HARD_SWISH"))
    usable = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(usable)})
        there = set(os.listdir("/proc/self/task"))
        session = runtime.load(path, dataclasses.replace(TARGET, threads=3))
        session.run()
        started = set(os.listdir("/proc/self/task")) - there
        assert len(started) == 2
        assert all(os.sched_getaffinity(int(thread)) == {max(usable)} for thread in started)
    finally:
        os.sched_setaffinity(0, usable)


class TestPlacement:
    """XNNPACK takes RELU and HARD_SWISH but not SIGN."""

    def test_a_node_that_xnnpack_leaves_is_named(
        self, runtime: LiteRt, tflite_model: WriteModel, save: Save
    ) -> None:
        path = save(tflite_model("RELU", "SIGN", "HARD_SWISH"))
        with pytest.raises(RuntimeUnavailableError, match=r"1 of 3 nodes .*\(SIGN\); set allow"):
            runtime.load(path, TARGET)

    def test_it_is_accepted_on_request(
        self, runtime: LiteRt, tflite_model: WriteModel, save: Save
    ) -> None:
        path = save(tflite_model("RELU", "SIGN", "HARD_SWISH"))
        runtime.load(path, dataclasses.replace(TARGET, allow_fallback=True)).run()

    def test_plain_kernels_are_a_provider_of_their_own(
        self, runtime: LiteRt, tflite_model: WriteModel, save: Save
    ) -> None:
        session = runtime.load(save(tflite_model("RELU", "SIGN", "HARD_SWISH")), ON_BUILTIN)
        session.run()
        names = [entry["op_name"] for entry in session.run.__self__._get_ops_details()]
        assert names == ["RELU", "SIGN", "HARD_SWISH"]


class TestShapes:
    def test_a_free_first_axis_takes_the_target_s_batch(
        self, runtime: LiteRt, tflite_model: WriteModel, save: Save
    ) -> None:
        path = save(tflite_model("RELU", shape=(1, 4), signature=(-1, 4)))
        session = runtime.load(path, dataclasses.replace(TARGET, batch=3))
        session.run()
        assert [tensor.shape for tensor in tensors(session)] == [(3, 4), (3, 4)]

    def test_free_axes_take_the_sizes_that_they_are_given(
        self, runtime: LiteRt, tflite_model: WriteModel, save: Save
    ) -> None:
        path = save(tflite_model("RELU", shape=(1, 1, 4), signature=(-1, -1, 4)))
        session = runtime.load(path, TARGET, (("t0", (1, 5, 4)),))
        session.run()
        assert [tensor.shape for tensor in tensors(session)] == [(1, 5, 4), (1, 5, 4)]

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"shape": (1, 1, 4), "signature": (1, -1, 4)}, r"free axes, 1x\?x4: say how"),
            ({"shape": (2, 4)}, "has batch 2, target 'here' wants 1"),
            ({"shape": (1, 4), "dtype": "STRING"}, "unsupported type"),
        ],
    )
    def test_a_program_that_does_not_fit_the_target_is_refused(
        self,
        runtime: LiteRt,
        tflite_model: WriteModel,
        save: Save,
        fields: dict[str, Any],
        message: str,
    ) -> None:
        with pytest.raises(InvalidInputError, match=message):
            runtime.load(save(tflite_model("RESHAPE", **fields)), ON_BUILTIN)

    @pytest.mark.parametrize(
        ("operator", "dtype", "scale", "low", "high"),
        [
            ("NEG", "INT32", None, 0, 1),
            ("NEG", "INT64", None, 0, 1),
            ("LOGICAL_NOT", "BOOL", None, 0, 1),
            ("RELU", "INT8", 0.1, -35, 35),
            ("RELU", "INT8", 0.02, -128, 127),
            ("RELU", "UINT8", 0.1, 0, 35),
        ],
    )
    def test_inputs_of_other_types_lie_in_their_range(
        self,
        runtime: LiteRt,
        tflite_model: WriteModel,
        save: Save,
        operator: str,
        dtype: str,
        scale: float | None,
        low: int,
        high: int,
    ) -> None:
        model = tflite_model(operator, shape=(1, 4096), dtype=dtype, scale=scale)
        drawn, _ = tensors(runtime.load(save(model), ON_BUILTIN))
        assert (int(drawn.min()), int(drawn.max())) == pytest.approx(
            (low, high), abs=8 * bool(scale)
        )


class TestMalformed:
    @pytest.mark.parametrize("data", [b"", b"\x9f\x03\x00\xff\x81\x00\x17\x2a", bytes(4) + b"TFL3"])
    def test_junk_never_reaches_the_interpreter(
        self, runtime: LiteRt, save: Save, data: bytes
    ) -> None:
        with pytest.raises(CorruptProgramError):
            runtime.load(save(data), TARGET)

    def test_a_custom_operator_is_named(
        self, runtime: LiteRt, tflite_model: WriteModel, save: Save
    ) -> None:
        with pytest.raises(CorruptProgramError, match=r"litert cannot load .*unheard_of"):
            runtime.load(save(tflite_model("unheard_of")), ON_BUILTIN)

    def test_a_tensor_of_absurd_size_is_refused(
        self, runtime: LiteRt, tflite_model: WriteModel, save: Save
    ) -> None:
        path = save(tflite_model("RELU", shape=(1, 1 << 30, 1 << 30, 1 << 30)))
        with pytest.raises((LatlasError, MemoryError)):
            runtime.load(path, ON_BUILTIN)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"provider": "gpu"}, "has no provider 'gpu'; it has xnnpack, builtin"),
        ({"execution": "compiled"}, "no execution 'compiled'"),
        ({"precision": "fp16"}, "asks for precision 'fp16', in which litert does not compute here"),
        ({"graph_level": "basic"}, "no graph level 'basic'"),
    ],
)
def test_what_this_installation_cannot_do_is_refused(
    runtime: LiteRt,
    tflite_model: WriteModel,
    save: Save,
    fields: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(RuntimeUnavailableError, match=message):
        runtime.load(save(tflite_model("RELU")), dataclasses.replace(TARGET, **fields))


def test_nodes_cannot_be_timed(
    runtime: LiteRt, tflite_model: WriteModel, save: Save, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeUnavailableError, match="measure ops in chains instead"):
        runtime.load_profiled(save(tflite_model("RELU")), TARGET, tmp_path)


class TestDelegates:
    """A delegate is a provider by its path, where the agent was told of it."""

    def load(self, library: Path, program: Path, **fields: Any) -> Any:
        runtime = LiteRt({DELEGATES_VARIABLE: str(library)})
        provider = f"delegate:{library}"
        return runtime.load(program, dataclasses.replace(TARGET, provider=provider, **fields))

    def test_it_is_offered_if_it_is_there(self, tmp_path: Path) -> None:
        there, gone = tmp_path / "there.so", tmp_path / "gone.so"
        there.touch()
        runtime = LiteRt({DELEGATES_VARIABLE: f"{gone}{os.pathsep}{there}"})
        assert runtime.capability().providers == (XNNPACK, BUILTIN, f"delegate:{there}")

    def test_one_that_the_agent_was_not_told_of_is_refused(
        self,
        runtime: LiteRt,
        delegate: Callable[..., Path],
        tflite_model: WriteModel,
        save: Save,
    ) -> None:
        target = dataclasses.replace(TARGET, provider=f"delegate:{delegate(9)}")
        with pytest.raises(RuntimeUnavailableError, match="agent runs with --delegate PATH"):
            runtime.load(save(tflite_model("RELU")), target)

    def test_it_computes_whole_programs(
        self, delegate: Callable[..., Path], tflite_model: WriteModel, save: Save
    ) -> None:
        session = self.load(delegate(9), save(tflite_model("RELU", "SIGN")))
        session.run()
        _, output = tensors(session)
        assert not np.isin(output, (1.0,)).any(), "SIGN ran, not the delegate"

    @pytest.mark.parametrize("most_nodes", [0, 1])
    def test_what_it_leaves_is_refused_unless_that_is_accepted(
        self,
        delegate: Callable[..., Path],
        tflite_model: WriteModel,
        save: Save,
        most_nodes: int,
    ) -> None:
        program = save(tflite_model("RELU", "HARD_SWISH", "RELU"))
        with pytest.raises(RuntimeUnavailableError, match=rf"{3 - most_nodes} of 3 nodes run on"):
            self.load(delegate(most_nodes), program)
        self.load(delegate(most_nodes), program, allow_fallback=True).run()

    def test_a_library_that_is_no_delegate_is_named(
        self, tflite_model: WriteModel, save: Save, tmp_path: Path
    ) -> None:
        library = tmp_path / "libnothing.so"
        library.write_bytes(b"no library")
        with pytest.raises(RuntimeUnavailableError, match=r"libnothing\.so cannot be loaded"):
            self.load(library, save(tflite_model("RELU")))


class TestTfliteRuntime:
    """Its wheels were built against numpy 1; this environment has numpy 2."""

    @pytest.fixture
    def installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        package = tmp_path / "site" / "tflite_runtime"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("__version__ = '2.14.0'\n")
        (package / "interpreter.py").write_text("")
        monkeypatch.syspath_prepend(package.parent)
        yield
        for name in ("tflite_runtime", "tflite_runtime.interpreter"):
            sys.modules.pop(name, None)

    @pytest.mark.usefixtures("installed")
    def test_under_numpy_2_it_is_unavailable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(np, "__version__", "2.4.6")
        with pytest.raises(RuntimeUnavailableError, match=r"needs numpy < 2 .*latlas\[tflite\]"):
            load_runtime("tflite-runtime")

    @pytest.mark.usefixtures("installed")
    def test_under_numpy_1_it_is_offered(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(np, "__version__", "1.26.4")
        capability = load_runtime("tflite-runtime").capability()
        assert (capability.runtime, capability.version) == ("tflite-runtime", "2.14.0")

    def test_where_it_is_not_installed_that_is_the_reason(self) -> None:
        with pytest.raises(RuntimeUnavailableError, match="cannot be imported"):
            load_runtime("tflite-runtime")
