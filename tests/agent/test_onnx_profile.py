from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from latlas_agent.runtimes.onnx_attribution import Anchor, Originals
from latlas_agent.runtimes.onnx_graph import OnnxGraph, OnnxNode
from latlas_agent.runtimes.onnx_profile import KernelEvent, node_series, read_profile
from latlas_latency.measurement import Series
from latlas_ops.errors import MeasurementError

ORIGINALS = Originals.of(OnnxGraph((OnnxNode("c", "Conv", ("x",), ("t1",)),), False))


def kernel(name: str, start_us: int, duration_us: int, op: str = "Conv", index: int = 0) -> str:
    return json.dumps(
        {
            "cat": "Node",
            "name": f"{name}_kernel_time",
            "ts": start_us,
            "dur": duration_us,
            "args": {"op_name": op, "node_index": str(index), "provider": "CPU"},
        }
    )


def run(start_us: int, duration_us: int) -> str:
    event = {"cat": "Session", "name": "model_run", "ts": start_us, "dur": duration_us, "args": {}}
    return json.dumps(event)


def profile(*events: str) -> list[str]:
    """The lines of a profile as onnxruntime writes it."""
    return ["[\n", *(event + ",\n" for event in events), "]\n"]


def event(name: str, duration_us: int, op: str = "Conv", index: str = "0") -> KernelEvent:
    return KernelEvent(name, op, index, "CPU", 0, duration_us)


def labels(series: tuple[Series, ...]) -> list[str]:
    return [one.label for one in series]


def test_kernels_are_split_by_inference_in_order_of_execution() -> None:
    runs = read_profile(
        profile(
            kernel("warm", 5, 1),
            kernel("a", 20, 3),
            kernel("b", 24, 4, index=1),
            run(19, 10),
            kernel("b", 45, 5, index=1),
            kernel("a", 41, 2),
            run(40, 12),
        )
    )
    assert [[(k.name, k.duration_us) for k in kernels] for kernels in runs] == [
        [("a", 3), ("b", 4)],
        [("a", 2), ("b", 5)],
    ]


def test_a_kernel_tells_its_shapes_where_the_profile_does() -> None:
    line = json.loads(kernel("a", 20, 3))
    line["args"] |= {
        "input_type_shape": [{"float": [1, 3, 8, 8]}, {"float": [4, 3, 1, 1]}, {"int64": []}],
        "output_type_shape": [{"float": [1, 4, 8, 8]}],
    }
    ((told, untold),) = read_profile(
        profile(json.dumps(line), kernel("b", 24, 1, index=1), run(19, 10))
    )
    assert told.shapes == "1x3x8x8 4x3x1x1 scalar > 1x4x8x8"
    assert untold.shapes == ""


def test_a_kernel_inside_another_is_not_counted_twice() -> None:
    (kernels,) = read_profile(
        profile(
            kernel("body", 11, 2, index=7),
            kernel("body", 14, 2, index=7),
            kernel("loop", 10, 8, op="Loop"),
            kernel("after", 18, 1, index=2),
            run(9, 12),
        )
    )
    assert [k.name for k in kernels] == ["loop", "after"]


def test_other_events_are_left_out() -> None:
    other = json.dumps({"name": "session_initialization", "ts": 0, "dur": 3, "args": {}})
    assert read_profile(profile(other)) == []


@pytest.mark.parametrize("line", ["{", '{"name": "a_kernel_time", "args": {}}', '{"ts": 1}'])
def test_a_broken_profile_is_an_error(line: str) -> None:
    with pytest.raises(MeasurementError, match="profile cannot be read"):
        read_profile([line])


def test_series_have_one_sample_per_inference_in_nanoseconds() -> None:
    runs = [[event("n", 3)], [event("n", 5)]]
    (series,) = node_series(
        runs, [OnnxNode("n", "Conv", (), ())], [Anchor("t1", "output")], ORIGINALS
    )
    np.testing.assert_array_equal(series.samples_ns, [3000, 5000])
    assert series.label == "t1"
    assert series.node == "Conv n"


def test_a_kernel_that_runs_several_times_in_an_inference_is_summed() -> None:
    runs = [[event("n", 3), event("n", 4)], [event("n", 5)]]
    (series,) = node_series(runs, [], [], ORIGINALS)
    np.testing.assert_array_equal(series.samples_ns, [7000, 5000])


def test_a_kernel_that_rests_in_an_inference_has_a_zero_there() -> None:
    runs = [[event("a", 3)], [event("a", 3), event("b", 4, index="1")]]
    _, second = node_series(runs, [], [], ORIGINALS)
    np.testing.assert_array_equal(second.samples_ns, [0, 4000])


def test_nodes_without_names_are_told_apart_by_their_position() -> None:
    runs: list[list[Any]] = [[event("Mul_4", 1, "Mul", "4"), event("Mul_5", 1, "Mul", "5")]]
    nodes = [OnnxNode("", "Mul", (), ()), OnnxNode("", "Mul", (), ())]
    anchors = [Anchor("t1", "output"), Anchor("t2", "consumer")]
    assert labels(node_series(runs, nodes, anchors, ORIGINALS)) == ["t1", "t2"]


def test_where_the_orders_differ_names_decide() -> None:
    runs = [[event("b", 1, "Mul", "1"), event("a", 1), event("t1_nchwc", 1, "Conv", "9")]]
    nodes = [OnnxNode("a", "Conv", (), ()), OnnxNode("b", "Mul", (), ())]
    anchors = [Anchor("ta", "output"), Anchor("tb", "output")]
    assert labels(node_series(runs, nodes, anchors, ORIGINALS)) == ["tb", "ta", "t1"]


def test_what_cannot_be_anchored_is_kept_without_a_label() -> None:
    runs = [[event("mystery", 6)]]
    (series,) = node_series(runs, [], [], ORIGINALS)
    assert series.label == ""
    np.testing.assert_array_equal(series.samples_ns, [6000])
