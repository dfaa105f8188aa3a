"""Plain records of the values that several files contain."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from latlas_latency.space_reference import SpaceReference
from latlas_latency.validation import Validation


def space_record(space: SpaceReference | None) -> dict[str, Any] | None:
    """A space reference for JSON."""
    return None if space is None else {"name": space.name, "version": space.version}


def space_from(record: Mapping[str, Any] | None) -> SpaceReference | None:
    """The reference of `space_record`."""
    return None if record is None else SpaceReference(str(record["name"]), int(record["version"]))


def validation_record(validation: Validation | None) -> dict[str, Any] | None:
    """A validation for JSON; figures that could not be had become null."""
    if validation is None:
        return None
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in dataclasses.asdict(validation).items()
    }


def validation_from(record: Mapping[str, Any] | None) -> Validation | None:
    """The validation of `validation_record`."""
    if record is None:
        return None
    values: dict[str, Any] = {
        name: math.nan if value is None else value for name, value in record.items()
    }
    return Validation(**values)
