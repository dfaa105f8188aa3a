from __future__ import annotations

import asyncio

import pytest

from latlas_agent.timeouts import through_cancellation, within


def test_work_within_its_time_gives_its_result() -> None:
    async def work() -> int:
        return 7

    assert asyncio.run(within(1.0, work())) == 7


def test_work_beyond_its_time_is_cancelled() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    with pytest.raises(TimeoutError, match=r"not done within 0\.01 s"):
        asyncio.run(within(0.01, work()))
    assert ended == ["cancelled"]


def test_an_error_of_the_work_passes_through() -> None:
    async def work() -> None:
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd"):
        asyncio.run(within(1.0, work()))


def test_a_cancellation_that_arrives_with_the_result_is_not_swallowed() -> None:
    async def run() -> None:
        gate = asyncio.Event()
        waiting = asyncio.create_task(within(60.0, gate.wait()))
        await asyncio.sleep(0.01)
        gate.set()
        await asyncio.sleep(0)  # the inner wait is done, the outer one has not seen it yet
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(run())


def test_work_goes_to_its_end_through_a_cancellation() -> None:
    steps: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.05)
        steps.append("done")

    async def run() -> None:
        caller = asyncio.create_task(through_cancellation(work()))
        await asyncio.sleep(0.01)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert steps == ["done"]

    asyncio.run(run())
