"""The committed protobuf code is what the committed protos generate."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def generated_files(folder: Path) -> dict[str, str]:
    return {
        path.name: path.read_text(encoding="utf-8")
        for pattern in GENERATED
        for path in folder.glob(pattern)
    }


def test_regenerating_the_protos_changes_nothing(
    repository: Path,
    tmp_path: Path,
    run_with_index: Callable[..., None],
) -> None:
    """The generator's own environment, .cache/protoc, is created on the first run."""
    run_with_index(
        ["sh", repository / "protos" / "generate.sh", tmp_path],
        env={**os.environ, "PYTHON": sys.executable},
    )
    committed = generated_files(repository / "protos" / "latlas_protos" / "v1")
    regenerated = generated_files(tmp_path / "latlas_protos" / "v1")
    assert sorted(regenerated) == sorted(committed)
    changed = [name for name, text in committed.items() if regenerated[name] != text]
    assert changed == [], "run `make protos` and commit the result"
