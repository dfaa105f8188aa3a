from __future__ import annotations

import asyncio

import numpy as np
import pytest

from latlas_agent.outbox import Outbox
from latlas_agent.tasks import Failure
from latlas_latency.measurement import WHOLE_NETWORK, Series, Visit
from latlas_protos.v1 import fleet_pb2

LEASE = fleet_pb2.LeaseReference(lease_id="lease-1", fencing_token=7)
FAILURE = Failure("t1", "MeasurementError", "it crashed")


def visit(n_runs: int = 3) -> Visit:
    series = Series(WHOLE_NETWORK, np.arange(1, n_runs + 1))
    return Visit("t1", "device-1", 0, "plain", 1, 1, 0, (series,))


def sequences(reports: list[fleet_pb2.Report]) -> list[int]:
    return [report.sequence for report in reports]


def test_reports_are_numbered_from_one_and_kept_until_acknowledged() -> None:
    async def run() -> None:
        outbox = Outbox()
        assert [await outbox.put(LEASE, FAILURE) for _ in range(3)] == [1, 2, 3]
        assert sequences(outbox.batch_after(0)) == [1, 2, 3]
        outbox.acknowledge(2)
        assert sequences(outbox.batch_after(0)) == [3]
        assert outbox.acknowledged == 2
        assert await outbox.put(LEASE, FAILURE) == 4

    asyncio.run(run())


def test_a_report_carries_its_lease_and_its_outcome() -> None:
    async def run() -> None:
        outbox = Outbox()
        await outbox.put(LEASE, visit())
        await outbox.put(LEASE, FAILURE)
        first, second = outbox.batch_after(0)
        assert first.lease == second.lease == LEASE
        assert first.visit.task_id == "t1"
        assert second.failure.error_code == "MeasurementError"
        assert second.failure.reason == "it crashed"

    asyncio.run(run())


def test_what_was_sent_already_is_not_in_the_next_batch() -> None:
    async def run() -> None:
        outbox = Outbox()
        for _ in range(100):
            await outbox.put(LEASE, FAILURE)
        first = sequences(outbox.batch_after(0))
        second = sequences(outbox.batch_after(first[-1]))
        assert first == list(range(1, 65))
        assert second == list(range(65, 101))
        assert outbox.batch_after(100) == []

    asyncio.run(run())


def test_a_batch_fits_a_message_but_one_report_always_goes() -> None:
    async def run() -> None:
        outbox = Outbox(max_bytes=1 << 30)
        for n_runs in (300_000, 300_000, 900_000, 10):
            await outbox.put(LEASE, visit(n_runs))
        sent, batches = 0, []
        while batch := outbox.batch_after(sent):
            batches.append(sequences(batch))
            sent = batches[-1][-1]
        assert batches == [[1], [2], [3], [4]]

    asyncio.run(run())


def test_a_full_outbox_waits_for_acknowledgements() -> None:
    async def run() -> None:
        outbox = Outbox(max_bytes=100)
        await outbox.put(LEASE, visit(100))
        waiting = asyncio.create_task(outbox.put(LEASE, FAILURE))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting), 0.05)
        outbox.acknowledge(1)
        assert await asyncio.wait_for(waiting, 1) == 2

    asyncio.run(run())
