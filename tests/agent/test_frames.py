from __future__ import annotations

import io
import struct

import pytest

from latlas_agent.frames import PREFIX_BYTES, Frame, frame_bytes, read_frame, write_frame
from latlas_ops.errors import ProtocolError


def test_frames_follow_one_another_on_a_stream() -> None:
    frames = [Frame("start", {"cores": [1]}, b"\x00\xff"), Frame("visit", {}), Frame("ready", {})]
    stream = io.BytesIO()
    for frame in frames:
        write_frame(stream, frame)
    stream.seek(0)
    assert [read_frame(stream) for _ in range(4)] == [*frames, None]


def test_a_frame_that_is_cut_short_is_the_end() -> None:
    encoded = Frame("visit", {"round": 3}, b"body").encode()
    for end in range(len(encoded)):
        assert read_frame(io.BytesIO(encoded[:end])) is None


@pytest.mark.parametrize("header", [b"{", b"[]", b"{}", b"\xff"])
def test_a_malformed_header_is_an_error(header: bytes) -> None:
    stream = io.BytesIO(struct.pack(">II", len(header), 0) + header)
    with pytest.raises(ProtocolError, match="malformed frame"):
        read_frame(stream)


def test_an_absurd_length_is_an_error_before_anything_is_read() -> None:
    with pytest.raises(ProtocolError, match="bytes announced"):
        frame_bytes(b"\xff" * PREFIX_BYTES)
