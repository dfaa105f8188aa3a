"""What was computed in integers, by the types of onnxruntime's nodes."""

import pytest

from latlas_latency.computed_precision import ComputedShares, computed_shares, precision_in_words
from latlas_latency.program_details import NodeTime


def nodes(**shares):
    return [
        NodeTime(f"{kind} n{n}", "CPU", share * 1e6, share)
        for n, (kind, share) in enumerate(shares.items())
    ]


def test_types_tell_what_was_computed_how():
    found = computed_shares(
        nodes(QLinearConv=0.5, QGemm=0.1, HardSigmoid=0.2, QuantizeLinear=0.15, Transpose=0.05)
    )
    assert found == ComputedShares(pytest.approx(0.6), 0.15, 0.05, 0.2)
    assert precision_in_words(found) == (
        "node time 60 % in int8, 20 % in float, 15 % in conversions, 5 % in moving data"
    )


def test_a_network_that_is_only_rounded_says_so():
    found = computed_shares(nodes(Conv=0.7, QuantizeLinear=0.2, DequantizeLinear=0.1))
    assert precision_in_words(found) == (
        "node time 70 % in float, 30 % in conversions; the runtime does not use its int8"
    )


@pytest.mark.parametrize("given", [{}, {"Conv": 0.9, "Transpose": 0.1}])
def test_of_a_float_network_nothing_is_said(given):
    assert computed_shares(nodes(**given)) is None
