"""`docs/cli.md` says what the parsers say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def generator(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "generate_cli", repository / "docs" / "generate_cli.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_parsers_say(generator: ModuleType) -> None:
    written = generator.REFERENCE.read_text(encoding="utf-8")
    assert written == generator.reference(generator.parsers()), (
        "docs/cli.md is out of date; write it again with: python docs/generate_cli.py"
    )
