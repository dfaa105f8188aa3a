"""Reports that arrive while a transaction runs are committed together in the next one."""

import asyncio
import threading

from latlas_coordinator.domain import RecordedBatch, ReportBatch
from latlas_coordinator.live.committer import ReportCommitter
from latlas_coordinator.live.workers import Workers
from latlas_ops.errors import StorageError


class SlowStore:
    """Records which batches were committed together; the first transaction waits for `go`."""

    def __init__(self):
        self.groups = []
        self.go = threading.Event()
        self.refuses = set()

    def record_reports(self, batches, now_ns):
        if not self.groups:
            self.go.wait(10)
        self.groups.append([batch.agent_id for batch in batches])
        if self.refuses & {batch.agent_id for batch in batches}:
            raise StorageError("the disk is full")
        return [RecordedBatch(batch.epoch) for batch in batches]


def commit_all(store, names):
    """Commits a batch per name, the first one before the others arrive."""

    async def main():
        workers = Workers()
        committer = ReportCommitter(store, workers, lambda: 1)
        running = asyncio.create_task(committer.run())
        first = asyncio.create_task(committer.commit(ReportBatch(names[0], 0, ())))
        await asyncio.sleep(0.05)
        others = [
            asyncio.create_task(committer.commit(ReportBatch(name, number, ())))
            for number, name in enumerate(names[1:], start=1)
        ]
        await asyncio.sleep(0.05)
        store.go.set()
        results = await asyncio.gather(first, *others, return_exceptions=True)
        running.cancel()
        workers.close()
        return results

    return asyncio.run(main())


def test_what_arrives_meanwhile_is_committed_together():
    store = SlowStore()
    results = commit_all(store, ["a", "b", "c", "d"])
    assert store.groups == [["a"], ["b", "c", "d"]]
    assert [result.last_sequence for result in results] == [0, 1, 2, 3]


def test_reports_that_cannot_be_committed_do_not_hold_up_the_others():
    store = SlowStore()
    store.refuses = {"c"}
    results = commit_all(store, ["a", "b", "c", "d"])
    assert [type(result) for result in results] == [
        RecordedBatch,
        RecordedBatch,
        StorageError,
        RecordedBatch,
    ]
    assert store.groups == [["a"], ["b", "c", "d"], ["b"], ["c"], ["d"]]


def test_the_committer_goes_on_after_an_error():
    store = SlowStore()
    store.refuses = {"a"}
    results = commit_all(store, ["a", "b"])
    assert isinstance(results[0], StorageError)
    assert results[1].last_sequence == 1
