"""A running coordinator settles campaigns, and does not stop where it cannot."""

import asyncio

from latlas_coordinator.handlers.settling import settle
from latlas_ops.errors import StorageError
from latlas_protos.v1 import fleet_pb2, query_pb2


def start(server, bench, n_extra_rounds):
    agent = bench.attached(server)
    bench.add_target(server)
    programs = [
        query_pb2.MeasuredProgram(
            sha256=bench.upload(server, f"program {i}".encode()), label=f"{i}"
        )
        for i in range(2)
    ]
    sampling = query_pb2.Sampling(
        n_rounds=3, warmup_runs=1, min_runs=3, timeout_ns=10**9, n_extra_rounds=n_extra_rounds
    )
    server.query.StartCampaign(
        query_pb2.StartCampaignRequest(
            name="m1",
            target="bench-ort",
            measure=query_pb2.MeasurePlan(programs=programs),
            sampling=sampling,
        )
    )
    return agent


def test_an_agent_is_asked_again_for_a_visit_that_stands_out(server, bench):
    agent = start(server, bench, n_extra_rounds=2)
    lease = agent.hear("lease")
    first, second = lease.items
    visits = [bench.visit(first, number) for number in range(3)]
    visits += [
        bench.visit(second, number, scale=2.0 if number == 1 else 1.0) for number in range(3)
    ]
    last = agent.report(lease, *visits)
    while agent.hear("acknowledgement").sequence < last:
        pass
    agent.say(finished=fleet_pb2.LeaseFinished(lease=bench.reference(lease)))
    again = agent.hear("lease")
    assert [(item.task_id, list(item.rounds)) for item in again.items] == [(second.task_id, [3])]
    agent.work(again)
    done = bench.finished(server)
    assert (done.state, done.n_visits_done) == (query_pb2.CAMPAIGN_STATE_FINISHED, 7)


def test_a_campaign_that_cannot_be_settled_is_tried_again(server, bench, monkeypatch):
    fails = iter([True])

    def settles(*given):
        if next(fails, False):
            raise StorageError("the medium is full")
        return settle(*given)

    monkeypatch.setattr("latlas_coordinator.live.dispatcher.settle", settles)
    agent = start(server, bench, n_extra_rounds=0)
    agent.work(agent.hear("lease"))
    assert bench.finished(server).state == query_pb2.CAMPAIGN_STATE_FINISHED


def test_a_campaign_that_can_never_be_settled_ends_with_the_reason(server, bench, monkeypatch):
    tries = []

    def never(*given):
        tries.append(given)
        raise ZeroDivisionError("a bug")

    waits = []
    sleep = asyncio.sleep

    async def briefly(seconds):
        waits.append(seconds)
        await sleep(min(seconds, 0.01))

    monkeypatch.setattr("latlas_coordinator.live.dispatcher.settle", never)
    monkeypatch.setattr("latlas_coordinator.live.dispatcher._sleep", briefly)
    agent = start(server, bench, n_extra_rounds=0)
    agent.work(agent.hear("lease"))
    done = bench.finished(server)
    assert done.state == query_pb2.CAMPAIGN_STATE_FINISHED
    assert list(done.findings.remarks) == ["its visits could not be looked at: a bug"]
    assert done.n_visits_done == 6
    assert len(tries) == 5
    assert waits == [1, 2, 4, 8]
