from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from latlas_agent.runtimes.tflite_graph import check_tflite
from latlas_ops.errors import CorruptProgramError

WriteModel = Callable[..., bytes]


@pytest.fixture
def model(tflite_model: WriteModel) -> bytes:
    return tflite_model("RELU", "SIGN", "unheard_of")


def test_it_counts_nodes(model: bytes) -> None:
    assert check_tflite(model) == 3


def test_another_kind_of_file_is_named_as_such(model: bytes) -> None:
    for data in (b"", b"TFL3", bytes(64), model[:4] + b"TFL2" + model[8:]):
        with pytest.raises(CorruptProgramError, match="not a TFLite model: its bytes 4 to 8"):
            check_tflite(data)


def test_a_file_that_is_only_an_identifier_is_corrupt() -> None:
    for data in (b"\0\0\0\0TFL3", b"\xff\xff\xff\xffTFL3", b"\x14\0\0\0TFL3" + bytes(40)):
        with pytest.raises(CorruptProgramError):
            check_tflite(data)


def test_a_model_that_lost_a_quarter_is_corrupt(model: bytes) -> None:
    for size in range(8, len(model) * 3 // 4):
        with pytest.raises(CorruptProgramError):
            check_tflite(model[:size])


def test_a_number_beyond_what_the_model_holds_is_named(tflite_model: WriteModel) -> None:
    damaged = _with_opcode_index(tflite_model("RELU", "SIGN"), 1, 9)
    with pytest.raises(CorruptProgramError, match="operator code 9 is named, but it holds 2"):
        check_tflite(damaged)


def test_what_a_tensor_or_a_node_points_to_beyond_the_file_is_found(
    tflite_model: WriteModel,
) -> None:
    model = _with_custom_options(
        tflite_model("RELU", "unheard_of", signature=(-1, 4, 4, 2), dtype="INT8", scale=0.5)
    )
    check_tflite(model)
    for parts, field in (
        (("Subgraphs", "Tensors"), 0),  # shape
        (("Subgraphs", "Tensors"), 7),  # shape with free axes
        (("Subgraphs", "Tensors"), 3),  # name
        (("Subgraphs", "Tensors", "Quantization"), 2),  # scales
        (("Subgraphs", "Tensors", "Quantization"), 3),  # zero points
        (("Subgraphs", "Operators"), 5),  # custom options
        (("OperatorCodes",), 1),  # name of a custom operator
        (("Subgraphs",), 4),  # name
    ):
        place = _vector_of(model, parts, field)
        damaged = model[:place] + len(model).to_bytes(4, "little") + model[place + 4 :]
        with pytest.raises(CorruptProgramError, match="damaged or cut short"):
            check_tflite(damaged)


def test_a_name_without_an_end_is_found(tflite_model: WriteModel) -> None:
    model = tflite_model("RELU")
    place = _vector_of(model, ("Subgraphs", "Tensors"), 3)
    end = place + 4 + int.from_bytes(model[place : place + 4], "little")
    with pytest.raises(CorruptProgramError, match="damaged or cut short"):
        check_tflite(model[:end] + b"x" + model[end + 1 :])


def test_damage_of_any_kind_ends_in_an_answer(model: bytes) -> None:
    rng = random.Random(3)
    for _ in range(3000):
        damaged = bytearray(model)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(8, len(damaged))] = rng.choice((0, 1, 127, 128, 255))
        try:
            check_tflite(bytes(damaged))
        except CorruptProgramError:
            continue


def _with_opcode_index(model: bytes, old: int, new: int) -> bytes:
    """The model with the operator code of one node changed, wherever the file keeps it."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.Model.GetRootAs(model).Subgraphs(0)
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        if operator.OpcodeIndex() == old:
            place = operator._tab.Pos + operator._tab.Offset(4)
            return model[:place] + new.to_bytes(4, "little") + model[place + 4 :]
    raise AssertionError("no node has that operator code")


def _with_custom_options(model: bytes) -> bytes:
    """The model with custom options for its last node."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    unpacked = schema.ModelT.InitFromPackedBuf(model)
    unpacked.subgraphs[0].operators[-1].customOptions = [1, 2, 3]
    builder = flatbuffers.Builder(1024)
    builder.Finish(unpacked.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _vector_of(model: bytes, parts: tuple[str, ...], field: int) -> int:
    """Where the vector or string in a field lies, of the last of each list of parts."""
    from ai_edge_litert import schema_py_generated as schema

    table = schema.Model.GetRootAs(model)
    for part in parts:
        length = getattr(table, f"{part}Length", None)
        table = getattr(table, part)(*(() if length is None else (length() - 1,)))
    place = int(table._tab.Pos + table._tab.Offset(4 + 2 * field))
    assert place != table._tab.Pos, f"field {field} of {parts} is left out"
    return place + int.from_bytes(model[place : place + 4], "little")
