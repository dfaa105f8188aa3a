"""The coordinator as a server: opens the store, binds, serves until it is told to stop."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from latlas_coordinator.live.coordinator import Coordinator
from latlas_coordinator.scheduling import LeasePolicy
from latlas_coordinator.servicers.errors import ErrorInterceptor
from latlas_coordinator.servicers.fleet import FleetServicer
from latlas_coordinator.servicers.query import QueryServicer
from latlas_coordinator.storage import Store, database_file, open_store
from latlas_coordinator.storage.lock import exclusive
from latlas_coordinator.web import serve_web
from latlas_ops.errors import InvalidInputError
from latlas_protos.v1 import fleet_pb2_grpc, query_pb2_grpc

if TYPE_CHECKING:
    from fastapi import FastAPI

_LOG = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 64 << 20

_GRACE_S = 5.0
_SERVICES = ("", "latlas_protos.v1.FleetService", "latlas_protos.v1.QueryService")
_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # An agent whose board has lost its power is noticed within 30 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Agents may ping every 10 s, also while nobody says anything.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    # Two coordinators on one port would share what comes in at random.
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True)
class ServerAddresses:
    """Where a server can be reached, each `HOST:PORT`.

    Attributes:
        grpc: for agents and clients.
        http: the web page; None if it is not served.
    """

    grpc: str
    http: str | None = None


def run_server(
    database: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = 7443,
    http_port: int | None = None,
    insecure: bool = False,
    ready_file: Path | None = None,
    policy: LeasePolicy | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM, and logs to standard error.

    Args:
        database: see `serve`, as the other arguments.
        host: address to listen on.
        port: of agents and clients.
        http_port: of the web page.
        insecure: listen beyond this machine.
        ready_file: gets the addresses as JSON, `{"grpc": "HOST:PORT", "http": ...}`, as soon as
            the server answers.
        policy: how work is handed out.

    Raises: as `serve`.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )

    def on_ready(addresses: ServerAddresses) -> None:
        _LOG.info("ready at %s, web page at %s", addresses.grpc, addresses.http)
        if ready_file is not None:
            _write_at_once(ready_file, json.dumps(dataclasses.asdict(addresses)))

    async def until_signal() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            # Where the platform's loop has no signal handlers, Ctrl-C interrupts as usual.
            with suppress(NotImplementedError):
                loop.add_signal_handler(number, stop.set)
        await serve(
            database=database,
            host=host,
            port=port,
            http_port=http_port,
            insecure=insecure,
            on_ready=on_ready,
            stop=stop,
            policy=policy,
        )

    asyncio.run(until_signal())


async def serve(
    *,
    database: Path | str,
    host: str,
    port: int,
    http_port: int | None,
    insecure: bool,
    on_ready: Callable[[ServerAddresses], None],
    stop: asyncio.Event,
    policy: LeasePolicy | None = None,
) -> None:
    """Serves until `stop` is set, then ends streams, commits what has come in, and closes.

    Args:
        database: file, `":memory:"` or URL; see `open_store`.
        host: address to listen on.
        port: of agents and clients; 0 takes a free one.
        http_port: of the web page; 0 takes a free one, None serves no page.
        insecure: listen beyond this machine although nothing is encrypted and nobody checked.
        on_ready: called once with the addresses as soon as the server answers.
        stop: ends the server.
        policy: how work is handed out.

    Raises:
        InvalidInputError: the address is not of this machine and `insecure` is not set, or it
            cannot be listened on.
        StorageError: the database cannot be used, or another coordinator uses it.
    """
    require_safe(host, insecure)
    async with AsyncExitStack() as stack:
        path = database_file(database)
        if path is not None:
            stack.enter_context(exclusive(path))
        store = await asyncio.to_thread(open_store, database)
        stack.callback(store.close)
        coordinator = Coordinator(store, policy)
        await coordinator.start()
        stack.push_async_callback(coordinator.stop)
        bound_port = await stack.enter_async_context(_grpc_server(coordinator, host, port))
        http = None
        if http_port is not None:
            page = _page(store, connect_to=_address(host, bound_port))
            web_port = await stack.enter_async_context(serve_web(page, host, http_port))
            http = _address(host, web_port)
        on_ready(ServerAddresses(_address(host, bound_port), http))
        await stop.wait()
        _LOG.info("stopping")


def require_safe(host: str, insecure: bool) -> None:
    """Raises `InvalidInputError` for an address beyond this machine, unless `insecure`."""
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if not is_loopback and not insecure:
        raise InvalidInputError(
            f"{host} can be reached from other machines, and nothing is encrypted or checked yet: "
            "listen on 127.0.0.1 and tunnel (ssh -L), or pass --insecure in a network you trust"
        )


@asynccontextmanager
async def _grpc_server(coordinator: Coordinator, host: str, port: int) -> AsyncIterator[int]:
    """Serves both services while the context lasts; gives the port."""
    server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=_OPTIONS)
    fleet_pb2_grpc.add_FleetServiceServicer_to_server(FleetServicer(coordinator), server)
    query_pb2_grpc.add_QueryServiceServicer_to_server(QueryServicer(coordinator), server)
    checks = health.aio.HealthServicer()  # type: ignore[attr-defined]  # not in its stubs
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    try:
        bound_port = server.add_insecure_port(_address(host, port))
    except RuntimeError as error:
        raise InvalidInputError(
            f"cannot listen on {_address(host, port)}: the port is taken or the address is not of "
            "this machine; choose another, or port 0 for a free one"
        ) from error
    await server.start()
    for service in _SERVICES:
        await checks.set(service, health_pb2.HealthCheckResponse.SERVING)
    try:
        yield bound_port
    finally:
        await checks.enter_graceful_shutdown()
        coordinator.end_sessions()
        await server.stop(_GRACE_S)


def _page(store: Store, connect_to: str) -> FastAPI:
    """The web page on a store. Imported late: it brings a web framework."""
    from latlas_coordinator.dashboard import create_app

    return create_app(store, connect_to=connect_to)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _write_at_once(path: Path, text: str) -> None:
    """Writes a file such that a reader sees all of it or nothing."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text)
    os.replace(partial, path)
