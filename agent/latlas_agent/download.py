"""Programs from the coordinator, over connections that may break."""

from __future__ import annotations

import asyncio
import logging
import random
import zlib
from collections.abc import AsyncIterator
from typing import cast

import grpc
import grpc.aio

from latlas_agent.backoff import backoff_delays_s
from latlas_agent.programs import Chunk
from latlas_agent.status import latlas_error_of
from latlas_ops.errors import CorruptProgramError, LatlasError, NotFoundError, ProtocolError
from latlas_protos.v1 import fleet_pb2, fleet_pb2_grpc

_LOG = logging.getLogger(__name__)

_TRANSIENT = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
    }
)


class ProgramDownload:
    """Downloads programs; a `latlas_agent.programs.Download`.

    Args:
        channel: to the coordinator.
        rng: the source of jitter between attempts.
    """

    def __init__(self, channel: grpc.aio.Channel, rng: random.Random) -> None:
        self._stub = cast(
            "fleet_pb2_grpc.FleetServiceAsyncStub", fleet_pb2_grpc.FleetServiceStub(channel)
        )
        self._rng = rng

    async def __call__(self, sha256: str, offset_bytes: int) -> AsyncIterator[Chunk]:
        """Yields the program's bytes from an offset on, however often the connection breaks.

        Raises:
            NotFoundError: the coordinator does not have the program.
            LatlasError: what else the coordinator says is wrong.
        """
        delays_s = backoff_delays_s(self._rng)
        while True:
            request = fleet_pb2.DownloadProgramRequest(sha256=sha256, offset_bytes=offset_bytes)
            try:
                async for piece in self._stub.DownloadProgram(request):
                    data = _decompressed(piece, sha256) if piece.compressed else piece.data
                    offset_bytes += len(data)
                    delays_s = backoff_delays_s(self._rng)
                    yield Chunk(data, piece.total_bytes)
                return
            except grpc.aio.AioRpcError as error:
                if error.code() not in _TRANSIENT:
                    raise _final(error, sha256) from error
                delay_s = next(delays_s)
                _LOG.warning(
                    "download of program %s broke (%s); trying again in %.1f s",
                    sha256[:12],
                    error.code().name,
                    delay_s,
                )
            await asyncio.sleep(delay_s)


def _decompressed(piece: fleet_pb2.ProgramChunk, sha256: str) -> bytes:
    """What a compressed piece holds, never more than the whole program may have."""
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(piece.data, max(1, piece.total_bytes))
    except zlib.error as error:
        raise CorruptProgramError(
            f"program {sha256[:12]} is corrupt: a piece of it cannot be decompressed ({error})"
        ) from error
    if not stream.eof or stream.unused_data:
        raise CorruptProgramError(f"program {sha256[:12]} is corrupt: a piece of it was cut")
    return data


def _final(error: grpc.aio.AioRpcError, sha256: str) -> LatlasError:
    refusal = latlas_error_of(error)
    if refusal is not None:
        return refusal
    if error.code() == grpc.StatusCode.NOT_FOUND:
        return NotFoundError(f"the coordinator does not have program {sha256[:12]}")
    return ProtocolError(
        f"program {sha256[:12]} cannot be downloaded: {error.code().name}: {error.details()}"
    )
