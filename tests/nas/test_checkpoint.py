"""Supernet files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latlas_nas.checkpoint import load_supernet, read_tensors, save_supernet, write_tensors
from latlas_nas.supernet import Supernet
from latlas_ops.errors import SpaceMismatchError, StorageError
from latlas_ops.spaces import get_space


def test_a_supernet_comes_back_from_its_file(random_supernet: Supernet, tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_supernet(random_supernet, path)
    assert load_supernet(path, random_supernet.space).digest() == random_supernet.digest()
    assert [file.name for file in tmp_path.iterdir()] == ["some.safetensors"]


def test_a_supernet_of_another_space_is_refused(random_supernet: Supernet, tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_supernet(random_supernet, path)
    with pytest.raises(SpaceMismatchError, match="holds a supernet of space 'tiny' version 1"):
        load_supernet(path, get_space("digits"))


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*supernet\.safetensors"):
        load_supernet(tmp_path, get_space("digits"))


def test_a_file_of_another_kind_is_refused(random_supernet: Supernet, tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    write_tensors(path, "latlas-teacher", {"seed": 1}, {"probabilities": torch.ones(2)})
    state, tensors = read_tensors(path, "latlas-teacher")
    assert state == {"seed": 1}
    assert tensors["probabilities"].tolist() == [1, 1]
    with pytest.raises(StorageError, match="is no latlas-supernet file"):
        load_supernet(path, random_supernet.space)


def test_weights_of_another_layout_are_refused(random_supernet: Supernet, tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    state = {"space": "tiny", "space_version": 1}
    tensors = dict(random_supernet.state_dict())
    tensors["layers.surplus.weight"] = torch.ones(1)
    write_tensors(path, "latlas-supernet", state, tensors)
    with pytest.raises(StorageError, match=r"does not fit space 'tiny': .*surplus"):
        load_supernet(path, random_supernet.space)
