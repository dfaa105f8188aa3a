"""The server as a whole: how it binds, stops, restarts and survives being killed."""

import asyncio
import json
import signal
import subprocess
import sys
import time
import urllib.request

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from latlas_coordinator.server import require_safe, serve
from latlas_ops.errors import InvalidInputError, StorageError
from latlas_protos.v1 import fleet_pb2, query_pb2

SERVE = """
import sys
from pathlib import Path
from latlas_coordinator.server import run_server
run_server(
    Path(sys.argv[1]),
    port=0,
    http_port=0 if sys.argv[3] == "web" else None,
    ready_file=Path(sys.argv[2]),
)
"""


def test_health_is_served(server):
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "latlas_protos.v1.FleetService", "latlas_protos.v1.QueryService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_this_machine_alone_is_safe(host):
    require_safe(host, insecure=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "lab.example"])
def test_beyond_this_machine_only_with_insecure(host):
    with pytest.raises(InvalidInputError, match=r"can be reached from other machines.*--insecure"):
        require_safe(host, insecure=False)
    require_safe(host, insecure=True)


def serve_once(database, **changes):
    """Serves until it is ready and stops at once."""

    async def main():
        stop = asyncio.Event()
        arguments = {
            "database": database,
            "host": "127.0.0.1",
            "port": 0,
            "http_port": None,
            "insecure": False,
            "on_ready": lambda addresses: stop.set(),
            "stop": stop,
        }
        await serve(**{**arguments, **changes})

    asyncio.run(main())


def test_a_refused_address_leaves_no_file(tmp_path):
    with pytest.raises(InvalidInputError):
        serve_once(tmp_path / "latlas.db", host="0.0.0.0")
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_named(server, tmp_path):
    port = int(server.address.split(":")[1])
    with pytest.raises(InvalidInputError, match=rf"cannot listen on 127.0.0.1:{port}"):
        serve_once(tmp_path / "other.db", port=port)


def test_two_coordinators_cannot_share_a_database(server, tmp_path):
    with pytest.raises(StorageError, match=r"latlas.db is in use by another coordinator"):
        serve_once(tmp_path / "latlas.db")


def test_a_coordinator_may_keep_everything_in_memory():
    serve_once(":memory:")


def test_agents_and_watchers_hear_that_the_coordinator_stops(server, bench):
    agent = bench.attached(server)
    bench.add_target(server)
    bench.measure(server)
    agent.hear("lease")
    watch = server.query.WatchCampaign(query_pb2.CampaignRequest(name="m1"))
    next(watch)
    began = time.monotonic()
    with bench.refused("UnreachableError", "the coordinator is stopping"):
        server.stop()
        agent.hear("cancellation")
    with bench.refused("UnreachableError", "the coordinator is stopping"):
        list(watch)
    server.close()
    assert time.monotonic() - began < 4


def test_a_restarted_coordinator_goes_on_where_it_was(start_server, bench):
    first = start_server()
    agent = bench.attached(first)
    bench.add_target(first)
    bench.measure(first, n_tasks=2, n_rounds=2)
    lease = agent.hear("lease")
    agent.report(lease, bench.visit(lease.items[0], 0))
    agent.hear("acknowledgement")
    first.close()
    second = start_server()
    [state] = second.query.ListDevices(query_pb2.ListDevicesRequest()).devices
    assert not state.connected
    assert state.busy_with == "m1"
    again = bench.attached(second, held=(bench.reference(lease),))
    assert again.sequence == 1
    rest = [(lease.items[0], 1), (lease.items[1], 0), (lease.items[1], 1)]
    again.report(lease, *(bench.visit(item, number) for item, number in rest))
    assert again.hear("acknowledgement").sequence == 4
    again.say(finished=fleet_pb2.LeaseFinished(lease=bench.reference(lease)))
    ended = bench.finished(second)
    assert (ended.state, ended.n_visits_done) == (query_pb2.CAMPAIGN_STATE_FINISHED, 4)


class Process:
    """A coordinator in a process of its own, which can be killed."""

    def __init__(self, folder, web):
        self.ready = folder / "ready.json"
        self.ready.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-c",
            SERVE,
            folder / "latlas.db",
            self.ready,
            "web" if web else "-",
        ]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not self.ready.exists():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        addresses = json.loads(self.ready.read_text())
        self.address, self.http = addresses["grpc"], addresses["http"]

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def start_process(tmp_path):
    started = []

    def start(web=False):
        started.append(Process(tmp_path, web))
        return started[-1]

    yield start
    for found in started:
        if found.process.poll() is None:
            found.end(signal.SIGKILL)


def test_nothing_acknowledged_is_lost_when_the_coordinator_is_killed(start_process, bench):
    first = start_process()
    client = bench.client(first.address)
    agent = bench.attached(first)
    bench.add_target(client)
    bench.measure(client, n_tasks=5, n_rounds=4)
    lease = agent.hear("lease")
    acknowledged = 0
    for item in lease.items[:3]:
        agent.report(lease, *(bench.visit(item, number) for number in item.rounds))
        acknowledged = agent.hear("acknowledgement").sequence
    # One more batch is on its way when the process is killed.
    agent.report(lease, *(bench.visit(lease.items[3], number) for number in range(4)))
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    second = start_process()
    client = bench.client(second.address)
    again = bench.attached(second, held=(bench.reference(lease),))
    assert again.sequence >= acknowledged == 12
    assert bench.campaign(client).n_visits_done == again.sequence
    # The agent sends what is beyond: nothing is missing, nothing counts twice.
    visits = [bench.visit(item, number) for item in lease.items for number in item.rounds]
    again.report(lease, *visits[again.sequence :])
    assert again.hear("acknowledgement").sequence == 20
    again.say(finished=fleet_pb2.LeaseFinished(lease=bench.reference(lease)))
    assert bench.finished(client).n_visits_done == 20


def test_a_signal_ends_the_process_in_good_order(start_process):
    found = start_process()
    assert found.end(signal.SIGTERM) == 0


def test_the_web_page_is_served_beside_both_services(start_process, bench):
    found = start_process(web=True)
    with urllib.request.urlopen(f"http://{found.http}/", timeout=20) as answer:
        assert "Latlas" in answer.read().decode()
    bench.attached(found)
    assert found.end(signal.SIGTERM) == 0
