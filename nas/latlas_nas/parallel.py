"""Work on several cores at once, with results that do not depend on how many there are.

Each piece of work runs on one thread of torch. That is faster than letting torch split every
small convolution over the cores, it suffers less when a core is busy with something else, and the
arithmetic of a piece is the same however many run beside it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Pool:
    """Threads that run a function on items side by side; each gives torch one thread."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The result of `function` for every item, in the order of the items."""
        return self._executor.map(function, items)


@contextmanager
def worker_pool(workers: int | None = None) -> Iterator[Pool]:
    """A pool for as long as the context lasts.

    Args:
        workers: how many; by default as many as this process may use cores.

    Leaving the context, also by an exception, ends the pool: pieces that run are waited for,
    those that have not begun are dropped.
    """
    count = len(os.sched_getaffinity(0)) if workers is None else workers
    executor = ThreadPoolExecutor(count, "latlas-nas", torch.set_num_threads, (1,))
    try:
        yield Pool(executor)
    finally:
        executor.shutdown(cancel_futures=True)
