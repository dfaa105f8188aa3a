"""The channel to a coordinator, and its errors as the classes that its handlers raised."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import TypeVar

import grpc

from latlas_ops.errors import (
    InvalidInputError,
    LatlasError,
    ProtocolError,
    UnreachableError,
    from_wire,
)
from latlas_protos.v1.query_pb2_grpc import QueryServiceStub

DEFAULT_PORT = 7443
DEFAULT_ADDRESS = f"127.0.0.1:{DEFAULT_PORT}"

ERROR_METADATA_KEY = "latlas-error"

CALL_TIMEOUT_S = 30.0
MAX_MESSAGE_BYTES = 64 * 1024 * 1024

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A dead coordinator is noticed within 40 s even where the network stays silent.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # A coordinator that was restarted is found again within two seconds.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Coordinators are in the laboratory, web proxies lead out of it.
    ("grpc.enable_http_proxy", 0),
)

_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.%\w]+\]|[\w.-]+)(?::(?P<port>\d{1,5}))?", re.ASCII)

Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")


def parse_address(text: str) -> str:
    """`HOST:PORT` from `HOST` or `HOST:PORT`; an IPv6 host stands in brackets.

    Raises:
        InvalidInputError: it is neither.
    """
    match = _ADDRESS.fullmatch(text.strip())
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 1 <= port <= 65535:
        raise InvalidInputError(
            f"coordinator address {text!r} is not HOST:PORT, for example {DEFAULT_ADDRESS}"
        )
    return f"{match['host']}:{port}"


class Connection:
    """An insecure channel to one coordinator. Nothing is sent before the first call.

    Attributes:
        address: `HOST:PORT`.
        stub: the calls; use them through `call`, `run` and `stream`.

    Raises:
        InvalidInputError: the address is malformed.
    """

    def __init__(self, address: str = DEFAULT_ADDRESS) -> None:
        self.address = parse_address(address)
        self._channel = grpc.insecure_channel(self.address, options=_CHANNEL_OPTIONS)
        self.stub = QueryServiceStub(self._channel)

    def close(self) -> None:
        """Ends all calls and frees the channel."""
        self._channel.close()

    def call(
        self,
        method: grpc.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Response:
        """One request, one answer.

        Raises:
            LatlasError: the class that the handler raised.
            UnreachableError: nobody answers, or not within `timeout_s`.
            ProtocolError: whoever answers does not know the call.
        """
        return self.run(lambda: method(request, timeout=timeout_s))

    def run(self, work: Callable[[], Result]) -> Result:
        """The result of `work`, which uses `stub`; errors as those of `call`."""
        try:
            return _out_of_reach(work)
        except grpc.RpcError as error:
            raise to_latlas_error(error, self.address) from error

    def stream(
        self, method: grpc.UnaryStreamMultiCallable[Request, Response], request: Request
    ) -> Generator[Response]:
        """One request, answers for as long as there are any; errors as those of `call`.

        Close the generator to end the call early.
        """
        call = self.run(lambda: method(request))
        answers: queue.SimpleQueue[tuple[Response | None, Exception | None]] = queue.SimpleQueue()

        def read() -> None:
            try:
                for answer in call:
                    answers.put((answer, None))
                answers.put((None, None))
            except Exception as error:
                answers.put((None, error))

        threading.Thread(target=read, name="latlas-stream", daemon=True).start()
        try:
            while True:
                answer, error = answers.get()
                if isinstance(error, grpc.RpcError):
                    raise to_latlas_error(error, self.address) from error
                if error is not None:
                    raise error
                if answer is None:
                    return
                yield answer
        finally:
            call.cancel()  # type: ignore[no-untyped-call]  # untyped in grpc-stubs


def _out_of_reach(work: Callable[[], Result]) -> Result:
    """Runs `work` in a thread of its own, out of reach of Ctrl-C, and waits for it.

    An interrupt inside gRPC leaves behind a call that nobody finishes, and closing or freeing the
    channel waits for it for ever. Here an interrupt ends the waiting alone; closing the channel
    then ends the call.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    result: Future[Result] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, name="latlas-call", daemon=True).start()
    return result.result()


def to_latlas_error(error: grpc.RpcError, address: str) -> LatlasError:
    """The error that a failed call to the coordinator at `address` stands for."""
    if not isinstance(error, grpc.Call):
        return LatlasError(f"call to the coordinator at {address} failed: {error}")
    details = error.details() or ""
    for key, value in error.trailing_metadata() or ():
        if key == ERROR_METADATA_KEY:
            return from_wire(value if isinstance(value, str) else value.decode(), details)
    status = error.code()
    if status is grpc.StatusCode.UNAVAILABLE:
        return UnreachableError(
            f"no coordinator answers at {address}; start one with `latlas serve`, or give the "
            "address of one that runs"
        )
    if status is grpc.StatusCode.CANCELLED:
        return UnreachableError(f"the coordinator at {address} ended the call")
    if status is grpc.StatusCode.DEADLINE_EXCEEDED:
        return UnreachableError(f"the coordinator at {address} did not answer in time")
    if status is grpc.StatusCode.UNIMPLEMENTED:
        return ProtocolError(
            f"what answers at {address} is not a coordinator of this version of latlas; update "
            "the older of the two"
        )
    first_line = details.splitlines()[0] if details else f"status {status.name}, see its log"
    return LatlasError(f"the coordinator at {address} failed: {first_line}")
