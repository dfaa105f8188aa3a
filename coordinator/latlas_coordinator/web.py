"""An ASGI application behind uvicorn, inside an event loop that others use too."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn

from latlas_ops.errors import InvalidInputError, LatlasError

_POLL_S = 0.02
_GRACE_S = 2


class _Server(uvicorn.Server):
    """Part of a process: leaves signals alone and does not end the process if it cannot start."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit as error:
            raise RuntimeError("the application refused to start") from error


@asynccontextmanager
async def serve_web(app: Any, host: str, port: int) -> AsyncIterator[int]:
    """Serves an ASGI application while the context lasts.

    Args:
        app: the application.
        host: address to listen on.
        port: 0 takes a free one.

    Yields:
        The port.

    Raises:
        InvalidInputError: the address cannot be listened on.
        LatlasError: the application did not start; the log says why.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=_GRACE_S
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:
            if serving.done():
                raise LatlasError("the web page did not start; the log says why") from (
                    serving.exception()
                )
            await asyncio.sleep(_POLL_S)
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        await asyncio.wait({serving})
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise InvalidInputError(
            f"cannot serve the web page on {host} port {port}: {error.strerror or error}; choose "
            "another port, or 0 for a free one"
        ) from error
    return listener
