"""Messages between an agent and its worker: a JSON header and bytes, both length-prefixed."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

from latlas_ops.errors import ProtocolError

_LENGTHS = struct.Struct(">II")
PREFIX_BYTES = _LENGTHS.size
_MAX_FRAME_BYTES = 256 << 20


@dataclass(frozen=True)
class Frame:
    """One message: what it is, named values, and a payload."""

    kind: str
    values: dict[str, Any]
    body: bytes = b""

    def encode(self) -> bytes:
        """The bytes that travel."""
        header = json.dumps({"kind": self.kind, **self.values}).encode()
        return _LENGTHS.pack(len(header), len(self.body)) + header + self.body

    @classmethod
    def decode(cls, prefix: bytes, rest: bytes) -> Frame:
        """The frame of its prefix and what follows it."""
        header_bytes, _ = _LENGTHS.unpack(prefix)
        try:
            values = json.loads(rest[:header_bytes])
            kind = values.pop("kind")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProtocolError(f"malformed frame between agent and worker: {error!r}") from error
        return cls(kind, values, rest[header_bytes:])


def frame_bytes(prefix: bytes) -> int:
    """How many bytes follow a prefix; raises `ProtocolError` if that cannot be right."""
    total: int = sum(_LENGTHS.unpack(prefix))
    if total > _MAX_FRAME_BYTES:
        raise ProtocolError(f"malformed frame between agent and worker: {total} bytes announced")
    return total


def read_frame(stream: BinaryIO) -> Frame | None:
    """The next frame of a blocking stream; None at its end."""
    prefix = stream.read(PREFIX_BYTES)
    if len(prefix) < PREFIX_BYTES:
        return None
    wanted = frame_bytes(prefix)
    rest = stream.read(wanted)
    return Frame.decode(prefix, rest) if len(rest) == wanted else None


def write_frame(stream: BinaryIO, frame: Frame) -> None:
    """Writes a frame to a blocking stream at once."""
    stream.write(frame.encode())
    stream.flush()
