"""In which precision a network was really computed, as the types of its nodes tell.

Only onnxruntime says: what it fused into integer kernels is of a type of its own, and what it did
not is a float node between two conversions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from latlas_latency.program_details import NodeTime

_INTEGER_TYPES = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QAttention",
        "QEmbedLayerNormalization",
        "QGemm",
        "QOrderedMatMul",
    }
)
_CONVERTING_TYPES = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})
_MOVING_TYPES = frozenset(
    {
        "Concat",
        "Flatten",
        "Gather",
        "MaxPool",
        "NhwcMaxPool",
        "Pad",
        "ReorderInput",
        "ReorderOutput",
        "Reshape",
        "Resize",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)
"""Types that do not tell whether they move floats or integers."""


@dataclass(frozen=True)
class ComputedShares:
    """Shares of the time of all nodes, fractions that add up to 1.

    Attributes:
        integer: nodes that compute in integers.
        conversion: nodes that convert between integers and floats.
        moving: nodes that move values of either sort.
        floating: everything else.
    """

    integer: float
    conversion: float
    moving: float
    floating: float


def computed_shares(nodes: Iterable[NodeTime]) -> ComputedShares | None:
    """How much of a network was computed in integers; None where nothing was, nor converted.

    Args:
        nodes: of a program, as onnxruntime names them.
    """
    shares = dict.fromkeys(("integer", "conversion", "moving", "floating"), 0.0)
    for node in nodes:
        shares[_sort(node.node.split(" ", 1)[0])] += node.share
    found = ComputedShares(**shares)
    return found if found.integer + found.conversion > 0 else None


def precision_in_words(shares: ComputedShares) -> str:
    """What is printed of a quantised network: what was computed in which precision."""
    parts = [
        f"{share:.0%} {what}".replace("%", " %")
        for share, what in (
            (shares.integer, "in int8"),
            (shares.floating, "in float"),
            (shares.conversion, "in conversions"),
            (shares.moving, "in moving data"),
        )
        if share >= 0.005
    ]
    unused = "" if shares.integer > 0 else "; the runtime does not use its int8"
    return f"node time {', '.join(parts)}{unused}"


def _sort(kind: str) -> str:
    if kind in _INTEGER_TYPES or kind.startswith("QLinear"):
        return "integer"
    if kind in _CONVERTING_TYPES:
        return "conversion"
    return "moving" if kind in _MOVING_TYPES else "floating"
