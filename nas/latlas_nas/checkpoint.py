"""Tensors and plain values in one safetensors file, replaced as a whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from latlas_nas.supernet import Supernet
from latlas_ops.errors import SpaceMismatchError, StorageError
from latlas_ops.space import SearchSpace

SUPERNET_FILE = "supernet.safetensors"
_SUPERNET_FORMAT = "latlas-supernet"
_VERSION = 1


def write_tensors(
    path: Path, form: str, state: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> None:
    """Writes tensors and a JSON record into one file.

    The file appears under its name when it is complete and on disk, so a reader or a process that
    was killed finds the old content or the new, never a part.

    Args:
        path: the file; its folder exists.
        form: what the file is, checked by `read_tensors`.
        state: plain values for JSON.
        tensors: by name; each is stored contiguously.
    """
    record = {"format": form, "version": _VERSION, "state": dict(state)}
    data = save(
        {name: tensor.detach().contiguous() for name, tensor in tensors.items()},
        {"latlas": json.dumps(record, sort_keys=True)},
    )
    write_whole(path, data)


def write_whole(path: Path, data: bytes) -> None:
    """Replaces a file in one step that survives a crash of the machine."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def read_tensors(path: Path, form: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The record and the tensors of a file that `write_tensors` wrote.

    Raises:
        StorageError: the file cannot be read, is of another kind or of a newer version.
    """
    try:
        with safe_open(path, "pt") as stream:
            record = json.loads((stream.metadata() or {}).get("latlas", "{}"))
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise StorageError(f"cannot read {path}: {error}") from error
    if not isinstance(record, dict) or record.get("format") != form:
        raise StorageError(f"{path} is no {form} file")
    if record.get("version") != _VERSION:
        raise StorageError(
            f"{path} has version {record.get('version')}, this program reads {_VERSION}"
        )
    return record["state"], tensors


def save_supernet(supernet: Supernet, path: Path) -> None:
    """Writes the weights of a supernet as safetensors.

    Raises:
        StorageError: the file cannot be written.
    """
    space = supernet.space
    state = {"space": space.name, "space_version": space.version}
    write_tensors(path, _SUPERNET_FORMAT, state, supernet.state_dict())


def load_supernet(path: Path, space: SearchSpace) -> Supernet:
    """The supernet of a file, or of a folder in which `train_supernet` finished.

    Raises:
        StorageError: there is no such file, or it is no supernet or damaged.
        SpaceMismatchError: it was trained for another space or version.
    """
    if path.is_dir():
        path = path / SUPERNET_FILE
    state, tensors = read_tensors(path, _SUPERNET_FORMAT)
    if (state["space"], state["space_version"]) != (space.name, space.version):
        raise SpaceMismatchError(
            f"{path} holds a supernet of space {state['space']!r} version "
            f"{state['space_version']}, not of {space.name!r} version {space.version}"
        )
    supernet = Supernet(space, torch.Generator())
    load_weights(supernet, tensors, path)
    return supernet


def load_weights(supernet: Supernet, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copies stored tensors into a supernet.

    Raises:
        StorageError: names or shapes differ, so the file was made for another layout.
    """
    try:
        supernet.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise StorageError(
            f"{path} does not fit space {supernet.space.name!r}: {reason}"
        ) from error
