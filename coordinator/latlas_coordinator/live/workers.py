"""Threads for what would block the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_N_STORE_THREADS = 4
_N_COMPUTE_THREADS = 2
_N_SETTLE_THREADS = 1

P = ParamSpec("P")
T = TypeVar("T")


class Workers:
    """Groups of threads: nothing is queued behind what takes longer than itself."""

    def __init__(self) -> None:
        self._store = ThreadPoolExecutor(_N_STORE_THREADS, thread_name_prefix="store")
        self._compute = ThreadPoolExecutor(_N_COMPUTE_THREADS, thread_name_prefix="compute")
        self._settle = ThreadPoolExecutor(_N_SETTLE_THREADS, thread_name_prefix="settle")

    async def store(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs what takes milliseconds: transactions of the store."""
        return await _run(self._store, function, *args, **kwargs)

    async def compute(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs what takes seconds or minutes: planning, writing programs, fitting models."""
        return await _run(self._compute, function, *args, **kwargs)

    async def settle(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs what takes seconds and devices wait for: looking at campaigns that are done."""
        return await _run(self._settle, function, *args, **kwargs)

    def close(self) -> None:
        """Waits for what runs and drops what does not run yet."""
        self._compute.shutdown(wait=True, cancel_futures=True)
        self._settle.shutdown(wait=True, cancel_futures=True)
        self._store.shutdown(wait=True, cancel_futures=True)


async def _run(
    pool: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(pool, lambda: function(*args, **kwargs))
