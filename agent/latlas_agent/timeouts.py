"""Waiting with a time limit, and through a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def within(timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled if it takes longer.

    Before Python 3.12 `asyncio.wait_for` swallows a cancellation that arrives together with the
    result; whoever cancelled then waits for ever.

    Raises:
        TimeoutError: it took longer than `timeout_s`.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        if done:
            return task.result()
        raise TimeoutError(f"not done within {timeout_s:g} s")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def through_cancellation(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which comes to its end even if the caller is cancelled meanwhile.

    Raises:
        CancelledError: the caller was cancelled; `work` is done.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
