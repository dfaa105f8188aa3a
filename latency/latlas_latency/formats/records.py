"""JSON records of the values that several files contain."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from latlas_latency.calibration import LEAST_NETWORKS, AffineFit
from latlas_latency.formats.fields import Fields, as_number
from latlas_latency.measurement.target import Target
from latlas_latency.space_reference import SpaceReference
from latlas_latency.validation import Errors, NamedErrors, Validation
from latlas_ops.errors import InvalidInputError

Record = dict[str, Any]

AFFINE_FIELDS = ("intercept_ms", "slope", "covariance", "residual", "n_networks")

_ERROR_FIELDS = tuple(field.name for field in dataclasses.fields(Errors))
_VALIDATION_FIELDS = tuple(field.name for field in dataclasses.fields(Validation))
_LATER: Record = {
    "pair_order": None,
    "n_pairs": 0,
    "measured_ns": 0,
    "session_scale": None,
    "parts": [],
    "baselines": [],
}
"""What a validation has whose file was written before these fields were."""


def without_nan(record: Record) -> Record:
    """The record with null for NaN, which JSON cannot hold, at any depth."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: clean(inner) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [clean(inner) for inner in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return {name: clean(value) for name, value in record.items()}


def target_from(record: Fields) -> Target:
    """The target of `Target.to_dict`."""
    try:
        return Target.from_dict(record.as_dict())
    except (InvalidInputError, TypeError, ValueError) as error:
        raise InvalidInputError(f"{record.path}: {error}") from error


def space_record(space: SpaceReference | None) -> Record | None:
    """A space reference; null for None."""
    return None if space is None else {"name": space.name, "version": space.version}


def space_from(record: Fields) -> SpaceReference:
    """The reference of `space_record`."""
    return SpaceReference(record.text("name"), record.integer("version"))


def affine_record(fit: AffineFit) -> Record:
    """A line from anything to milliseconds."""
    return {
        "intercept_ms": fit.intercept,
        "slope": fit.slope,
        "covariance": [list(row) for row in fit.covariance],
        "residual": fit.residual,
        "n_networks": fit.n_networks,
    }


def affine_from(record: Fields) -> AffineFit:
    """The line of `affine_record`."""
    covariance = record.items("covariance")
    rows = [
        tuple(number for value in row if (number := as_number(value)) is not None)
        for row in covariance
        if isinstance(row, list)
    ]
    if [len(row) for row in rows] != [2, 2] or len(covariance) != 2:
        raise InvalidInputError(f"{record.path}: covariance must be two rows of two numbers")
    return AffineFit(
        record.number("intercept_ms"),
        record.number("slope"),
        ((rows[0][0], rows[0][1]), (rows[1][0], rows[1][1])),
        record.number("residual", 0),
        record.integer("n_networks", LEAST_NETWORKS),
    )


def validation_record(validation: Validation | None) -> Record | None:
    """A validation; figures that could not be had become null, and None too."""
    return None if validation is None else without_nan(dataclasses.asdict(validation))


def validation_from(record: Fields | None) -> Validation | None:
    """The validation of `validation_record`."""
    if record is None:
        return None
    record = Fields({**_LATER, **record.as_dict()}, record.path, _VALIDATION_FIELDS)
    return Validation(
        **vars(_errors_from(record)),
        interval_coverage=record.number_or_nan("interval_coverage"),
        interval_level=record.number_or_nan("interval_level"),
        label_noise=record.number_or_nan("label_noise"),
        common_mode_free_noise=record.number_or_nan("common_mode_free_noise"),
        measured_ns=record.integer("measured_ns"),
        session_scale=record.number_or_nan("session_scale"),
        parts=_named_errors_from(record, "parts"),
        baselines=_named_errors_from(record, "baselines"),
    )


def _errors_from(record: Fields) -> Errors:
    figures = {
        name: record.number_or_nan(name)
        for name in _ERROR_FIELDS
        if name not in ("n_networks", "n_pairs")
    }
    return Errors(
        n_networks=record.integer("n_networks", 1), n_pairs=record.integer("n_pairs"), **figures
    )


def _named_errors_from(record: Fields, name: str) -> tuple[NamedErrors, ...]:
    return tuple(
        NamedErrors(**vars(_errors_from(row)), name=row.text("name"))
        for row in record.rows(name, (*_ERROR_FIELDS, "name"))
    )
