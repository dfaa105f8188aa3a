"""Spaces of one's own: in files, and by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from latlas_ops import OpSpec, PlacedOps, Space, get_space, load_space, register_space, spaces
from latlas_ops.errors import ConflictError, InvalidInputError, NotFoundError
from latlas_ops.network import NETWORK_INPUT
from latlas_ops.space import Gene
from latlas_ops.spaces import SPACE_NAMES, space_names

PYTHON = """
from latlas_ops import OpSpec, PlacedOps, Space
from latlas_ops.space import Gene

op = OpSpec.of("activation", (4, 8, 8), activation="relu")
space = Space("from-python", 1, (Gene("it", (0, 1)),), (PlacedOps("it", (0,), (None, op), (-1,)),))
"""


def own(name: str = "mine", version: int = 1, activation: str = "relu") -> Space:
    op = OpSpec.of("activation", (4, 8, 8), activation=activation)
    return Space(
        name, version, (Gene("it", (0, 1)),), (PlacedOps("it", (0,), (None, op), (NETWORK_INPUT,)),)
    )


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test begins without spaces of its own."""
    monkeypatch.setattr(spaces, "_own", {})


def test_a_space_is_read_from_json_and_from_python(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(own().to_json())
    (tmp_path / "b.py").write_text(PYTHON)
    read = load_space(tmp_path / "a.json")
    assert isinstance(read, Space)
    assert read.placed == own().placed
    assert load_space(str(tmp_path / "b.py")).name == "from-python"


@pytest.mark.parametrize(
    ("name", "text", "error", "reason"),
    [
        ("missing.json", None, NotFoundError, "there is no file"),
        ("a.txt", "", InvalidInputError, r"ends neither in \.json nor in \.py"),
        ("a.json", "\udcff", InvalidInputError, "not a space"),
        ("a.py", "import nonsense_of_no_name", InvalidInputError, "fails: ModuleNotFoundError"),
        ("a.py", "space = 3", InvalidInputError, "leaves no SearchSpace in the name `space`"),
        (
            "a.py",
            "from latlas_ops import OpSpec\nOpSpec.of('nonsense')",
            InvalidInputError,
            "unknown op kind 'nonsense'",
        ),
    ],
)
def test_a_file_without_a_space_is_refused(
    tmp_path: Path, name: str, text: str | None, error: type[Exception], reason: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text, errors="surrogateescape")
    with pytest.raises(error, match=reason):
        load_space(tmp_path / name)


def test_a_registered_space_is_found_by_name() -> None:
    space = own()
    register_space(space)
    assert get_space("mine") is space
    assert space_names() == (*SPACE_NAMES, "mine")
    with pytest.raises(NotFoundError, match=r"no search space 'other'; there are digits, .*mine"):
        get_space("other")


def test_another_space_of_the_name_needs_a_higher_version() -> None:
    register_space(own())
    register_space(own())
    with pytest.raises(ConflictError, match="another search space 'mine' of version 1"):
        register_space(own(activation="gelu"))
    newer = own(version=2, activation="gelu")
    register_space(newer)
    assert get_space("mine") is newer


def test_built_in_spaces_keep_their_names() -> None:
    with pytest.raises(ConflictError, match="'digits' is a built-in search space"):
        register_space(own("digits"))
    assert get_space("digits").name == "digits"
