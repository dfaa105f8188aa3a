"""A campaign looks at its own visits, and has visited again what cannot be right, unasked."""

import dataclasses
import itertools

import numpy as np
import pytest

from latlas.messages import campaign_status
from latlas_coordinator.domain import (
    CampaignState,
    Findings,
    Report,
    ReportBatch,
    Role,
    Sampling,
    Suspicion,
    SuspicionKind,
    TaskFailure,
)
from latlas_coordinator.handlers import campaigns, latency_models
from latlas_coordinator.handlers.campaigns import CampaignDefinition, start_campaign
from latlas_coordinator.handlers.fleet import dispatch
from latlas_coordinator.handlers.measurements import list_measurements
from latlas_coordinator.handlers.settling import settle
from latlas_coordinator.handlers.suspicion import find_suspicions
from latlas_coordinator.messages import campaign_message
from latlas_coordinator.scheduling import LeasePolicy
from latlas_coordinator.storage import open_store
from latlas_coordinator.writing import write_program
from latlas_latency.formats import load_latency_model
from latlas_latency.measurement import PROFILED, Series
from latlas_latency.precision import cover_noise
from latlas_ops.errors import InvalidInputError

POLICY = LeasePolicy(duration_ns=10**15)
VISIT_NS = 1_000_000


class Live:
    """A store with a device that works on whatever it is leased, round by round, in time."""

    def __init__(self, store, imagined, sampling, **plan):
        self.store, self.device = store, imagined
        self.now_ns = 0
        self.n_visits = 0
        self.ids = (f"lease-{number}" for number in itertools.count())
        self.rng = np.random.default_rng(0)
        self.distort = lambda visit, network: visit
        plan = dataclasses.replace(imagined.plan, n_training_networks=0, **plan)
        imagined.connect(store)
        start_campaign(store, CampaignDefinition("c", "bench-ort", plan, sampling), 0)

    @property
    def status(self):
        return self.store.get_campaign("c")

    def work(self):
        """Does what is to be done now; returns the tasks that were visited, one per visit."""
        self.now_ns += VISIT_NS
        result = dispatch(self.store, self.now_ns, POLICY, lambda: next(self.ids))
        visited = []
        for work in result.work:
            lease = work.lease
            visits = sorted(
                ((number, item) for item in work.items for number in item.rounds),
                key=lambda visit: visit[0],
            )
            for number, item in visits:
                self.now_ns += VISIT_NS
                visit = self.device._visit(item.task, item.program, number, self.rng)
                visit = dataclasses.replace(visit, started_ns=self.now_ns)
                visit = self.distort(visit, item.program.network)
                self.n_visits += 1
                report = Report(self.n_visits, lease.reference, visit)
                batch = ReportBatch(lease.agent_id, lease.epoch, (report,))
                self.store.record_reports([batch], self.now_ns)
                visited.append(item.task)
            self.store.finish_lease(lease.agent_id, lease.epoch, lease.reference)
        return visited

    def settle(self):
        """Settles what is complete."""
        (campaign,) = self.store.list_complete_campaigns()
        return settle(self.store, campaign, self.now_ns)

    def run(self):
        """Until the end; returns the tasks that were visited beyond the first rounds."""
        first = len(self.work())
        assert first == self.status.n_visits_wanted
        more = []
        while not self.settle():
            more += self.work()
        return more


def slower(visit, factor):
    series = tuple(
        Series(one.label, (factor * one.samples_ns).astype(np.int64), one.node)
        for one in visit.series
    )
    return dataclasses.replace(visit, series=series)


WRITTEN = {}


def write_briefly(network, program_format, batch, precision):
    """As `write_program`, written once for all tests and without weights: nothing runs it."""
    if network.key not in WRITTEN:
        program = write_program(network, program_format, batch, precision)
        WRITTEN[network.key] = dataclasses.replace(program, model_bytes=network.key.encode())
    return WRITTEN[network.key]


@pytest.fixture
def live(imagined, monkeypatch):
    monkeypatch.setattr(campaigns, "write_program", write_briefly)
    stores = []

    def start(sampling=Sampling(3, n_extra_rounds=3), **plan):  # noqa: B008 - frozen
        stores.append(open_store(":memory:"))
        return Live(stores[-1], imagined, sampling, **plan)

    yield start
    for store in stores:
        store.close()


def table_error(live, imagined):
    """Largest relative error of the table's entries, up to a common factor."""
    latency_models.build_table(live.store, "t", "c", now_ns=7)
    table = load_latency_model(live.store.read_latency_model("t"))
    ratios = np.array([1e6 * entry.mean_ms / imagined.op_ns(entry.op) for entry in table.entries])
    return table, float(np.abs(ratios / np.median(ratios) - 1).max())


def test_a_quiet_campaign_ends_without_further_visits(live):
    one = live()
    assert one.run() == []
    assert one.status.campaign.state is CampaignState.FINISHED
    assert one.status.findings.suspicions == ()
    assert 0 < one.status.findings.entry_error < 0.005
    assert 0 < one.status.findings.label_error < 0.01


def test_a_shift_gets_its_visits_taken_again_and_the_table_is_right(live, imagined):
    one = live()
    n_tasks = one.status.n_tasks
    begin, end = (n_tasks + n_tasks // 4) * VISIT_NS, (n_tasks + 3 * n_tasks // 4) * VISIT_NS
    shifted = []

    def shift(visit, network):
        if begin < visit.started_ns <= end:
            shifted.append(visit.task_id)
            return slower(visit, 1.2)
        return visit

    one.distort = shift
    again = one.run()
    assert set(shifted) <= {task.task_id for task in again}
    found = [s for s in one.status.findings.suspicions if s.kind is SuspicionKind.STRETCH]
    assert [(s.revisited, s.open) for s in found] == [(True, False)]
    table, error = table_error(one, imagined)
    assert error < 0.02, "as without the shift; 0.033 where nothing is visited again"
    left_out = [visit for one in list_measurements(one.store, "c") for visit in one.left_out]
    assert len(left_out) == len(shifted)
    assert table.conditions.n_left_out > 0
    assert find_suspicions(one.store, "t").stretches == (), "the table passes over it"
    remark = next(line for line in table.remarks if "suspicious" in line)
    assert remark == "suspicious in its visits: 1 found, 1 visited again, none is left"


def odd_op(live, imagined):
    """The smallest-kernel op that has a bigger one beside it, and how to make it slow."""
    ops = live.store.get_programs(
        [p.task.program_sha256 for p in live.store.list_tasks("c") if p.task.role is Role.COVER]
    )
    return next(
        op for program in ops.values() for op in program.network.ops
        if op.kind == "mbconv" and dict(op.attributes)["kernel"] == 3
    )  # fmt: skip


def with_op(visit, network, op, factor):
    """A profiled visit in which an op took longer by a factor."""
    if visit.mode != PROFILED or op not in network.ops:
        return visit
    whole, *nodes = visit.series
    for position, found in enumerate(network.ops):
        if found == op:
            node = nodes[position]
            samples_ns = (factor * node.samples_ns).astype(np.int64)
            nodes[position] = Series(node.label, samples_ns, node.node)
    return dataclasses.replace(visit, series=(whole, *nodes))


def test_an_entry_slower_than_a_bigger_ones_is_visited_again_once_and_then_shown(live, imagined):
    one = live()
    op = odd_op(one, imagined)
    one.distort = lambda visit, network: with_op(visit, network, op, 4.0)
    again = one.run()
    assert again
    assert {task.mode for task in again} == {PROFILED}
    assert len({task.task_id for task in again}) == len(again), "each is visited once"
    found = one.status.findings
    assert {s.kind for s in found.suspicions} == {SuspicionKind.BREAK}
    assert found.n_revisited == found.n_open == len(found.suspicions)


def test_an_entry_that_was_wrong_by_chance_is_mended(live, imagined):
    one = live(min_occurrences=1)
    op = odd_op(one, imagined)
    spoilt = {}

    def twice(visit, network):
        n_seen = spoilt[visit.task_id] = spoilt.get(visit.task_id, 0) + 1
        return with_op(visit, network, op, 4.0) if n_seen <= 2 else visit

    one.distort = twice
    assert one.run()
    found = one.status.findings
    assert found.suspicions
    # One more visit makes two of four: the median lies between, and is known to be uncertain.
    assert (found.n_revisited, found.n_open) == (len(found.suspicions), 0)


def test_noise_beyond_the_target_error_is_visited_again_until_it_is_not(live):
    probe = live()
    probe.run()
    fixed = probe.status.findings.entry_error
    target = 0.85 * fixed
    sampling = Sampling(3, n_extra_rounds=8, target_error=target)
    one = live(sampling, n_calibration_networks=0, n_validation_networks=0)
    again = one.run()
    assert again
    assert {task.mode for task in again} == {PROFILED}
    assert one.status.findings.entry_error <= target
    rough = live(dataclasses.replace(sampling, target_error=2 * fixed),
                 n_calibration_networks=0, n_validation_networks=0)  # fmt: skip
    assert rough.run() == []


def test_the_drift_of_the_table_is_divided_out_of_entries_noise(live, monkeypatch):
    seen = []

    def noise(profiled, drift, table, networks):
        seen.append((drift.label_noise, table.conditions.label_noise))
        return cover_noise(profiled, drift, table, networks)

    monkeypatch.setattr("latlas_coordinator.handlers.settling.cover_noise", noise)
    live().run()
    ((of_noise, of_table),) = seen
    assert of_noise == of_table


def test_a_target_error_out_of_reach_ends_with_the_extra_rounds(live):
    one = live(Sampling(3, n_extra_rounds=2, target_error=1e-5))
    again = one.run()
    progress = one.store.list_tasks("c")
    grown = {Role.CALIBRATION, Role.VALIDATION}
    assert {p.n_extra_rounds for p in progress if p.task.role in grown} == {2}
    covers = [p for p in progress if p.task.role is Role.COVER]
    assert {p.n_extra_rounds for p in covers if p.task.mode == PROFILED} == {2}
    assert one.status.findings.entry_error > 1e-5
    assert len(again) == sum(p.n_extra_rounds for p in progress)


def test_time_that_is_up_goes_before_everything_and_what_was_found_is_shown(live, imagined):
    one = live(Sampling(3, n_extra_rounds=3, target_error=1e-5, time_budget_ns=10**6))
    op = odd_op(one, imagined)
    one.distort = lambda visit, network: with_op(visit, network, op, 4.0)
    one.work()
    one.now_ns += 10**9
    assert one.settle()
    found = one.status.findings
    assert one.status.campaign.state is CampaignState.FINISHED
    assert found.suspicions
    assert (found.n_revisited, found.n_open) == (0, len(found.suspicions))


def test_a_coordinator_killed_before_it_stored_its_decision_decides_the_same_again(
    live, imagined, monkeypatch
):
    one = live()
    op = odd_op(one, imagined)
    one.distort = lambda visit, network: with_op(visit, network, op, 4.0)
    one.work()
    decisions = []

    def dies(name, findings, n_rounds, looked):
        decisions.append((findings, dict(n_rounds)))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(one.store, "settle_campaign", dies)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                one.settle()
    assert decisions[0] == decisions[1]
    assert not one.settle()
    opened = {p.task.task_id: len(p.missing_rounds) for p in one.store.list_open_tasks()}
    assert (one.status.findings, opened) == decisions[0]


def test_a_campaign_cancelled_while_it_is_looked_at_stays_cancelled(live):
    one = live()
    one.work()
    (campaign,) = one.store.list_complete_campaigns()
    one.store.cancel_campaign("c")
    assert not settle(one.store, campaign, one.now_ns)
    assert one.status.campaign.state is CampaignState.CANCELLED


def test_programs_that_were_uploaded_are_looked_at_too(server, bench):
    agent = bench.attached(server)
    bench.add_target(server)
    bench.measure(server, n_tasks=2, n_rounds=3)
    agent.work(agent.hear("lease"))
    done = bench.finished(server)
    assert not done.findings.suspicions
    assert done.findings.HasField("label_error")
    assert not done.findings.HasField("entry_error")


def test_why_entries_are_not_looked_at_is_kept_and_breaks_survive_a_failing_noise(
    live, imagined, monkeypatch
):
    def refuses(*given):
        raise InvalidInputError("too few places")

    handler = "latlas_coordinator.handlers.settling."
    one = live()
    op = odd_op(one, imagined)
    one.distort = lambda visit, network: with_op(visit, network, op, 4.0)
    with monkeypatch.context() as patch:
        patch.setattr(handler + "cover_noise", refuses)
        one.run()
    found = one.status.findings
    assert found.n_open > 0
    assert found.remarks == ("entries' noise is not known: too few places",)
    two = live()
    with monkeypatch.context() as patch:
        patch.setattr(handler + "provisional_table", refuses)
        two.run()
    assert two.status.findings.remarks == ("entries could not be looked at: too few places",)


def test_entries_measured_apart_from_networks_say_that_their_noise_is_not_known(live):
    one = live(Sampling(3, n_extra_rounds=1, target_error=0.9), method="chained")
    one.run()
    found = one.status.findings
    assert found.entry_error is None
    (remark,) = found.remarks
    assert remark.startswith("entries' noise is not known")


def test_messages_tell_nothing_found_from_not_looked_at_and_list_a_few_suspicions(live):
    one = live(n_calibration_networks=1, n_validation_networks=0)
    assert not campaign_message(one.status).HasField("findings")
    suspicions = tuple(
        Suspicion(SuspicionKind.BREAK, f"{index}", "slow", open=index > 2) for index in range(20)
    )
    status = dataclasses.replace(one.status, findings=Findings(suspicions))
    brief, full = campaign_message(status), campaign_message(status, in_full=True)
    assert (len(brief.findings.suspicions), len(full.findings.suspicions)) == (5, 20)
    assert all(found.open for found in brief.findings.suspicions)
    assert (brief.findings.n_suspicions, brief.findings.n_open) == (20, 17)
    here = campaign_status(brief)
    assert here.suspicious == "20 found, 0 visited again, 17 are left"
    assert campaign_status(campaign_message(one.status)).suspicious == "not looked at yet"


def test_a_task_that_fails_in_further_visits_keeps_what_it_has(live):
    one = live()
    one.work()
    task_id = one.store.list_tasks("c")[0].task.task_id
    for number in range(2):
        one.store.add_rounds("c", {task_id: 1} if number == 0 else {})
        (work,) = dispatch(one.store, one.now_ns, POLICY, lambda: next(one.ids)).work
        lease = work.lease
        one.n_visits += 1
        failure = TaskFailure(task_id, "MeasurementError", "the worker crashed")
        report = Report(one.n_visits, lease.reference, failure)
        one.store.record_reports([ReportBatch(lease.agent_id, lease.epoch, (report,))], one.now_ns)
        one.store.finish_lease(lease.agent_id, lease.epoch, lease.reference)
    result = dispatch(one.store, one.now_ns, POLICY, lambda: next(one.ids))
    assert [campaign.name for campaign in result.complete] == ["c"]
    assert one.status.failed == ()
    assert one.settle()
