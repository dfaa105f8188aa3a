"""Pools of one-threaded workers, and the memory setting."""

from __future__ import annotations

import threading

import pytest
import torch

from latlas_nas.memory import keep_freed_memory
from latlas_nas.parallel import worker_pool


def test_results_come_in_the_order_of_the_items_from_one_threaded_workers() -> None:
    def square(number: int) -> tuple[int, int]:
        return number**2, torch.get_num_threads()

    before = torch.get_num_threads()
    with worker_pool(3) as pool:
        assert list(pool.map(square, range(20))) == [(number**2, 1) for number in range(20)]
    assert torch.get_num_threads() == before


def test_an_exception_drops_the_work_that_has_not_begun() -> None:
    begun: list[int] = []
    released = threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        released.wait(10)

    def interrupted() -> None:
        with worker_pool(1) as pool:
            pool.map(work, range(100))
            released.set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(begun) < 100


def test_the_memory_setting_can_be_made_again() -> None:
    assert keep_freed_memory() == keep_freed_memory()
