"""The web page's server: it starts and ends with its context, and leaves signals alone."""

import asyncio
import signal
import urllib.request

import pytest

from latlas_coordinator.web import serve_web
from latlas_ops.errors import InvalidInputError, LatlasError


async def hello(scope, receive, send):
    """The smallest ASGI application."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{kind}.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def broken(scope, receive, send):
    """An application that cannot start."""
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no"})


def test_an_application_is_served_on_a_free_port():
    async def main():
        handler = signal.getsignal(signal.SIGTERM)
        async with serve_web(hello, "127.0.0.1", 0) as port:
            assert signal.getsignal(signal.SIGTERM) is handler
            url = f"http://127.0.0.1:{port}/"
            answer = await asyncio.to_thread(urllib.request.urlopen, url)
            with answer:
                assert answer.read() == b"hello"
        with pytest.raises(OSError, match="refused"):
            await asyncio.to_thread(urllib.request.urlopen, url)

    asyncio.run(main())


def test_a_port_that_is_taken_is_named():
    async def main():
        async with serve_web(hello, "127.0.0.1", 0) as port:
            with pytest.raises(InvalidInputError, match=rf"on 127.0.0.1 port {port}"):
                async with serve_web(hello, "127.0.0.1", port):
                    pass

    asyncio.run(main())


def test_an_application_that_does_not_start_is_an_error():
    async def main():
        with pytest.raises(LatlasError, match="the web page did not start"):
            async with serve_web(broken, "127.0.0.1", 0):
                pass

    asyncio.run(main())
