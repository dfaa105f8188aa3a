"""Files of latency models: what is written is read again, and damage is named."""

import csv
import io
import json
import math
import re
import zipfile

import numpy as np
import pytest

from latlas_latency.calibration import AffineFit, Calibration
from latlas_latency.comparison import validate
from latlas_latency.formats import (
    EXPORT_FORMATS,
    dump_latency_model,
    export_latency_model,
    load_latency_model,
)
from latlas_latency.predictors.linear import fit_linear
from latlas_latency.predictors.macs import fit_macs
from latlas_latency.predictors.mlp import fit_mlp
from latlas_latency.table import LookupTable, TableEntry
from latlas_latency.validation import Validation
from latlas_ops import OpSpec, get_space
from latlas_ops.costs import op_cost, space_costs
from latlas_ops.errors import InvalidInputError, SpaceMismatchError

NAN = math.nan


@pytest.fixture(scope="module")
def table(table, campaign):
    return table.with_validation(validate(table, campaign.validation, campaign.space))


@pytest.fixture(scope="module")
def predictors(space, target):
    rng = np.random.default_rng(0)
    batch = space.sample(80, rng)
    latency_ms = (0.3 + space_costs(batch).macs / 2e7) * np.exp(rng.normal(0, 0.01, 80))
    validation = Validation(1, 0.1, 0.1, NAN, NAN, 0.0, 1.0, NAN, 0, 1.0, 0.9, NAN, NAN)
    return {
        "mlp": fit_mlp(batch, latency_ms, target, seed=1),
        "linear": fit_linear(batch, latency_ms, target).with_validation(validation),
        "macs": fit_macs(batch, latency_ms, target),
    }


@pytest.fixture(scope="module")
def models(table, predictors):
    return {"table": table, **predictors}


def made_table(space, target, *, intercept_ms=0.05, slope=1.1):
    """A calibrated table of any space, whose entries follow the ops' costs."""
    entries = tuple(
        TableEntry(op, 0.01 + 2e-8 * op_cost(op).macs, 0.001, 3, 9) for op in space.slot_entries.ops
    )
    fit = AffineFit(intercept_ms, slope, ((1e-6, 0.0), (0.0, 1e-6)), 0.01, 8)
    return LookupTable(target, None, entries, Calibration(fit, 0.001))


KINDS = ("table", "mlp", "linear", "macs")


# -- own files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_predicts_the_same_after_its_file(models, space, kind):
    model = models[kind]
    data = dump_latency_model(model)
    again = load_latency_model(data)
    assert type(again) is type(model)
    assert (again.kind, again.target, again.space) == (kind, model.target, model.space)
    batch = space.sample(50, np.random.default_rng(1))
    for level in (0.5, 0.9):
        one, other = model.predict(batch, level), again.predict(batch, level)
        for name in ("mean_ms", "lower_ms", "upper_ms", "measured_ms", "estimated_ms"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert dump_latency_model(again) == data


def test_a_table_comes_back_with_everything_it_knows(table):
    again = load_latency_model(dump_latency_model(table))
    assert again.entries == table.entries
    assert again.calibration == table.calibration
    assert again.conditions == table.conditions
    assert again.validation == table.validation


def test_a_table_without_calibration_conditions_and_space_comes_back_so(table, target):
    bare = LookupTable(target, None, table.entries[:2])
    again = load_latency_model(dump_latency_model(bare))
    assert again == bare
    assert not again.calibrated


def test_figures_that_could_not_be_had_come_back_as_nan(predictors):
    again = load_latency_model(dump_latency_model(predictors["linear"]))
    assert math.isnan(again.validation.spearman)
    assert again.validation.mape == 0.1


def test_a_table_is_a_document_that_people_and_programs_can_read(table):
    text = dump_latency_model(table).decode()
    record = json.loads(text)
    assert (record["format"], record["version"]) == ("latlas-table", 1)
    assert record["space"] == {"name": "digits", "version": get_space("digits").version}
    assert record["target"]["graph_level"] == "all"
    # An entry a line.
    assert len(text.splitlines()) == 7 + 2 + len(table.entries) + 2
    entry = record["entries"][0]
    assert OpSpec.from_key(json.dumps(entry["op"])) == table.entries[0].op
    # The documented formula, from nothing but the file.
    means = {json.dumps(each["op"], sort_keys=True): each["mean_ms"] for each in record["entries"]}
    space = get_space("digits")
    arch = space.archs(space.extremes())[1]
    total = sum(means[json.dumps(json.loads(op.key), sort_keys=True)] for op in space.ops(arch))
    line = record["calibration"]
    predicted = table.predict(space.batch([arch])).mean_ms[0]
    assert line["intercept_ms"] + line["slope"] * total == pytest.approx(predicted, rel=1e-12)


def test_a_predictor_is_an_archive_of_plain_arrays(predictors):
    data = dump_latency_model(predictors["mlp"])
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        header = json.loads(archive["header"].tobytes())
        assert archive["weight0"].dtype == np.float32
        n_names = len(header["model"]["total_names"]) + len(header["model"]["choice_names"])
        assert archive["weight0"].shape[1] == n_names
    assert (header["format"], header["kind"]) == ("latlas-predictor", "mlp")


# -- damage --------------------------------------------------------------------------------------


def refused(data):
    with pytest.raises(InvalidInputError) as caught:
        load_latency_model(data)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "not a latency model"),
        (b"\x80\x04pickle", "not a latency model"),
        (b"[1]", "not a latency model"),
        (b"{", "latency table is not JSON"),
        (b'{"version": 1}', "latency table: format is missing"),
        (b'{"format": "other", "version": 1}', "is of format 'other'"),
        (b'{"format": "latlas-table", "version": 99}', "version 99; this Latlas reads version 1"),
        (b'{"format": "latlas-table", "version": 1}', "latency table: target is missing"),
        (b"PK broken", "latency predictor: the archive is damaged"),
    ],
)
def test_what_is_no_latency_model_is_refused(data, complaint):
    assert complaint in refused(data)


def set_in(record, path, value):
    *parents, last = path
    for step in parents:
        record = record[step]
    if value is None:
        del record[last]
    else:
        record[last] = value


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (["entries", 3, "mean_ms"], None, "latency table: entries[3]: mean_ms is missing"),
        (["entries", 3, "mean_ms"], "x", 'entries[3]: mean_ms must be a number, not "x"'),
        (["entries", 3, "mean_ms"], 0, "entries[3]: entry "),
        (["entries", 3, "mean_ms"], math.inf, "entries[3]: mean_ms must be a number"),
        (["entries", 3, "n_visits"], 1.5, "entries[3]: n_visits must be a whole number"),
        (["entries", 3, "kind"], "guessed", "entries[3]: entry "),
        (["entries", 3, "colour"], 1, "entries[3] has a field 'colour'"),
        (["entries", 3, "op", "kind"], "moonconv", "unknown op kind 'moonconv'"),
        (["entries", 3, "op"], 5, "entries[3]: not an op key"),
        (["entries"], [], "needs at least one entry"),
        (["entries"], {}, "entries must be a list"),
        (["target", "precision"], "fp7", "latency table: target: target 'bench-ort-1t': precision"),
        (["target", "threads"], "two", "latency table: target: "),
        (["target", "colour"], "red", "a target has no field 'colour'"),
        (["space", "name"], 5, "latency table: space: name must be a string"),
        (["calibration", "slope"], None, "calibration: slope is missing"),
        (["calibration", "covariance"], [[1, 2]], "covariance must be two rows of two numbers"),
        (["calibration", "n_networks"], 2, "n_networks must be a whole number of at least 3"),
        (["conditions", "drift_removed"], 1, "drift_removed must be true or false"),
        (["conditions", "device_ids"], [1], "device_ids must be a list of strings"),
        (["validation", "mape"], "good", "validation: mape must be a number"),
        (["shape"], "round", "latency table has a field 'shape'"),
    ],
)
def test_a_wrong_field_of_a_table_is_named(table, path, value, complaint):
    record = json.loads(dump_latency_model(table))
    set_in(record, path, value)
    assert complaint in refused(json.dumps(record).encode())


def test_two_entries_for_one_op_are_refused(table):
    record = json.loads(dump_latency_model(table))
    record["entries"].append(record["entries"][0])
    assert "latency table: two entries for one op" in refused(json.dumps(record).encode())


def repacked(data, change):
    """The archive of `data` after `change(header, arrays)`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays.pop("header").tobytes())
    change(header, arrays)
    stream = io.BytesIO()
    text = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    np.savez(stream, header=text, **arrays)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("kind", "change", "complaint"),
    [
        ("mlp", lambda h, a: h.update(kind="forest"), "unknown kind 'forest'"),
        ("mlp", lambda h, a: h.update(version=2), "version 2; this Latlas reads version 1: update"),
        ("mlp", lambda h, a: h.update(space=None), "space must be an object"),
        ("mlp", lambda h, a: h["model"].pop("shrink"), "model: shrink is missing"),
        ("mlp", lambda h, a: a.pop("scores"), "array scores is missing"),
        ("mlp", lambda h, a: a.pop("weight0"), "array weight0 is missing"),
        ("mlp", lambda h, a: a.update(weight1=a["weight1"][:, :5]), "array weight1 must hold"),
        ("mlp", lambda h, a: a.update(bias2=a["bias2"] * np.nan), "bias2 holds values that are no"),
        ("linear", lambda h, a: a.update(per_total_ms=np.zeros(2)), "array per_total_ms must hold"),
        ("linear", lambda h, a: a.update(scores=np.array(["a"])), "array scores must hold floats"),
        ("linear", lambda h, a: a.update(scores=np.array([-1.0])), "scores holds negative values"),
        ("macs", lambda h, a: h["model"].update(residual="x"), "model: residual must be a number"),
    ],
)
def test_a_wrong_part_of_a_predictor_is_named(predictors, kind, change, complaint):
    data = repacked(dump_latency_model(predictors[kind]), change)
    assert complaint in refused(data)


def test_a_truncated_predictor_is_refused(predictors):
    data = dump_latency_model(predictors["mlp"])
    assert "damaged" in refused(data[: len(data) // 2])


def test_pickled_arrays_are_refused(predictors):
    stream = io.BytesIO()
    np.savez(stream, header=np.array([{}], dtype=object))
    assert "latency predictor: the archive is damaged" in refused(stream.getvalue())


def test_an_archive_that_unpacks_to_far_more_is_refused_before_it_is_unpacked():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", bytes(80 << 20))
    assert "unpacks to more than 64 MiB" in refused(stream.getvalue())


# -- exports -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_own_format_is_an_export_too(models, space, kind):
    data, suffix = export_latency_model(models[kind], "latlas", space)
    assert data == dump_latency_model(models[kind])
    assert suffix == (".json" if kind == "table" else ".npz")


def test_csv_has_one_row_per_op_and_sums_to_the_prediction(table, space):
    data, suffix = export_latency_model(table, "csv", space)
    assert suffix == ".csv"
    lines = data.decode().splitlines()
    intercept_ms = float(re.search(r"# network_ms = (\S+) \+ sum", data.decode()).group(1))
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    assert len(rows) == len(table.entries)
    latency_ms = {OpSpec.from_key(row["op_key"]): float(row["latency_ms"]) for row in rows}
    arch = space.archs(space.extremes())[0]
    total = intercept_ms + sum(latency_ms[op] for op in space.ops(arch))
    assert total == pytest.approx(table.predict(space.batch([arch])).mean_ms[0])


@pytest.mark.parametrize("fmt", ["csv", "ofa-yaml"])
def test_an_uncalibrated_table_says_so_in_its_exports(space, target, fmt):
    raw = LookupTable(target, None, made_table(space, target).entries)
    data, _ = export_latency_model(raw, fmt, space)
    assert "# not calibrated" in data.decode()


@pytest.mark.parametrize("kind", ["mlp", "linear", "macs"])
@pytest.mark.parametrize("fmt", ["csv", "ofa-yaml"])
def test_a_predictor_has_no_ops_to_list(models, space, kind, fmt):
    with pytest.raises(InvalidInputError, match=f"{fmt}.*{kind} predictor has none; use 'latlas'"):
        export_latency_model(models[kind], fmt, space)


def test_an_unknown_format_is_refused_with_those_that_exist(table, space):
    with pytest.raises(InvalidInputError, match=f"no format 'xml'; .* {EXPORT_FORMATS[-1]}"):
        export_latency_model(table, "xml", space)


def test_an_export_for_another_space_is_refused(table):
    with pytest.raises(SpaceMismatchError, match="'digits' version 2 and cannot speak of"):
        export_latency_model(table, "csv", get_space("course"))


def test_what_is_no_model_has_no_file():
    with pytest.raises(InvalidInputError, match="a dict has no file format"):
        dump_latency_model({})


# -- the form in which Once-for-All reads tables --------------------------------------------------


def read_simple_yaml(text):
    """`key:` lines, each followed by indented `name: number` lines. Enough for these tables."""
    table = {}
    for line in text.splitlines():
        if not line.startswith("#") and not line.startswith(" "):
            table[line.rstrip(":")] = block = {}
        elif line.startswith(" "):
            name, number = line.split(":")
            block[name.strip()] = float(number)
    return table


def ofa_walk(space, arch, lut):
    """Sums a network as Once-for-All's own reader does: `Conv`, blocks, `Conv_1`, ... `Logits`."""

    def shape(dims):
        channels, *sides = dims
        return "x".join(map(str, (*sides, channels)))

    stem, *blocks, head = space.ops(arch)
    stem_out = stem.outputs[0]
    first = f"{shape(stem_out)}-output:{shape(stem_out)}-expand:{stem_out[0]}"
    keys = [
        f"Conv-input:{shape(stem.inputs[0])}-output:{shape(stem_out)}",
        f"expanded_conv-input:{first}-kernel:3-stride:1-idskip:1-se:0-hs:0",
    ]
    for op in blocks:
        keys.append(
            f"expanded_conv-input:{shape(op.inputs[0])}-output:{shape(op.outputs[0])}"
            f"-expand:{op.integer('expanded_channels')}-kernel:{op.integer('kernel')}"
            f"-stride:{op.integer('stride')}-idskip:{int(op.attribute('skip'))}"
            f"-se:{int(op.integer('se_channels') > 0)}"
            f"-hs:{int(op.attribute('activation') == 'hswish')}"
        )
    channels, side, _ = head.inputs[0]
    expanded, features = head.integer("expanded_channels"), head.integer("feature_channels")
    keys.append(f"Conv_1-input:{side}x{side}x{channels}-output:{side}x{side}x{expanded}")
    keys.append(f"AvgPool2D-input:{side}x{side}x{expanded}-output:1x1x{expanded}")
    if features:
        keys.append(f"Conv_2-input:1x1x{expanded}-output:1x1x{features}")
    last = features or expanded
    keys.append(f"Logits-input:1x1x{last}-output:{head.integer('classes')}")
    return sum(lut[key]["mean"] for key in keys)


@pytest.mark.parametrize("name", ["digits", "ofa-mobilenetv3", "course"])
def test_summing_the_yaml_as_ofa_does_gives_the_calibrated_latency(target, name):
    space = get_space(name)
    table = made_table(space, target)
    data, suffix = export_latency_model(table, "ofa-yaml", space)
    assert suffix == ".yaml"
    lut = read_simple_yaml(data.decode())
    assert all(block["mean"] > 0 for block in lut.values())
    batch = space.sample(20, np.random.default_rng(0))
    sums = [ofa_walk(space, arch, lut) for arch in space.archs(batch)]
    np.testing.assert_allclose(sums, table.predict(batch).mean_ms, rtol=1e-9)


def test_every_export_carries_what_the_last_validation_said(space, target, campaign):
    table = made_table(space, target)
    for fmt in ("csv", "ofa-yaml"):
        text = export_latency_model(table, fmt, space)[0].decode()
        assert "# not validated: " in text
    judged = table.with_validation(validate(table, campaign.validation, space))
    for fmt in ("csv", "ofa-yaml"):
        text = export_latency_model(judged, fmt, space)[0].decode()
        assert f"# {judged.validation.summary}" in text
        assert f"on {len(campaign.validation)} networks that it was not made from" in text


def test_ofa_yaml_refuses_ops_that_it_has_no_key_for(target):
    entry = TableEntry(OpSpec.of("linear", (10,), out_features=4), 0.1, 0.0, 1, 3)
    with pytest.raises(InvalidInputError, match=r"no key for linear\(10.*use csv"):
        export_latency_model(LookupTable(target, None, (entry,)), "ofa-yaml", None)


def test_ofa_yaml_refuses_ops_that_it_cannot_tell_apart(target):
    block = {"out_channels": 8, "expanded_channels": 16, "kernel": 3}
    entries = tuple(
        TableEntry(OpSpec.of("mbconv", (8, 4, 4), activation=activation, **block), ms, 0.0, 1, 3)
        for activation, ms in (("relu", 0.1), ("relu6", 0.2))
    )
    with pytest.raises(InvalidInputError, match="two ops share the key expanded_conv-input:4x4x8"):
        export_latency_model(LookupTable(target, None, entries), "ofa-yaml", None)


def test_keys_have_the_form_of_the_published_tables(third_party_data, target):
    folder = third_party_data / "mit_han_lab_luts" / "ofa_note10"
    published = read_simple_yaml((folder / "160_lookup_table.yaml").read_text())
    data, _ = export_latency_model(
        made_table(get_space("ofa-mobilenetv3"), target), "ofa-yaml", None
    )
    ours = read_simple_yaml(data.decode())

    def forms(table):
        """Keys with every number as N, but what is a choice of 0 or 1 as it is."""
        numbers = re.compile(r"(?<=[:x])\d+(?=[x:-]|$)")
        return {re.sub(r"(idskip|se|hs):N", r"\1:01", numbers.sub("N", key)) for key in table}

    assert forms(ours) == forms(published)
    assert {frozenset(block) for block in ours.values()} == {frozenset({"count", "mean", "std"})}
    assert {frozenset(block) for block in published.values()} == {
        frozenset({"count", "mean", "std"})
    }
