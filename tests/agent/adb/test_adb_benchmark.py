"""What `benchmark_model` prints, in the formats of several releases."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from latlas_agent.phone_benchmark import NONE, PART, WHOLE, parse_benchmark, parse_placement
from latlas_latency.measurement import PLAIN, PROFILED
from latlas_ops import get_space
from latlas_ops.errors import MeasurementError
from latlas_ops.writers.tflite_writer import write_tflite

NEW = """\
INFO: STARTING!
INFO: Loaded model x.tflite
INFO: Explicitly applied XNNPACK delegate, and the model graph will be completely executed by the \
delegate.
INFO: Running benchmark for at least 1 iterations and at least 0 seconds.
INFO: count=1 curr=1357602 p5=1357602 median=1357602 p95=1357602

INFO: count=50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565 \
p5=1238753 median=1239807 p95=1247415

INFO: Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 1.3576e+06, \
Inference (avg): 1.24027e+06
INFO: Memory footprint delta from the start of the tool (MB): init=6.36328 overall=109.5
"""

IN_BETWEEN = """\
STARTING!
count=3 first=30100 curr=30000 min=30000 max=30100 avg=30033 std=47

count=20 curr=29000(all same)

Inference timings in us: Init: 1500, First inference: 30100, Warmup (avg): 30033, Inference (avg): \
29000
"""

DELEGATED = """\
Inference timings in us: Init: 1, First inference: 2, Warmup (avg): 3, Inference (avg): 411.071
Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
  [node type]  [first]  [avg ms]  [%]  [cdf%]  [mem KB]  [times called]  [Name]
  AllocateTensors  0.000  0.000  0.000%  0.000%  452.000  0  AllocateTensors/0
  Fully Connected (NC, PF32) GEMM  0.849  0.382  92.930%  92.930%  0.000  1  \
Delegate/Fully Connected (NC, PF32) GEMM:0
  LiteRT::Run[Buffer sync]  0.012  0.012  2.919%  95.849%  0.000  1  LiteRT::Run[Buffer sync]/0

Timings (microseconds): count=3166 first=947 curr=406 min=390 max=947 avg=411.071 std=14
"""


def test_a_published_log_of_a_phone_is_read(third_party_data: Path) -> None:
    folder = third_party_data / "proxylessnas_log"
    if not folder.is_dir():
        pytest.skip(f"{third_party_data} holds no proxylessnas_log")
    text = (folder / "proxyless_mobile_10_latency.txt").read_text()
    result = parse_benchmark(text)
    assert len(result.nodes) == 77
    assert {kind.kind: (kind.n_nodes, kind.average_ns / 1e6) for kind in result.kinds} == {
        "CONV_2D": (42, pytest.approx(59.262)),
        "DEPTHWISE_CONV_2D": (20, pytest.approx(21.048)),
        "ADD": (13, pytest.approx(0.248)),
        "AVERAGE_POOL_2D": (1, pytest.approx(0.037)),
        "RESHAPE": (1, pytest.approx(0.001)),
    }
    sums_ms: defaultdict[str, float] = defaultdict(float)
    for node in result.nodes:
        sums_ms[node.kind] += node.average_ns / 1e6
    for kind in result.kinds:
        # The tool cuts every node's time to whole microseconds before it adds them up.
        assert sums_ms[kind.kind] == pytest.approx(kind.average_ns / 1e6, abs=1e-3 * kind.n_nodes)
    assert sum(sums_ms.values()) == pytest.approx(80.6357, abs=0.01)
    assert result.nodes_runs is not None
    assert result.nodes_runs.average_ns / 1e6 == pytest.approx(80.64, abs=0.005)
    assert result.runs.average_ns / 1e6 == pytest.approx(80.67, abs=0.005)
    assert (result.runs.n_runs, result.runs.median_ns) == (100, None)
    assert (result.load_ns, result.first_run_ns) == (47_967_000, 101_052_000)
    assert result.memory_bytes is None
    assert result.nodes[0].tensor == "MNasNet/Conv/Relu6"
    assert len({node.tensor for node in result.nodes}) == 77
    network, first, *_ = result.series(PROFILED)
    assert network.samples_ns.tolist() == [80_670_200]
    assert first.label == "MNasNet/Conv/Relu6"
    assert first.node.startswith("CONV_2D ")


def test_a_newer_release_tells_the_median_and_the_memory() -> None:
    result = parse_benchmark(NEW)
    assert result.runs.n_runs == 50
    assert result.runs.average_ns == pytest.approx(1.24027e9)
    assert result.runs.median_ns == 1_239_807_000
    assert result.memory_bytes == round(109.5 * (1 << 20))
    assert (result.load_ns, result.first_run_ns) == (5_579_000, 1_357_602_000)
    assert result.placement == WHOLE
    (network,) = result.series(PLAIN)
    assert network.samples_ns.tolist() == [1_239_807_000]


def test_one_sample_is_the_mean_where_no_median_is_told() -> None:
    result = parse_benchmark(IN_BETWEEN)
    assert result.runs.n_runs == 20
    (network,) = result.series(PLAIN)
    assert network.samples_ns.tolist() == [29_000_000]
    with pytest.raises(MeasurementError, match="printed no times of nodes"):
        result.series(PROFILED)


def test_the_share_tells_a_small_node_s_time_more_finely() -> None:
    text = (Path(__file__).parent / "profile.txt").read_text()
    result = parse_benchmark("count=1 curr=1200\nInference timings in us: Init: 5\n" + text)
    assert [(node.kind, node.tensor) for node in result.nodes] == [
        ("CONV_2D", "t1"),
        ("SOFTMAX", "t2"),
    ]
    assert [node.average_ns for node in result.nodes] == [
        pytest.approx(0.8 * 1_100_400),
        pytest.approx(0.2 * 1_100_400),
    ]
    assert result.first_run_ns == 1_200_000


def test_every_node_of_a_program_that_the_coordinator_writes_finds_its_op() -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    space = get_space("digits")
    (arch,) = space.archs(space.sample(1, np.random.default_rng(5)))
    program = write_tflite(space.network(arch))
    graph = schema.ModelT.InitFromObj(schema.Model.GetRootAs(program.model_bytes, 0)).subgraphs[0]
    rows = []
    for number, operator in enumerate(graph.operators):
        outputs = ", ".join(graph.tensors[index].name.decode() for index in operator.outputs)
        rows.append(f"  CONV_2D  0.1  0.1  2.000%  2.000%  0.0  1  [{outputs}]:{number}\n")
    text = "count=1 curr=9\nInference timings in us: Init: 1\n=== Run Order ===\nheader\n"
    nodes = parse_benchmark(text + "".join(rows)).nodes
    assert len(nodes) == len(graph.operators)
    assert {node.tensor for node in nodes} <= program.tensor_positions.keys()


def test_what_a_delegate_computed_is_known_as_such() -> None:
    result = parse_benchmark("count=1 curr=2\n\ncount=9 curr=411\n" + DELEGATED)
    inner, housekeeping = result.nodes
    assert inner.is_delegate
    assert inner.kind == "Fully Connected (NC, PF32) GEMM"
    assert not housekeeping.is_delegate
    assert (inner.tensor, housekeeping.tensor) == ("", "")


@pytest.mark.parametrize("ending", ["", "ERROR: Benchmarking failed.\n"])
def test_a_tool_that_did_not_come_to_its_end_has_measured_nothing(ending: str) -> None:
    cut = NEW[: NEW.index("INFO: count=50")] + ending
    with pytest.raises(MeasurementError, match="did not come to its end") as caught:
        parse_benchmark(cut)
    assert ending.strip() in str(caught.value)


@pytest.mark.parametrize(
    ("text", "placement"),
    [
        ("graph will be partially executed by the delegate w/ 2 delegate kernels.", PART),
        ("GPU delegate is explicitly applied, graph will not be executed by the delegate.", NONE),
        ("ERROR: Disallowed CPU fallback detected.", PART),
        ("Loaded model", ""),
    ],
)
def test_a_delegate_that_leaves_nodes_is_seen(text: str, placement: str) -> None:
    assert parse_placement(text) == placement
