"""A space measured at its ends, from the command line: what lies between is interpolated."""

import json

import pytest

from latlas.lab import connect
from latlas.records import Sampling
from latlas_latency.formats import load_latency_model

FAST = Sampling(n_rounds=2, n_extra_rounds=0, warmup_runs=1, min_runs=2, min_duration_ns=2_000_000)


@pytest.fixture(autouse=True, scope="module")
def part(fleet):
    """A campaign that measured ops at 32 and 48, and its table."""
    with connect(fleet.address) as lab:
        lab.start_profile(
            "ends",
            "digits",
            "here",
            n_training_networks=0,
            n_calibration_networks=6,
            n_validation_networks=6,
            min_occurrences=1,
            resolutions=(48, 32),
            sampling=FAST,
        )
        *_, last = lab.watch("ends")
        assert last.state == "finished"
        lab.build_table("ends-table", "ends")


def test_the_same_resolutions_on_the_command_line_are_the_same_campaign(typed, lab):
    same = ["campaign", "start", "ends", "--space", "digits", "--target", "here"]
    same += ["--training-networks", 0, "--calibration-networks", 6, "--validation-networks", 6]
    same += ["--min-occurrences", 1, "--rounds", 2, "--extra-rounds", 0, "--warmup-runs", 1]
    same += ["--min-runs", 2, "--min-duration", "2ms"]
    assert typed(*same, "--resolutions", "32,48").code == 0
    refused = typed(*same, "--resolutions", "32,40")
    assert refused.code == 2
    assert "with plan.resolutions (32, 48), not (32, 40)" in refused.err
    assert "is no whole number" in typed(*same, "--resolutions", "32-48").err
    unknown = typed(*same[:2], "others", *same[3:], "--resolutions", "32,33")
    assert "'digits' has no resolution 33" in unknown.err
    covers = [row for row in lab.measurements("ends") if row.role == "cover"]
    assert {row.genes[0] for row in covers} == {0, 2}


def test_a_table_says_what_it_lacks_and_what_could_be_interpolated(typed):
    shown = typed("table", "show", "ends-table").out
    assert "56 ops of the space were not measured; 56 of them lie between measured ones" in shown
    assert "3 whole networks with interpolated ops: mean absolute error" in shown
    assert "(assumed)" in shown, "of two resolutions no entry can be left out"
    found = json.loads(typed("table", "show", "ends-table", "--json").out)["coverage"]
    assert (found["n_missing"], found["n_between"], found["n_interpolated"]) == (56, 56, 0)
    assert found["check"]["n_networks"] == 3
    errors = {(one["axis"], one["kind"]): one for one in found["errors"]}
    assert not errors["resolution", "all"]["known"]
    assert errors["channels", "mbconv"]["n_entries"] > 0


def test_a_table_that_was_measured_throughout_shows_the_errors_too(typed):
    shown = typed("table", "show", "digits-here").out
    assert "not measured" not in shown
    assert "left out" in shown
    found = json.loads(typed("table", "show", "digits-here", "--json").out)["coverage"]
    assert (found["n_missing"], found["n_between"]) == (0, 0)
    errors = {(one["axis"], one["kind"]): one for one in found["errors"]}
    assert errors["resolution", "all"]["known"]


def test_predictions_interpolate_only_if_asked(typed):
    command = ["predict", "--model", "ends-table", "--sample", 12]
    refused = typed(*command)
    assert refused.code == 2
    assert "can be interpolated" in refused.err
    ended = typed(*command, "--interpolate", "--json")
    assert ended.code == 0, ended.err
    rows = json.loads(ended.out)["predictions"]
    for row in rows:
        assert (row["interpolated_ms"] > 0) == (row["genes"][0] == 1)
        assert row["measured_ms"] + row["interpolated_ms"] == pytest.approx(row["mean_ms"])
        assert row["estimated_ms"] == 0
    assert any(row["interpolated_ms"] for row in rows)
    assert "OF WHICH INTERPOLATED" in typed(*command, "--interpolate").out


def test_a_table_is_built_filled_on_request_and_exported_so(typed, lab, tmp_path):
    ended = typed("table", "build", "ends-filled", "--campaign", "ends", "--interpolate")
    assert ended.code == 0, ended.err
    assert "56 of 168 entries are interpolated" in ended.out
    path = tmp_path / "filled.json"
    assert typed("table", "export", "ends-filled", "--output", path).code == 0
    assert load_latency_model(path.read_bytes()).n_interpolated == 56
    assert typed("predict", "--model", "ends-filled", "--sample", 12).code == 0
    assert lab.model_info("ends-filled").validation.n_networks == 6


def test_a_filled_table_is_validated_as_any_other(typed):
    ended = typed(
        "table", "validate", "ends-filled", "--random-networks", 4, "--selected-networks", 2,
        "--no-stand-alone", "--rounds", 2, "--extra-rounds", 0, "--warmup-runs", 1,
        "--min-runs", 2, "--min-duration", "2ms", "--json",
    )  # fmt: skip
    assert typed("table", "build", "ends-filled", "--campaign", "ends", "--interpolate").code == 0
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["validation"]["n_networks"] == 6
