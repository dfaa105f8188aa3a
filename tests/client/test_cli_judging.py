"""Tables judged from the command line, by networks that a real agent measures."""

import json

import pytest

from latlas.lab import connect
from latlas_latency.formats import load_latency_model

FAST = ["--rounds", "2", "--extra-rounds", "0", "--warmup-runs", "1", "--min-runs", "2"]
FAST += ["--min-duration", "2ms"]
TABLE = "judged"


@pytest.fixture(autouse=True, scope="module")
def table(fleet):
    """A table of its own: a validation stays with the table."""
    with connect(fleet.address) as lab:
        lab.build_table(TABLE, "profile")


def test_a_table_is_validated_beside_its_baselines_and_carries_the_result(typed, lab, tmp_path):
    command = ["table", "validate", TABLE, "--random-networks", 4]
    command += ["--selected-networks", 3, *FAST]
    ended = typed(*command, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)["validation"]
    assert found["n_networks"] == 7
    assert [(part["name"], part["n_networks"]) for part in found["parts"]] == [
        ("random networks", 4),
        ("networks found by search", 3),
        ("as calibrated earlier", 7),
    ]
    names = [baseline["name"] for baseline in found["baselines"]]
    assert {"MACs, affine", "ops alone, sum", "ops alone, affine"} <= set(names)

    n_campaigns = len(lab.campaigns())
    text = typed(*command).out
    assert len(lab.campaigns()) == n_campaigns, "what was measured is not measured again"
    for word in (*names, "networks found by search", "label noise", "pairs of equal MACs"):
        assert word in text

    path = tmp_path / "table.json"
    assert typed("table", "export", TABLE, "--output", path).code == 0
    carried = load_latency_model(path.read_bytes()).validation
    assert carried is not None
    assert (carried.mape, carried.n_networks) == (found["mape"], 7)
    unseen = {row.genes for row in lab.measurements(lab.campaigns()[-1].name) if row.genes}
    seen = {row.genes for row in lab.measurements("profile")}
    assert not unseen & seen


def test_a_table_is_revalidated_and_tells_why(typed):
    ended = typed("table", "revalidate", TABLE, "--networks", 6, "--json", *FAST)
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert found["verdict"] in ("valid", "rescale", "rebuild")
    assert found["n_networks"] == 6
    assert found["reason"]
    ended = typed("table", "revalidate", TABLE, "--networks", 5, *FAST)
    assert ended.code == 0, ended.err
    assert "measured / predicted" in ended.out


def test_another_target_may_only_be_asked_whether_the_table_holds(typed, lab):
    again = ["table", "revalidate", TABLE, "--target", "two-threads", "--networks", 5]
    ended = typed(*again, "--json", *FAST)
    assert ended.code == 0, ended.err
    assert "threads" in json.loads(ended.out)["reason"]


def test_a_table_that_holds_is_kept_for_the_target_it_was_asked_about(typed, lab):
    command = ["table", "revalidate", TABLE, "--target", "two-threads", "--networks", 5]
    ended = typed(*command, "--save-as", "carried", "--json", *FAST)
    names = [info.name for info in lab.latency_models()]
    if ended.code == 0:
        assert lab.model_info("carried").target.name == "two-threads"
        assert lab.model_info("carried").validation is None
    else:
        assert "is not to be rescaled, the verdict is 'rebuild'" in ended.err
        assert "carried" not in names


def test_what_looks_wrong_in_a_table_is_listed_and_visited_again(typed, lab):
    found = json.loads(typed("table", "suspects", TABLE, "--json").out)
    assert set(found) >= {"breaks", "stretches", "disagreements"}
    assert found["disagreements"] == []
    assert found["n_visits_requeued"] == 0
    ended = typed("table", "suspects", TABLE)
    assert ended.code == 0, ended.err
    assert "no two boards disagree" in ended.out
    text = typed("table", "suspects", TABLE, "--requeue").out
    assert "more visits in campaign profile" in text
    *_, last = lab.watch("profile")
    assert last.state == "finished"


def test_what_cannot_be_judged_is_refused_in_one_line(typed):
    for command, complaint in (
        (["table", "validate", "nope"], "nope"),
        (["table", "validate", TABLE, "--random-networks", 0, "--selected-networks", 0],
         "a validation needs at least one network"),
        (["table", "revalidate", TABLE, "--networks", 2, *FAST], "at least 5 networks"),
    ):  # fmt: skip
        ended = typed(*command)
        assert ended.code == 2, ended
        assert ended.out == ""
        assert complaint in ended.err.splitlines()[-1]
