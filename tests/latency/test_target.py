import dataclasses

import pytest

from latlas_latency.measurement import Target
from latlas_ops.errors import InvalidInputError, TargetMismatchError

DIFFERENT = {
    "device_model": "another board",
    "runtime": "litert",
    "runtime_version": "1.31.0",
    "provider": "XnnpackExecutionProvider",
    "power_mode": "15W",
    "execution": "compiled",
    "precision": "fp16",
    "graph_level": "basic",
    "threads": 4,
    "cores": (0,),
    "batch": 8,
    "allow_fallback": True,
}


def test_every_field_but_the_name_keeps_targets_apart(target):
    assert set(DIFFERENT) == set(target.conditions())


@pytest.mark.parametrize("field", DIFFERENT)
def test_an_attempt_to_merge_unlike_targets_names_the_field(target, field):
    other = dataclasses.replace(target, **{field: DIFFERENT[field]})
    with pytest.raises(TargetMismatchError, match=f"differ in {field}: "):
        target.require_same(other)
    assert target.key != other.key


def test_the_name_is_not_part_of_the_identity(target):
    renamed = dataclasses.replace(target, name="same-thing")
    target.require_same(renamed)
    assert target.key == renamed.key


def test_cores_are_a_set(target):
    assert dataclasses.replace(target, cores=(3, 1, 3)).cores == (1, 3)


def test_a_target_survives_json_values(target):
    full = dataclasses.replace(target, **DIFFERENT)
    assert Target.from_dict(full.to_dict()) == full


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("graph_level", "most", "graph_level 'most' is not one of disabled, basic, extended, all"),
        ("precision", "fp8", "precision 'fp8' is not one of"),
        ("execution", "lazy", "execution 'lazy' is not one of"),
        ("name", "my board", "target name 'my board' must be one word"),
        ("name", "a/b", "must be one word without '/'"),
        ("threads", 0, "threads and batch must be at least 1"),
    ],
)
def test_a_malformed_field_is_named(target, field, value, complaint):
    with pytest.raises(InvalidInputError, match=complaint):
        dataclasses.replace(target, **{field: value})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"colour": "red"}, "a target has no field 'colour'"),
        ({"cores": "0-3"}, "cores must be a list"),
    ],
)
def test_a_record_with_a_wrong_field_is_refused(target, change, complaint):
    with pytest.raises(InvalidInputError, match=complaint):
        Target.from_dict(target.to_dict() | change)


def test_a_record_without_a_field_is_refused(target):
    record = target.to_dict()
    del record["runtime"]
    with pytest.raises(InvalidInputError, match="runtime"):
        Target.from_dict(record)
