"""Nodes are named by what they compute, tensors by numbers: 0 → a → 1 → b → 2 and so on."""

from __future__ import annotations

from latlas_agent.runtimes.tflite_placement import TfliteNode, left_over


def node(op: str, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> TfliteNode:
    return TfliteNode(op, inputs, outputs)


CHAIN = (node("a", (0,), (1,)), node("b", (1,), (2,)), node("c", (2,), (3,)), node("d", (3,), (4,)))


def ops(found: tuple[TfliteNode, ...]) -> str:
    return "".join(one.op for one in found)


def test_without_pieces_everything_is_left() -> None:
    assert ops(left_over(CHAIN, (), {4})) == "abcd"


def test_a_piece_stands_for_all_between_its_inputs_and_outputs() -> None:
    assert ops(left_over(CHAIN, (node("DELEGATE", (0,), (4,)),), {4})) == ""
    assert ops(left_over(CHAIN, (node("DELEGATE", (1,), (3,)),), {4})) == "ad"


def test_several_pieces_leave_what_is_between_them() -> None:
    pieces = (node("DELEGATE", (0,), (1,)), node("DELEGATE", (2,), (4,)))
    assert ops(left_over(CHAIN, pieces, {4})) == "b"


def test_constants_and_branches_are_followed() -> None:
    branched = (
        node("split", (0, 9), (1, 2)),
        node("left", (1, 10), (3,)),
        node("right", (2,), (4,)),
        node("add", (3, 4), (5,)),
    )
    assert ops(left_over(branched, (node("DELEGATE", (0, 9, 10), (5,)),), {5})) == ""
    assert ops(left_over(branched, (node("DELEGATE", (0, 9, 10), (3, 2)),), {5})) == "rightadd"


def test_a_node_that_nobody_reads_is_passed_over() -> None:
    with_spare = (*CHAIN, node("spare", (2,), (5,)))
    assert ops(left_over(with_spare, (node("DELEGATE", (0,), (4,)),), {4})) == ""


def test_a_node_whose_other_output_is_read_counts() -> None:
    two_outputs = (node("a", (0,), (1, 2)),)
    assert ops(left_over(two_outputs, (), {2})) == "a"
