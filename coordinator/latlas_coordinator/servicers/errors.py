"""The one place where errors become status codes.

A `LatlasError` becomes a status and its class name in the trailing metadata `latlas-error`, from
which the other side raises the same class again. Anything else is a bug: it is logged with its
traceback, and the caller hears no more than that.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio

from latlas_ops import errors
from latlas_ops.errors import LatlasError, wire_code

_LOG = logging.getLogger(__name__)

ERROR_METADATA_KEY = "latlas-error"

# Details travel in a header, of which a client takes 8 KiB in all.
_MAX_DETAILS_CHARACTERS = 2_000

_STATUS: dict[type[LatlasError], grpc.StatusCode] = {
    errors.InvalidInputError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: grpc.StatusCode.NOT_FOUND,
    errors.ConflictError: grpc.StatusCode.ALREADY_EXISTS,
    errors.UnknownOpError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TargetMismatchError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SpaceMismatchError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.RuntimeUnavailableError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CorruptProgramError: grpc.StatusCode.DATA_LOSS,
    errors.MeasurementError: grpc.StatusCode.ABORTED,
    errors.NotAdditiveError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.InfeasibleError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.UnreachableError: grpc.StatusCode.UNAVAILABLE,
    errors.ProtocolError: grpc.StatusCode.FAILED_PRECONDITION,
    errors.StorageError: grpc.StatusCode.INTERNAL,
    errors.MissingDependencyError: grpc.StatusCode.UNIMPLEMENTED,
}

if TYPE_CHECKING:
    # Generic in the stubs only.
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
    Interceptor = grpc.aio.ServerInterceptor[Any, Any]
else:
    Interceptor = grpc.aio.ServerInterceptor

_Behaviour = Callable[[Any, "Context"], Awaitable[Any]]


def status_of(error: LatlasError) -> grpc.StatusCode:
    """The status code of an error: that of the nearest class that has one."""
    for cls in type(error).__mro__:
        if cls in _STATUS:
            return _STATUS[cls]
    return grpc.StatusCode.UNKNOWN


class ErrorInterceptor(Interceptor):
    """Translates what handlers raise, in all four kinds of calls.

    Handlers are coroutines throughout; those with a stream of responses write to the context. A
    generator that its caller abandons is cleaned up at some time, a coroutine at once.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wraps the handler of a call; called by gRPC."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        for kind, make in _KINDS.items():
            behaviour = getattr(handler, kind)
            if behaviour is not None:
                return make(
                    _translated(handler_call_details.method, behaviour),
                    request_deserializer=handler.request_deserializer,
                    response_serializer=handler.response_serializer,
                )
        return handler


_KINDS: Mapping[str, Callable[..., Handler]] = {
    "unary_unary": grpc.unary_unary_rpc_method_handler,
    "unary_stream": grpc.unary_stream_rpc_method_handler,
    "stream_unary": grpc.stream_unary_rpc_method_handler,
    "stream_stream": grpc.stream_stream_rpc_method_handler,
}


def _translated(method: str, behaviour: _Behaviour) -> _Behaviour:
    async def call(request: Any, context: Context) -> Any:
        try:
            return await behaviour(request, context)
        except Exception as error:
            await _abort(method, context, error)

    return call


async def _abort(method: str, context: Context, error: Exception) -> NoReturn:
    if isinstance(error, LatlasError):
        _LOG.info("%s: %s: %s", method, type(error).__name__, error)
        details = str(error)[:_MAX_DETAILS_CHARACTERS]
        await context.abort(status_of(error), details, ((ERROR_METADATA_KEY, wire_code(error)),))
    if isinstance(error, grpc.aio.AbortError):
        raise error
    _LOG.error("%s failed unexpectedly", method, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "internal error; the coordinator's log says more")
    raise AssertionError("abort always raises")
