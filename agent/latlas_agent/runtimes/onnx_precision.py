"""Whether an ONNX program is one for an int8 target."""

from __future__ import annotations

from latlas_agent.runtimes.onnx_graph import OnnxGraph
from latlas_latency.measurement import Target
from latlas_ops.errors import InvalidInputError

_HEAVY = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_QUANTISED = frozenset(
    {
        "ConvInteger",
        "DequantizeLinear",
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QuantizeLinear",
    }
)


def require_int8(graph: OnnxGraph, target: Target) -> None:
    """Refuses a program without a quantised node on a target in int8.

    Its figures would be those of float32 under the name of int8. One that holds nothing worth
    quantising, such as a single activation, is let through.

    Raises:
        InvalidInputError: the program computes in float alone.
    """
    if target.precision != "int8":
        return
    types = {node.op_type for node in graph.nodes}
    if types & _HEAVY and not types & _QUANTISED:
        raise InvalidInputError(
            f"target {target.name!r} is in int8, but no node of the program is quantised: "
            "quantise it first (`latlas quantise`), or measure it on a target in fp32"
        )
