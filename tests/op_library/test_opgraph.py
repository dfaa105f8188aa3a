"""Op graphs: what torch programs travel as."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from latlas_ops import Network, OpSpec, get_space
from latlas_ops.errors import InvalidInputError
from latlas_ops.lowering import lower
from latlas_ops.weights import random_weights
from latlas_ops.writers.onnx_writer import write_onnx
from latlas_ops.writers.opgraph import read_opgraph, write_opgraph

NETWORK = Network.chain(
    [
        OpSpec.of("stem", (3, 16, 16), out_channels=8),
        OpSpec.of("head", (8, 8, 8), expanded_channels=16, classes=4),
    ]
)


def packed(**members: object) -> bytes:
    """An npz archive of bytes or arrays."""
    file = io.BytesIO()
    arrays = {
        name: np.frombuffer(value, dtype=np.uint8) if isinstance(value, bytes) else value
        for name, value in members.items()
    }
    np.savez(file, **arrays)
    return file.getvalue()


def header(**changes: object) -> bytes:
    """The header of a good op graph, with some fields changed."""
    record = {
        "format": "latlas-opgraph",
        "version": 1,
        "network": json.loads(NETWORK.to_json()),
        "seed": 0,
    }
    return json.dumps({**record, **changes}).encode()


def test_weights_come_back_bit_for_bit() -> None:
    weights = random_weights(lower(NETWORK), np.random.default_rng(3))
    network, found = read_opgraph(write_opgraph(NETWORK, weights).model_bytes)
    assert network == NETWORK
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(found[name], weight)


def test_random_weights_do_not_travel_and_are_those_of_every_writer() -> None:
    space = get_space("ofa-mobilenetv3")
    _, largest = space.archs(space.extremes())
    network = space.network(largest)
    program = write_opgraph(network, seed=7)
    assert len(program.model_bytes) < 20_000
    _, found = read_opgraph(program.model_bytes)
    expected = random_weights(lower(network), np.random.default_rng(7))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert program.tensor_positions == write_onnx(network).tensor_positions


def test_equal_input_gives_equal_bytes() -> None:
    assert write_opgraph(NETWORK).model_bytes == write_opgraph(NETWORK).model_bytes
    assert write_opgraph(NETWORK).model_bytes != write_opgraph(NETWORK, seed=1).model_bytes


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an op graph"),
        (b"\x9f\x03\x00\xff\x81\x00\x17\x2a", "not an op graph"),
        (write_opgraph(NETWORK).model_bytes[:200], "not an op graph"),
        (packed(weight=np.zeros(3)), "not an op graph.*header"),
        (packed(header=b"{"), "not an op graph"),
        (packed(header=b"[]"), "not an op graph"),
        (packed(header=header(version=2)), "version 2 is no latlas-opgraph 1"),
        (packed(header=header(format="other")), "'other' of version 1 is no latlas-opgraph 1"),
        (packed(header=header(seed=-1)), "its seed is -1"),
        (packed(header=header(network={"ops": []})), "not a network"),
        (packed(header=header(), stray=np.zeros(3, np.float32)), "is missing"),
    ],
)
def test_what_is_no_op_graph_is_refused_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        read_opgraph(data)


def test_pickles_are_never_read() -> None:
    file = io.BytesIO()
    np.savez(file, header=np.frombuffer(header(), dtype=np.uint8), weight=np.array([object()]))
    with pytest.raises(InvalidInputError, match=r"not an op graph.*pickle"):
        read_opgraph(file.getvalue())


def test_a_member_that_claims_to_be_huge_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        magic = b"\x93NUMPY\x01\x00"
        text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }\n"
        archive.writestr("header.npy", magic + len(text).to_bytes(2, "little") + text)
    with pytest.raises((InvalidInputError, MemoryError)):
        read_opgraph(file.getvalue())
