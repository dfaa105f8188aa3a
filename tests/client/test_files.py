"""Files appear whole or not at all."""

import pytest

from latlas.files import read_file, write_atomically
from latlas_ops.errors import InvalidInputError


def test_a_file_is_written_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "table.csv"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_has_the_usual_permissions(tmp_path):
    (tmp_path / "usual").touch()
    write_atomically(tmp_path / "table.csv", b"")
    assert (tmp_path / "table.csv").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_missing_folder_is_named(tmp_path):
    path = tmp_path / "nowhere" / "table.csv"
    with pytest.raises(InvalidInputError, match=f"^cannot write {path}: No such file"):
        write_atomically(path, b"")


def test_a_folder_in_the_way_leaves_no_temporary_file(tmp_path):
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(InvalidInputError, match=r"cannot write .*table\.csv"):
        write_atomically(tmp_path / "table.csv", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InvalidInputError, match=f"^cannot read {tmp_path / 'none'}: No such file"):
        read_file(tmp_path / "none")
