"""The live web page: what it says, and that a browser shows it without asking anyone else."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from latlas_coordinator.dashboard import tables, views
from latlas_coordinator.dashboard.heat_map import kind_map, space_map
from latlas_coordinator.domain import (
    AgentRecord,
    Campaign,
    Findings,
    LatencyModelRecord,
    LeaseItem,
    Looked,
    MeasuredProgram,
    MeasurePlan,
    NewLease,
    ProfilePlan,
    ProgramOrigin,
    ProgramRecord,
    Report,
    ReportBatch,
    Role,
    Sampling,
    Suspicion,
    SuspicionKind,
    Task,
    TaskFailure,
)
from latlas_coordinator.handlers.latency_models import ModelCache
from latlas_coordinator.storage import Store, open_store
from latlas_latency.calibration import AffineFit, Calibration
from latlas_latency.formats import dump_latency_model
from latlas_latency.measurement import (
    PLAIN,
    WHOLE_NETWORK,
    Device,
    RuntimeCapability,
    Series,
    Target,
    Visit,
)
from latlas_latency.space_reference import SpaceReference
from latlas_latency.table import LookupTable, TableEntry
from latlas_latency.validation import Validation
from latlas_ops.costs import op_cost
from latlas_ops.errors import InvalidInputError, NotFoundError, SpaceMismatchError
from latlas_ops.spaces import get_space

SECOND_NS = 1_000_000_000
NOW_NS = 1_700_000_000 * SECOND_NS
SPACE = get_space("digits")
TARGET = Target("pi5-ort", "Raspberry Pi 5", "onnxruntime", "1.32.0", "CPUExecutionProvider")
CAPABILITY = RuntimeCapability(
    "onnxruntime", "1.32.0", ("CPUExecutionProvider",), ("fp32",), ("all",), ("onnx",), True
)
AGENT = AgentRecord("agent-a", 1, "0.1")
PROGRAM = b"never parsed"
SLOPE = 1.1

WATCH = """
<iframe src="/"></iframe><pre></pre>
<script>
  const read = () => document.querySelector("iframe").contentDocument
      .querySelector(".la-page").textContent;
  fetch("/wait").then(async () => {
    const first = read();
    await fetch("/wait");
    document.querySelector("pre").textContent = JSON.stringify([first, read()]);
  });
</script>
"""

SERVE = """
import asyncio, itertools, sys
from latlas_coordinator.dashboard import create_app
from latlas_coordinator.storage import open_store
from latlas_coordinator.web import serve_web
from starlette.responses import HTMLResponse
from starlette.routing import Route

async def watch(request):
    return HTMLResponse(sys.argv[3])

async def wait(request):
    await asyncio.sleep(1)
    return HTMLResponse("")

async def main():
    minutes = itertools.count(int(sys.argv[2]), 60_000_000_000)
    app = create_app(open_store(sys.argv[1]), refresh_s=0.2, now_ns=lambda: next(minutes))
    app.router.routes[:0] = [Route("/watch", watch), Route("/wait", wait)]
    async with serve_web(app, "127.0.0.1", 0) as port:
        print(port, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def _device(device_id: str, host_name: str) -> Device:
    return Device(
        device_id,
        "f" * 8,
        "Raspberry Pi 5",
        host_name,
        "Debian 12",
        "aarch64",
        4,
        8 << 30,
        "default",
        (CAPABILITY,),
    )


def make_table(n_entries: int | None = None) -> LookupTable:
    """A table of the digits space whose entries follow the ops' costs; with fewer, a gap."""
    entries = tuple(
        TableEntry(op, 0.01 + 2e-8 * op_cost(op).macs, 0.001, 3, 12)
        for op in SPACE.slot_entries.ops[:n_entries]
    )
    fit = AffineFit(0.05, SLOPE, ((1e-6, 0.0), (0.0, 1e-6)), 0.01, 10)
    return LookupTable(TARGET, SpaceReference.of(SPACE), entries, Calibration(fit, 0.002))


def make_record(name: str = "pi5-table", kind: str = "table") -> LatencyModelRecord:
    validation = Validation(
        40, 0.0131, 0.044, 0.996, 0.99, 0.98, 1.0, 0.98, 12, 0.9, 0.9, 0.012, 0.007
    )
    n_entries = len(SPACE.slot_entries.ops) if kind == "table" else 0
    return LatencyModelRecord(
        name, kind, "digits", TARGET, "pi5-digits", NOW_NS, n_entries, True, validation
    )


def fill(store: Store) -> None:
    """Two boards, one of them measuring; a campaign at 5 of 12 visits; a table, a predictor."""
    store.attach_agent(AGENT, [_device("device-a", "kitchen-pi")], NOW_NS)
    store.attach_agent(
        AgentRecord("agent-b", 1, "0.1"), [_device("device-b", "cellar-pi")], NOW_NS - SECOND_NS
    )
    store.detach_agent("agent-b", 1, NOW_NS - 7200 * SECOND_NS)
    store.add_target(TARGET)
    sha256 = hashlib.sha256(PROGRAM).hexdigest()
    store.put_program(ProgramRecord(sha256, "onnx", len(PROGRAM), ProgramOrigin.UPLOADED), PROGRAM)
    sampling = Sampling(n_rounds=4)
    tasks = [
        Task(
            f"task-{i}", "pi5-digits", TARGET.name, sha256, PLAIN, Role.TRAINING, f"net {i}",
            sampling,
        )
        for i in range(3)
    ]  # fmt: skip
    plan = ProfilePlan("digits", 1, 1, 1, 1, 0)
    store.create_campaign(
        Campaign("pi5-digits", TARGET.name, plan, sampling, NOW_NS - 120 * SECOND_NS), tasks
    )
    lease = store.create_lease(
        NewLease(
            "lease-1",
            AGENT.agent_id,
            AGENT.epoch,
            "device-a",
            "pi5-digits",
            tuple(LeaseItem(task.task_id, tuple(range(4))) for task in tasks),
            NOW_NS,
            NOW_NS + 60 * SECOND_NS,
        )
    )
    places = [(task, number) for number in range(4) for task in tasks][:5]
    reports = [
        Report(
            sequence,
            lease.reference,
            Visit(
                task.task_id,
                "device-a",
                number,
                PLAIN,
                NOW_NS,
                3_000_000,
                2,
                (Series(WHOLE_NETWORK, np.array([1_000_000] * 3)),),
            ),
        )
        for sequence, (task, number) in enumerate(places, start=1)
    ]
    store.record_reports([ReportBatch(AGENT.agent_id, AGENT.epoch, tuple(reports))], NOW_NS)
    measured = MeasurePlan((MeasuredProgram(sha256, "mine"),))
    broken = Task("task-m", "mine", TARGET.name, sha256, PLAIN, Role.MEASURED, "mine", sampling)
    store.create_campaign(
        Campaign("mine", TARGET.name, measured, sampling, NOW_NS - 7200 * SECOND_NS), [broken]
    )
    store.give_up_task(TaskFailure("task-m", "CorruptProgramError", "no runtime can load <it>"))
    for campaign in store.list_complete_campaigns():
        looked = Looked.at(store.list_tasks(campaign.name), 0)
        store.settle_campaign(campaign.name, Findings(), {}, looked)
    store.put_latency_model(make_record(), dump_latency_model(make_table()))
    store.put_latency_model(make_record("pi5-mlp", "mlp"), b"not read here")


@pytest.fixture
def store() -> Iterator[Store]:
    opened = open_store(":memory:")
    yield opened
    opened.close()


class _Words(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.text += " "

    def handle_data(self, data: str) -> None:
        self.text += data


def words(page: str) -> str:
    """The text of a page, whitespace collapsed."""
    parser = _Words()
    parser.feed(page)
    return " ".join(parser.text.split())


def test_devices_show_state_and_what_they_are_busy_with(store: Store) -> None:
    fill(store)
    page = words(views.devices(store.list_devices(), NOW_NS + 5 * SECOND_NS, "lab:7443"))
    assert "1 of 2 connected" in page
    assert "kitchen-pi device-a connected just now pi5-digits Raspberry Pi 5" in page
    assert "cellar-pi device-b not connected 2 h ago Raspberry Pi 5" in page
    assert "onnxruntime 1.32.0" in page
    assert page.index("kitchen-pi") < page.index("cellar-pi")


def test_campaigns_show_progress_and_why_tasks_failed(store: Store) -> None:
    fill(store)
    page = views.campaigns(store.list_campaigns(), NOW_NS)
    assert '<progress max="12" value="5">' in page
    text = words(page)
    assert "pi5-digits started 2 min ago pi5-ort space digits 3 tasks running" in text
    assert "5 of 12, 41 %" in text
    assert "nothing that can be measured none ✗ 1 mine: no runtime can load <it>" in text
    assert "<it>" not in page


def test_campaigns_show_what_was_suspicious_and_how_precise_they_are(store: Store) -> None:
    fill(store)
    suspicions = (
        Suspicion(SuspicionKind.BREAK, "a b", "<a> is slower than b", revisited=True),
        Suspicion(SuspicionKind.STRETCH, "d", "9 visits in a row", revisited=True, open=False),
    )
    found = Findings(suspicions, entry_error=0.004, label_error=None)
    status = dataclasses.replace(store.list_campaigns()[0], findings=found)
    page = views.campaigns([status], NOW_NS)
    text = words(page)
    assert "2 found, 2 visited again, 1 is left <a> is slower than b 9 visits in a row" in text
    assert "(settled)" in text
    assert "entries' noise costs a network 0.4 %" in text
    assert "<a>" not in page
    (ended,) = (one for one in store.list_campaigns() if one.campaign.name == "mine")
    assert "not looked at" in words(
        views.campaigns([dataclasses.replace(ended, findings=None)], NOW_NS)
    )


def test_latency_models_show_their_error_beside_the_label_noise(store: Store) -> None:
    fill(store)
    page = views.latency_models(store.list_latency_models(), NOW_NS)
    assert 'href="/tables?model=pi5-table"' in page
    assert "1.3 % 4.4 % 1.2 % 40" in words(page)
    bare = dataclasses.replace(make_record(), validation=None, calibrated=False, campaign="")
    text = words(views.latency_models([bare], NOW_NS))
    assert "imported" in text
    assert "not calibrated" in text
    assert "not validated" in text


def test_empty_pages_say_what_to_do(store: Store) -> None:
    for page, command in (
        (views.devices([], NOW_NS, "lab:7443"), "latlas-agent run --coordinator lab:7443"),
        (views.campaigns([], NOW_NS), "latlas campaign start first --target my-board"),
        (views.latency_models([], NOW_NS), "latlas table build my-table --campaign first"),
        (tables.render(store, ModelCache(), "", ""), "latlas table build my-table"),
    ):
        assert command in words(page)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "just now"), (9, "just now"), (10, "10 s ago"), (59, "59 s ago"), (60, "1 min ago"),
     (7199, "1 h ago"), (86_400, "1 day ago"), (200_000, "2 days ago")],
)  # fmt: skip
def test_ages_are_told_in_their_largest_unit(seconds: int, text: str) -> None:
    assert views.ago(NOW_NS - seconds * SECOND_NS, NOW_NS) == text


def test_a_heat_map_holds_every_choice_of_a_slot_at_one_resolution() -> None:
    table = make_table()
    found = space_map(table, SPACE, 40)
    chosen, fixed = found.grids
    assert (chosen.axes, len(chosen.columns)) == (("kernel", "expansion"), 9)
    assert [label for label, _ in fixed.rows] == ["stem", "head"]
    layers = dict(chosen.rows)
    assert len(layers) == 9
    column = chosen.columns.index(("5", "3"))
    cell = layers["stage1.layer0"][column]
    arch_op = next(
        op
        for op in SPACE.slot_entries.ops
        if str(op) == cell.op and op.attribute("kernel") == 5 and op.inputs[0][1] == 20
    )
    assert cell.latency_ms == pytest.approx(SLOPE * table.by_op[arch_op].mean_ms)
    heats = [one.heat for grid in found.grids for _, row in grid.rows for one in row]
    assert (min(heats), max(heats)) == (0.0, 1.0)
    assert found.held == "depth"
    assert found.n_missing == 0


def test_an_op_without_an_entry_is_shown_as_missing_not_as_fast() -> None:
    found = space_map(make_table(n_entries=5), SPACE, 48)
    assert found.n_missing > 0
    page = views.table_page(make_record(), found, ["pi5-table"], (48,), 48)
    assert page.count('class="la-missing"') == found.n_missing
    assert f"{found.n_missing} cells have no entry" in words(page)


def test_a_table_of_no_space_is_grouped_by_kind_of_op() -> None:
    found = kind_map(dataclasses.replace(make_table(), space=None))
    assert [grid.title for grid in found.grids] == ["head", "mbconv", "stem"]
    latencies = [row[0].latency_ms for _, row in found.grids[1].rows]
    assert latencies == sorted(latencies, reverse=True)


def test_a_table_of_another_space_is_refused() -> None:
    with pytest.raises(SpaceMismatchError, match="digits"):
        space_map(make_table(), get_space("course"), 224)


def test_table_and_resolution_can_be_chosen(store: Store) -> None:
    fill(store)
    page = tables.render(store, ModelCache(), "pi5-table", "32")
    assert 'href="/tables?model=pi5-table&amp;resolution=32" aria-current="true"' in page
    assert page != tables.render(store, ModelCache(), "pi5-table", "")
    for name, resolution, error, message in (
        ("nothing", "", NotFoundError, "nothing"),
        ("pi5-mlp", "", InvalidInputError, r"predictor \(mlp\): only a table has entries"),
        ("pi5-table", "33", InvalidInputError, "no resolution '33'; it has 32, 40, 48"),
    ):
        with pytest.raises(error, match=message):
            tables.render(store, ModelCache(), name, resolution)


@contextmanager
def served(database: Path) -> Iterator[str]:
    """The pages of a database in a process of their own, whose clock jumps a minute per look.

    NiceGUI keeps state per process and warns about things that are not ours.
    """
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(database), str(NOW_NS), WATCH],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.communicate()


@pytest.fixture
def browse(require_tool: Callable[[str], str], tmp_path: Path) -> Callable[..., str]:
    """`browse(url)` gives a page's document in Chromium when it has come to rest.

    The browser can reach nothing but this machine. Its clock runs ahead while it waits for nothing
    but time; only a pending request lets real time pass.
    """
    chromium = require_tool("chromium")

    def run(url: str, *options: str) -> str:
        return subprocess.run(
            [
                chromium,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--virtual-time-budget=2000",
                *options,
                "--dump-dom",
                url,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "HOME": str(tmp_path)},
            check=True,
        ).stdout

    return run


def shown(document: str) -> str:
    """The text of the live part of a document."""
    return words(re.search(r"<section[^>]*la-page.*?</section>", document, re.DOTALL)[0])


def test_a_browser_shows_every_page(browse: Callable[..., str], tmp_path: Path) -> None:
    store = open_store(tmp_path / "latlas.db")
    fill(store)
    store.close()
    with served(tmp_path / "latlas.db") as url:
        devices, campaigns, models, table = (
            browse(url + path)
            for path in ("/", "/campaigns", "/models", "/tables?model=pi5-table&resolution=32")
        )
    assert "kitchen-pi device-a connected" in shown(devices)
    assert "5 of 12, 41 %" in shown(campaigns)
    assert "pi5-table" in shown(models)
    cell = views.milliseconds(make_table().by_op[SPACE.slot_entries.ops[0]].mean_ms * SLOPE)
    assert f"stem {cell}" in shown(table)
    for document in (devices, campaigns, models, table):
        loaded = re.findall(r"""(?:src|href)=["'](https?://[^"']*)""", document)
        assert all(address.startswith(url) for address in loaded)


def test_a_page_follows_the_store_without_being_loaded_again(
    browse: Callable[..., str], tmp_path: Path
) -> None:
    store = open_store(tmp_path / "latlas.db")
    fill(store)
    store.close()
    with served(tmp_path / "latlas.db") as url:
        document = browse(f"{url}/watch")
    first, last = json.loads(re.search(r"<pre>(.*)</pre>", document, re.DOTALL)[1])
    assert "kitchen-pi" in first
    assert first != last


def test_the_coordinator_serves_the_page_and_ends_while_it_is_open(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from latlas_coordinator.server import run_server; "
        "run_server(Path(sys.argv[1]) / 'latlas.db', port=0, http_port=0, "
        "ready_file=Path(sys.argv[1]) / 'ready')"
    )
    server = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 30
        while not (tmp_path / "ready").exists():
            assert server.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        addresses = json.loads((tmp_path / "ready").read_text())
        with closing(http.client.HTTPConnection(addresses["http"], timeout=30)) as kept_alive:
            kept_alive.request("GET", "/")
            page = kept_alive.getresponse().read().decode()
            assert f"latlas-agent run --coordinator {addresses['grpc']}" in page
            server.terminate()
            _, log = server.communicate(timeout=20)
        assert server.returncode == 0
        assert b"Traceback" not in log
    finally:
        server.kill()
        server.wait()
