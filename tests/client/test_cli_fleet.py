"""The command line and `Lab` against a real coordinator and a real agent, each a process."""

import csv
import json
import signal
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from onnx import helper

import latlas as front_door
from latlas.records import Sampling
from latlas_latency.table import LookupTable
from latlas_ops import get_space
from latlas_ops.writers.onnx_writer import write_onnx

FAST = ["--extra-rounds", "0", "--warmup-runs", "1", "--min-runs", "2", "--min-duration", "5ms"]


@pytest.fixture
def arch_file(tmp_path):
    """`arch_file("digits")` is a file with an architecture of that space."""

    def write(name):
        space = get_space(name)
        (arch,) = space.archs(space.sample(1, np.random.default_rng(7)))
        path = tmp_path / f"{name}.json"
        path.write_text(arch.to_json())
        return path

    return write


@pytest.fixture
def model_file(tmp_path):
    space = get_space("digits")
    smallest, _ = space.archs(space.extremes())
    path = tmp_path / "net.onnx"
    path.write_bytes(write_onnx(space.network(smallest), batch=1, seed=0).model_bytes)
    return path


@pytest.fixture
def foreign_file(tmp_path):
    """A network of another space."""
    space = get_space("course")
    smallest, _ = space.archs(space.extremes())
    path = tmp_path / "foreign.onnx"
    path.write_bytes(write_onnx(space.network(smallest), batch=1, seed=0).model_bytes)
    return path


def one_line(ended):
    """The complaint of a command that failed as it should: one line, exit code 2, no output."""
    assert ended.code == 2, ended
    assert ended.out == ""
    (line,) = [line for line in ended.err.splitlines() if not line.startswith("measuring ")]
    assert line.startswith("latlas: ")
    return line.removeprefix("latlas: ")


# -- what works --------------------------------------------------------------------------------


def test_devices_and_targets_are_listed_for_people_and_programs(typed):
    (state,) = json.loads(typed("device", "list", "--json").out)
    device_id = state["device"]["device_id"]
    assert device_id in typed("device", "list").out
    assert "onnxruntime" in typed("device", "show", device_id).out
    targets = json.loads(typed("target", "list", "--json").out)
    assert {target["name"]: target["threads"] for target in targets} == {
        "here": 1,
        "two-threads": 2,
    }
    assert "2 threads" in typed("target", "list").out


def test_doctor_finds_the_coordinator(typed):
    assert "answers; 1 of 1 devices connected" in typed("doctor").out


def test_doctor_advises_for_each_target(typed):
    advice = json.loads(typed("doctor", "--json").out)["advice"]
    assert {"here", "two-threads"} <= {line["target"] for line in advice}


def test_a_campaign_started_again_goes_on_with_the_one_that_is_there(typed, lab):
    before = lab.campaign("profile")
    plan = ["--training-networks", 12, "--calibration-networks", 6, "--validation-networks", 6]
    same = ["campaign", "start", "profile", "--target", "here", "--space", "digits", *plan]
    same += ["--min-occurrences", "1", *FAST, "--watch"]
    assert "finished" in typed(*same).out
    assert lab.campaign("profile") == before
    assert "choose another name" in one_line(typed(*same, "--seed", "5"))


def test_a_campaign_says_how_ops_are_measured(typed):
    plan = ["--training-networks", 12, "--calibration-networks", 6, "--validation-networks", 6]
    same = ["campaign", "start", "profile", "--target", "here", "--space", "digits", *plan]
    same += ["--min-occurrences", "1", *FAST]
    assert typed(*same, "--method", "in-situ").code == 0
    assert "plan.method 'in-situ', not 'chained'" in one_line(typed(*same, "--method", "chained"))


def test_a_campaign_is_shown_with_what_it_measured(typed, lab):
    record = json.loads(typed("campaign", "show", "profile", "--json").out)
    assert record["campaign"]["n_visits_done"] == record["campaign"]["n_visits_wanted"]
    roles = {row["role"] for row in record["measurements"]}
    assert roles == {"cover", "training", "calibration", "validation"}
    assert all(row["latency_ms"] > 0 for row in record["measurements"])
    assert "132/132" not in typed("campaign", "show", "profile").out
    (listed,) = [
        row
        for row in json.loads(typed("campaign", "list", "--json").out)
        if row["name"] == "profile"
    ]
    assert listed["state"] == "finished"


def test_a_model_is_measured_once_and_shown_from_then_on(typed, model_file):
    first = json.loads(typed("measure", model_file, "--target", "here", "--json", *FAST).out)
    again = json.loads(typed("measure", model_file, "--target", "here", "--json", *FAST).out)
    assert first == again
    assert first["latency_ms"] > 0
    assert len(first["visits"]) == 4
    n_kept = sum(not visit["left_out"] for visit in first["visits"])
    text = typed("measure", model_file, "--target", "here", *FAST).out
    assert f"{first['latency_ms']:.3f} ms, median of {n_kept} visits" in text
    assert ("disturbed and are left out" in text) == (n_kept < 4)


def test_a_model_shows_its_tails_its_first_run_and_its_nodes(typed, model_file):
    record = json.loads(typed("measure", model_file, "--target", "here", "--json", *FAST).out)
    details = record["details"]
    assert 0 < details["p50_ns"] <= details["p95_ns"] <= details["p99_ns"]
    assert len(details["visits"]) == 4
    assert all(details["opening"][name] > 0 for name in ("load_ns", "first_run_ns"))
    assert {node["place"] for node in details["nodes"]} == {"CPUExecutionProvider"}
    assert sum(node["share"] for node in details["nodes"]) == pytest.approx(1)
    text = typed("measure", model_file, "--target", "here", *FAST).out
    assert f"{len(details['nodes'])} on CPUExecutionProvider" in text
    assert "MiB more than before loading" in text


def test_a_model_tells_how_much_of_it_the_table_knows(typed, model_file, foreign_file):
    def covered(path):
        printed = typed("measure", path, "--target", "here", "--json", *FAST).out
        details = json.loads(printed)["details"]
        assert details["table"] == "digits-here"
        return details["covered"]

    known, unknown = covered(model_file), covered(foreign_file)
    assert known > 0.9  # of the space that was profiled; what the optimiser inserted may differ
    assert unknown < 0.1
    text = typed("measure", model_file, "--target", "here", *FAST).out
    assert "of the nodes' time is in kernels that 'digits-here' has measured" in text


def test_a_model_that_runs_without_a_pause_shows_its_beginning_and_its_end(typed, model_file):
    sustain = ["measure", model_file, "--target", "here", "--sustain", "4s"]
    record = json.loads(typed(*sustain, "--json").out)
    assert 3 <= record["sustained"]["n_visits"] <= 4
    assert record["sustained"]["first_ms"] > 0
    assert "ms in the last (" in typed(*sustain).out
    assert "less than 3s compares nothing" in one_line(typed(*sustain[:-1], "2s"))


def test_free_axes_are_asked_for_and_given(typed, tmp_path):
    node = helper.make_node("Relu", ["images"], ["output"])
    sides = ["n", 3, "height", "width"]
    values = [helper.make_tensor_value_info(name, 1, sides) for name in ("images", "output")]
    model = helper.make_model(
        helper.make_graph([node], "free", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    path = tmp_path / "free.onnx"
    path.write_bytes(model.SerializeToString())
    measure = ["measure", path, "--target", "here", *FAST]
    assert "--shape images=1,3,224,224" in one_line(typed(*measure))
    given = json.loads(typed(*measure, "--shape", "images=1,3,32,32", "--json").out)
    larger = json.loads(typed(*measure, "--shape", "images=1,3,512,512", "--json").out)
    assert larger["latency_ms"] > given["latency_ms"]


def test_targets_are_ranked_by_a_model(typed, model_file):
    compare = ["compare", model_file, "--targets", "two-threads,here", "--rounds", "8", *FAST]
    ended = typed(*compare, "--json")
    rows = json.loads(ended.out)
    assert ended.code == 0
    assert {row["target"]["name"] for row in rows} == {"here", "two-threads"}
    assert rows[0]["details"]["p50_ns"] <= rows[1]["details"]["p50_ns"]
    table = typed(*compare).out
    assert "TIMES THE FASTEST" in table
    (reference,) = [row for row in rows if row["is_reference"]]
    (other,) = [row for row in rows if not row["is_reference"]]
    assert reference["target"]["name"] == "two-threads"
    assert reference["output_error"] == 0
    assert 0 <= other["output_error"] < 2e-6
    assert "ERROR" in table
    assert " reference " in table
    judged = typed(*compare, "--require", "error<0.01%")
    assert judged.code == 0
    assert "error < 0.0001" in judged.out
    assert typed(*compare, "--require", "error<1e-99").code == (1 if other["output_error"] else 0)


@pytest.mark.parametrize(
    ("limit", "code", "verdict"),
    [("p50<10s", 0, "pass"), ("p50<1ns", 1, "fail"), ("p95<10s", 0, "pass")],
)
def test_a_requirement_is_judged_by_the_exit_code(typed, model_file, limit, code, verdict):
    ended = typed(
        *("compare", model_file, "--targets", "here", "--rounds", "8", *FAST, "--require", limit)
    )
    assert ended.code == code
    assert ended.out.rstrip().endswith(verdict)


def test_two_models_are_compared_side_by_side(typed, model_file, tmp_path):
    space = get_space("digits")
    _, largest = space.archs(space.extremes())
    bigger = tmp_path / "bigger.onnx"
    bigger.write_bytes(write_onnx(space.network(largest), batch=1, seed=0).model_bytes)
    compare = ["compare", bigger, "--targets", "here", "--rounds", "8", *FAST]
    failed = typed(*compare, "--against", model_file, "--require", "p50<+10%")
    assert failed.code == 1
    assert "bigger.onnx takes" in failed.out
    assert "longer than net.onnx" in failed.out
    assert typed(*compare, "--against", model_file, "--require", "p50<+10%", "--json").code == 1
    (row,) = json.loads(typed(*compare, "--against", model_file, "--json").out)
    assert row["output_error"] is None  # other resolutions are other inputs
    assert "its inputs are float32 1x1x" in row["output_error_reason"]
    inconclusive = typed(*compare, "--against", model_file, "--require", "error<1%")
    assert inconclusive.code == 3
    assert "Inconclusive: its inputs are float32" in inconclusive.out


def test_the_outputs_of_two_models_are_compared(typed, model_file, tmp_path):
    space = get_space("digits")
    arch, _ = space.archs(space.extremes())
    other = tmp_path / "other.onnx"
    other.write_bytes(write_onnx(space.network(arch), batch=1, seed=1).model_bytes)
    compare = ["compare", other, "--targets", "here", "--rounds", "8", *FAST]
    compare += ["--against", model_file]
    (row,) = json.loads(typed(*compare, "--json").out)
    assert 0.01 < row["output_error"] < 10
    failed = typed(*compare, "--require", "error<1%")
    assert failed.code == 1
    assert failed.out.rstrip().endswith("fail")


def test_what_cannot_be_judged_is_refused(typed, model_file):
    compare = ["compare", model_file, "--targets", "here"]
    for more, complaint in (
        (["--require", "p50<+3%"], "needs --against MODEL"),
        (["--require", "p50<3s", "--rounds", "7"], "--require needs --rounds 8 or more"),
        (["--require", "fast"], "'fast' is no requirement such as"),
        (["--require", "p42<3s"], "no latency is called 'p42'"),
        (["--require", "error<1%"], "--against MODEL, or a second target"),
        (["--require", "error<+1%"], "an error is a share already"),
        (["--require", "error<much"], "'much' is no percentage"),
        (["--against", model_file], "that is the same file"),
    ):
        assert complaint in one_line(typed(*compare, *more))
    assert "no target 'nowhere'; there are: here" in one_line(
        typed("compare", model_file, "--targets", "nowhere")
    )


def test_a_target_that_cannot_run_the_model_makes_the_gate_inconclusive(typed, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model at all")
    ended = typed("compare", broken, "--targets", "here", "--rounds", "8", *FAST)
    assert ended.code == 3
    assert "onnxruntime cannot load the program" in ended.out or "not a" in ended.out


def test_a_table_tells_what_it_is_valid_for_and_how_good_it_is(typed):
    rows = {row["name"]: row for row in json.loads(typed("table", "list", "--json").out)}
    row = rows["digits-here"]
    assert (row["kind"], row["calibrated"]) == ("table", True)
    assert row["target"]["name"] == "here"
    assert row["validation"]["n_networks"] == 6
    text = typed("table", "show", "digits-here").out
    assert "On 6 networks that no fit has seen, " in text
    assert "label noise" in text
    assert "method        in-situ" in text
    assert json.loads(typed("table", "show", "digits-here", "--json").out)["method"] == "in-situ"


@pytest.mark.parametrize("kind", ["linear", "macs"])
def test_a_predictor_is_fitted_shown_and_exported(typed, lab, tmp_path, kind):
    fitted = typed("predictor", "fit", f"p-{kind}", "--campaign", "profile", "--kind", kind)
    assert fitted.code == 0, fitted.err
    assert "On 6 networks that no fit has seen, " in fitted.out
    assert f"p-{kind}" in typed("predictor", "list").out
    assert json.loads(typed("predictor", "show", f"p-{kind}", "--json").out)["kind"] == kind
    path = tmp_path / "predictor.bin"
    assert typed("predictor", "export", f"p-{kind}", "--output", path).code == 0
    batch = get_space("digits").sample(20, np.random.default_rng(1))
    local = front_door.load_latency_model(path.read_bytes()).predict(batch)
    np.testing.assert_allclose(local.mean_ms, lab.predict(f"p-{kind}", batch).mean_ms, rtol=1e-6)
    assert "'digits-here' is not a predictor but a table" in one_line(
        typed("predictor", "show", "digits-here")
    )


def test_a_table_downloaded_predicts_what_the_coordinator_predicts(lab):
    space = get_space("digits")
    batch = space.sample(50, np.random.default_rng(2))
    table = lab.latency_model("digits-here")
    assert isinstance(table, LookupTable)
    here, there = table.predict(batch, 0.8), lab.predict("digits-here", batch, 0.8)
    for field in ("mean_ms", "lower_ms", "upper_ms", "measured_ms", "estimated_ms"):
        np.testing.assert_allclose(getattr(here, field), getattr(there, field))
    networks = [space.network(arch) for arch in space.archs(batch)[:3]]
    np.testing.assert_allclose(lab.predict("digits-here", networks).mean_ms, here.mean_ms[:3])


def test_predictions_are_printed_with_interval_and_unit(typed, arch_file):
    record = json.loads(typed("predict", "--model", "digits-here", "--sample", 3, "--json").out)
    assert [row["architecture"] for row in record["predictions"]] == [
        "sample 0",
        "sample 1",
        "sample 2",
    ]
    for row in record["predictions"]:
        assert 0 <= row["lower_ms"] < row["mean_ms"] < row["upper_ms"]
    ended = typed(
        "predict", "--model", "digits-here", "--arch", arch_file("digits"), "--target", "here"
    )
    assert ended.code == 0, ended.err
    assert "90.0 % INTERVAL" in ended.out
    assert "digits.json" in ended.out


def test_a_table_is_exported_and_comes_back_the_same(typed, lab, tmp_path):
    assert typed("table", "export", "digits-here", "--format", "csv").code == 0
    (path,) = tmp_path.iterdir()
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    rows = list(csv.DictReader(lines))
    assert len(rows) == lab.model_info("digits-here").n_entries
    own = tmp_path / "own"
    assert typed("table", "export", "digits-here", "--output", own).out == f"{own}\n"
    assert typed("table", "import", "copy", own).code == 0
    assert lab.export("copy", "latlas")[0] == own.read_bytes()


def test_a_campaign_goes_on_until_it_is_as_precise_as_was_asked_for(typed, lab):
    networks = ["--training-networks", 0, "--calibration-networks", 3, "--validation-networks", 0]
    start = ["campaign", "start", "precise", "--target", "here", "--space", "digits", *networks]
    timing = ["--rounds", 3, "--warmup-runs", 1, "--min-runs", 2, "--min-duration", "2ms"]
    unreachable = ["--target-error", "0.0001%", "--extra-rounds", 1, "--min-occurrences", 1]
    ended = typed(*start, *timing, *unreachable, "--watch")
    assert ended.code == 0, ended
    assert "precision   entries' noise costs a network " in ended.out
    assert ", wanted 0.0001 %" in ended.out
    status = lab.campaign("precise")
    assert status.state == "finished"
    assert status.findings.target_error == pytest.approx(1e-6)
    assert 0 < status.findings.entry_error < 0.5
    rows = lab.measurements("precise")
    # Each was visited again, once, except plain cover networks, which bring no entries.
    grown = [row for row in rows if row.mode == "profiled" or row.role == "calibration"]
    assert {len(row.visits) for row in grown} == {4}
    listed = json.loads(typed("campaign", "list", "--json").out)
    (found,) = [one["findings"] for one in listed if one["name"] == "precise"]
    assert found["entry_error"] == status.findings.entry_error
    assert "SUSPICIOUS" in typed("campaign", "list").out


# -- what is refused: one line, exit code 2, nothing written -------------------------------------


def test_how_ops_are_measured_is_no_matter_of_programs(latlas_at, model_file):
    start = ["campaign", "start", "p", "--target", "here", "--program", model_file]
    for option in (["--method", "chained"], ["--resolutions", "32"]):
        assert "how a space is profiled: add --space" in one_line(latlas_at(*start, *option))


def test_an_unknown_space_starts_no_campaign(latlas_at, lab):
    before = lab.campaigns()
    ended = latlas_at("campaign", "start", "c", "--target", "here", "--space", "moon")
    assert "no search space 'moon'" in one_line(ended)
    assert lab.campaigns() == before


def test_a_target_whose_runtime_is_missing_is_not_added(latlas_at, lab):
    before = lab.targets()
    complaint = one_line(latlas_at("target", "add", "phone", "--runtime", "snpe"))
    assert "target 'phone' needs runtime 'snpe'" in complaint
    assert "offers: litert, onnxruntime" in complaint
    assert lab.targets() == before


def test_a_corrupt_program_names_the_file(latlas_at, tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model" * 50)
    complaint = one_line(latlas_at("measure", path, "--target", "here", *FAST))
    assert complaint.startswith(f"{path}: ")
    assert list(tmp_path.iterdir()) == [path]
    assert one_line(latlas_at("measure", path, "--target", "here", *FAST)) == complaint


def test_a_table_is_not_applied_to_another_space(latlas_at, arch_file):
    ended = latlas_at("predict", "--model", "digits-here", "--arch", arch_file("course"))
    complaint = one_line(ended)
    assert "'course'" in complaint
    assert "'digits'" in complaint


def test_a_table_is_not_applied_to_another_target(latlas_at, arch_file):
    ended = latlas_at("predict", "--model", "digits-here", "--sample", 1, "--target", "two-threads")
    assert one_line(ended) == "targets 'here' and 'two-threads' differ in threads: 1 and 2"
    ended = latlas_at("predict", "--model", "digits-here", "--sample", 1, "--target", "moon")
    assert "no target 'moon'" in one_line(ended)


def test_a_broken_table_file_is_named_and_not_imported(latlas_at, lab, tmp_path):
    before = [info.name for info in lab.latency_models()]
    path = tmp_path / "table.latlas"
    data, _ = lab.export("digits-here", "latlas")
    for broken in (b"", b"nonsense", data[: len(data) // 2]):
        path.write_bytes(broken)
        assert one_line(latlas_at("table", "import", "t", path)).startswith(f"{path}: ")
    assert [info.name for info in lab.latency_models()] == before


def test_an_export_never_replaces_a_file_unasked(latlas_at, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("precious")
    export = ["table", "export", "digits-here", "--format", "csv", "--output", path]
    assert one_line(latlas_at(*export)) == f"{path} is there already; replace it with --force"
    assert path.read_text() == "precious"
    assert latlas_at(*export, "--force").code == 0
    assert path.read_text() != "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_what_does_not_exist_is_named(typed):
    for args in (
        ["campaign", "show", "moon"],
        ["table", "show", "moon"],
        ["predict", "--model", "moon", "--sample", "1"],
        ["table", "build", "t", "--campaign", "moon"],
        ["device", "show", "moon"],
        ["campaign", "start", "c", "--target", "moon", "--space", "digits"],
    ):
        assert "'moon'" in one_line(typed(*args))


def test_a_second_coordinator_does_not_take_the_database(latlas, fleet):
    ended = latlas("serve", "--database", fleet.folder / "lab.db", "--port", 0, "--http-port", 0)
    assert ended.code == 2
    assert "latlas: " in ended.err.splitlines()[-1]


def test_listening_beyond_this_machine_needs_to_be_asked_for(latlas, tmp_path):
    ended = latlas("serve", "--host", "0.0.0.0")
    assert "--insecure" in one_line(ended)
    assert not list(tmp_path.iterdir())


# -- interruptions -------------------------------------------------------------------------------


@contextmanager
def long_campaign(lab, model_file, name, n_rounds):
    """A campaign of one program that takes a few seconds."""
    program = (lab.upload(model_file.read_bytes()), "net")
    sampling = Sampling(
        n_rounds=n_rounds, n_extra_rounds=0, warmup_runs=1, min_runs=2, min_duration_ns=50_000_000
    )
    lab.start_measure(name, "here", [program], sampling)
    try:
        yield
    finally:
        lab.cancel(name)


def test_an_interrupted_watch_says_that_the_campaign_goes_on(lab, fleet, model_file):
    with long_campaign(lab, model_file, "watched", 400):
        command = [sys.executable, "-m", "latlas.cli.main", "campaign", "watch", "watched"]
        with subprocess.Popen(
            [*command, "--coordinator", fleet.address], stderr=subprocess.PIPE, text=True
        ) as watching:
            try:
                assert "campaign watched" in watching.stderr.readline()
                watching.send_signal(signal.SIGINT)
                _, err = watching.communicate(timeout=20)
            finally:
                watching.kill()
        assert watching.returncode == 130
        assert err.endswith("`latlas campaign watch watched` shows it again\n")
        assert lab.campaign("watched").is_running
    assert lab.campaign("watched").state == "cancelled"
    assert lab.cancel("profile").state == "finished"


def test_watching_goes_on_after_the_coordinator_was_killed(lab, fleet, model_file):
    with long_campaign(lab, model_file, "killed", 100):
        statuses = lab.watch("killed")
        next(status for status in statuses if status.n_visits_done >= 10)
        fleet.kill_coordinator()
        fleet.serve()
        *_, last = statuses
    assert (last.state, last.n_visits_done) == ("finished", 100)
    (row,) = lab.measurements("killed")
    assert [visit.round for visit in row.visits] == list(range(100))
