"""Reading JSON objects whose content cannot be trusted: every complaint names the culprit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from latlas_ops.errors import InvalidInputError


class Fields:
    """One JSON object, read field by field.

    Args:
        value: what should be an object.
        path: where it stands in the file, for messages; ends in the name of the object.
        names: the fields it must have, no more and no fewer; None allows any.
    """

    def __init__(self, value: object, path: str, names: tuple[str, ...] | None = None) -> None:
        if not isinstance(value, dict):
            raise InvalidInputError(f"{path} must be an object, not {_shown(value)}")
        self._record: Mapping[str, object] = value
        self.path = path
        for name in names or ():
            self.value(name)
        if names is not None and (unknown := sorted(set(value) - set(names))):
            raise InvalidInputError(f"{path} has a field {unknown[0]!r} that does not belong there")

    def value(self, name: str) -> object:
        """A field as it is; raises `InvalidInputError` if it is missing."""
        if name not in self._record:
            raise InvalidInputError(f"{self.path}: {name} is missing")
        return self._record[name]

    def text(self, name: str) -> str:
        """A string."""
        value = self.value(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string", value)
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        value = self.value(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false", value)
        return value

    def integer(self, name: str, least: int = 0) -> int:
        """A whole number of at least `least`."""
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise self._wrong(name, f"a whole number of at least {least}", value)
        return value

    def number(self, name: str, least: float = -math.inf) -> float:
        """A finite number of at least `least`."""
        value = as_number(self.value(name))
        if value is None or value < least:
            kind = "a number" if least == -math.inf else f"a number of at least {least:g}"
            raise self._wrong(name, kind, self.value(name))
        return value

    def number_or_nan(self, name: str) -> float:
        """A finite number, or NaN for null."""
        return math.nan if self.value(name) is None else self.number(name)

    def items(self, name: str) -> list[object]:
        """A list."""
        value = self.value(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list", value)
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        values = self.items(name)
        if not all(isinstance(value, str) for value in values):
            raise self._wrong(name, "a list of strings", values)
        return tuple(str(value) for value in values)

    def fields(self, name: str, names: tuple[str, ...] | None = None) -> Fields:
        """An object within this one."""
        return Fields(self.value(name), f"{self.path}: {name}", names)

    def optional_fields(self, name: str, names: tuple[str, ...] | None = None) -> Fields | None:
        """An object within this one, None for null."""
        return None if self.value(name) is None else self.fields(name, names)

    def rows(self, name: str, names: tuple[str, ...] | None = None) -> list[Fields]:
        """A list of objects."""
        return [
            Fields(value, f"{self.path}: {name}[{index}]", names)
            for index, value in enumerate(self.items(name))
        ]

    def as_dict(self) -> dict[str, object]:
        """All fields."""
        return dict(self._record)

    def _wrong(self, name: str, wanted: str, value: object) -> InvalidInputError:
        return InvalidInputError(f"{self.path}: {name} must be {wanted}, not {_shown(value)}")


def as_number(value: object) -> float | None:
    """A finite JSON number as float, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    number = float(value) if abs(value) < 1e300 else math.inf
    return number if math.isfinite(number) else None


def parse_object(text: bytes, path: str) -> Fields:
    """The JSON object of a document; raises `InvalidInputError` if it is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{path} is not JSON: {error}") from error
    return Fields(value, path)


def require_format(record: Fields, name: str, version: int) -> None:
    """Checks the head of a document.

    Raises:
        InvalidInputError: it is of another format, or of a version that this Latlas cannot read.
    """
    if record.text("format") != name:
        raise InvalidInputError(
            f"{record.path} is of format {record.text('format')!r}, not {name!r}"
        )
    found = record.integer("version")
    if found != version:
        raise InvalidInputError(
            f"{record.path} is of version {found}; this Latlas reads version {version}"
            + (": update Latlas" if found > version else "")
        )


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
