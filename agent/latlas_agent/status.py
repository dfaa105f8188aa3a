"""gRPC statuses as errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import grpc.aio

from latlas_ops.errors import LatlasError, from_wire

ERROR_METADATA_KEY = "latlas-error"
"""Trailing metadata that names the `latlas_ops.errors` class behind a status."""


def latlas_error_of(error: grpc.aio.AioRpcError) -> LatlasError | None:
    """The error that the other side raised; None if it did not raise one on purpose."""
    trailing = cast("Iterable[tuple[str, str]]", error.trailing_metadata() or ())
    code = dict(trailing).get(ERROR_METADATA_KEY)
    return None if code is None else from_wire(code, error.details() or code)
