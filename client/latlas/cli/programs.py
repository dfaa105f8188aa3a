"""Model files that the user wants measured."""

from __future__ import annotations

from pathlib import Path

from latlas.files import read_file
from latlas_ops.errors import InvalidInputError

_FORMATS = {".onnx": "onnx", ".tflite": "tflite", ".opgraph": "opgraph"}


def read_program(path: Path) -> tuple[bytes, str]:
    """The bytes of a model file and its format, which its name tells.

    Raises:
        InvalidInputError: it cannot be read, is empty, or its name tells no known format.
    """
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise InvalidInputError(f"{path}: a program ends in {' or '.join(_FORMATS)}")
    data = read_file(path)
    if not data:
        raise InvalidInputError(f"{path} is empty")
    return data, _FORMATS[suffix]
