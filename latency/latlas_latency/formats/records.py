"""JSON records of the values that several files contain."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from latlas_latency.calibration import LEAST_NETWORKS, AffineFit
from latlas_latency.formats.fields import Fields, as_number
from latlas_latency.measurement.target import Target
from latlas_latency.space_reference import SpaceReference
from latlas_latency.validation import Validation
from latlas_ops.errors import InvalidInputError

Record = dict[str, Any]

AFFINE_FIELDS = ("intercept_ms", "slope", "covariance", "residual", "n_networks")

_VALIDATION_FIELDS = tuple(field.name for field in dataclasses.fields(Validation))


def without_nan(record: Record) -> Record:
    """The record with null for NaN, which JSON cannot hold."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in record.items()
    }


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
    figures = {
        name: record.number_or_nan(name) for name in _VALIDATION_FIELDS if name != "n_networks"
    }
    return Validation(n_networks=record.integer("n_networks", 1), **figures)
