"""Networks as op graphs: what runtimes load that build a network themselves, torch for one.

A file is an npz archive without pickles. Its member `header` holds JSON as UTF-8 bytes: `format`,
`version`, `network` (as in `Network.to_json`) and `seed`. Every other member is a weight, float32,
under its name. A file with no weights stands for the random ones of its seed, which the reader
draws: a program of 30 MB then travels in a few kilobytes.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from latlas_ops.errors import InvalidInputError
from latlas_ops.graph import Graph
from latlas_ops.lowering import lower
from latlas_ops.network import Network
from latlas_ops.weights import Weights
from latlas_ops.writers._prepare import prepare

FORMAT, VERSION = "latlas-opgraph", 1

_HEADER = "header"

# What reading raises where an archive is cut short, damaged, encrypted or packed in unknown ways,
# or its header is none.
_UNREADABLE = (
    *(ValueError, TypeError, LookupError, OSError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


@dataclass(frozen=True)
class OpGraphProgram:
    """A written op graph.

    Attributes:
        model_bytes: the file; equal networks, weights and seeds give equal bytes.
        graph: the primitive graph that it stands for.
    """

    model_bytes: bytes
    graph: Graph

    @property
    def tensor_positions(self) -> Mapping[str, int]:
        """Name of a tensor → position in the network of the op it belongs to."""
        return self.graph.tensor_positions()


def write_opgraph(
    network: Network, weights: Weights | None = None, *, seed: int = 0
) -> OpGraphProgram:
    """Writes a network as an op graph; it holds for every batch size.

    Args:
        network: one op, a chain or a whole architecture.
        weights: parameter name → float32 array; the random ones of `seed` if None.
        seed: seed of the random weights; without effect where `weights` is given.

    Raises:
        InvalidInputError: an op is not float32, or the weights do not fit.
    """
    graph = lower(network) if weights is None else prepare(network, weights, seed)[0]
    header = {
        "format": FORMAT,
        "version": VERSION,
        "network": json.loads(network.to_json()),
        "seed": seed,
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    members: dict[str, Any] = {_HEADER: np.frombuffer(text, dtype=np.uint8)}
    members.update(weights or {})
    file = io.BytesIO()
    np.savez(file, **members)
    return OpGraphProgram(file.getvalue(), graph)


def read_opgraph(data: bytes) -> tuple[Network, Weights]:
    """The network of an op graph, and its weights: those of the file, or those of its seed.

    Raises:
        InvalidInputError: it is no such file, or its weights do not fit its network.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            header = json.loads(file[_HEADER].tobytes())
            weights = {name: file[name] for name in file.files if name != _HEADER}
        found = header["format"], header["version"]
        seed, text = header["seed"], json.dumps(header["network"])
    except _UNREADABLE as error:
        raise InvalidInputError(f"not an op graph: {error}") from error
    if found != (FORMAT, VERSION):
        raise InvalidInputError(f"{found[0]!r} of version {found[1]!r} is no {FORMAT} {VERSION}")
    if not isinstance(seed, int) or seed < 0:
        raise InvalidInputError(f"not an op graph: its seed is {seed!r}")
    network = Network.from_json(text)
    return network, prepare(network, weights or None, seed)[1]
