"""The file of a predictor: an npz archive (no pickle) with its arrays and a JSON header.

The array `header` holds UTF-8 JSON:

```
{"format": "latlas-predictor", "version": 1, "kind": "mlp" | "linear" | "macs",
 "target": {...}, "space": {"name", "version"}, "sizes": choices per gene,
 "resolutions": input sides in pixels, "resolution_gene": index or null,
 "validation": {...} or null}
```

`scores` holds absolute log errors on samples that the fit had not seen; the other arrays are
those of the predictor's class.

History: version 1, the first.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas_latency.formats.records import (
    space_from,
    space_record,
    validation_from,
    validation_record,
)
from latlas_latency.measurement.target import Target
from latlas_latency.predictors.base import Predictor
from latlas_latency.predictors.encoding import GeneEncoding
from latlas_latency.predictors.linear import LinearPredictor
from latlas_latency.predictors.macs import MacsPredictor
from latlas_latency.predictors.mlp import MlpPredictor
from latlas_ops.errors import InvalidInputError

FORMAT = "latlas-predictor"
VERSION = 1
MAGIC = b"PK"
"""An npz is a zip archive."""

_KINDS: dict[str, type[Predictor]] = {
    found.kind: found for found in (MlpPredictor, LinearPredictor, MacsPredictor)
}
_EPOCH = (1980, 1, 1, 0, 0, 0)


def dump(predictor: Predictor) -> bytes:
    """The predictor as an npz; equal predictors give equal bytes."""
    encoding = predictor.encoding
    header = {
        "format": FORMAT,
        "version": VERSION,
        "kind": predictor.kind,
        "target": predictor.target.to_dict(),
        "space": space_record(encoding.space),
        "sizes": list(encoding.sizes),
        "resolutions": list(encoding.resolutions),
        "resolution_gene": encoding.resolution_gene,
        "validation": validation_record(predictor.validation),
    }
    arrays: dict[str, NDArray[Any]] = {
        "header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8),
        "scores": predictor.scores,
        **predictor.arrays(),
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            part = io.BytesIO()
            np.lib.format.write_array(part, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), part.getvalue())
    return stream.getvalue()


def load(data: bytes) -> Predictor:
    """The predictor of `dump`.

    Raises:
        InvalidInputError: not such a file, damaged, or of a newer version.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"damaged latency predictor: {error}") from error
    if "header" not in arrays:
        raise InvalidInputError("not a latency predictor: the archive has no header")
    try:
        header = json.loads(arrays.pop("header").tobytes())
        if header["format"] != FORMAT:
            raise InvalidInputError(f"not a latency predictor: its format is {header['format']!r}")
        if header["version"] != VERSION:
            raise InvalidInputError(
                f"latency predictor of version {header['version']!r}; this Latlas reads version "
                f"{VERSION}"
            )
        if header["kind"] not in _KINDS:
            raise InvalidInputError(f"unknown kind of latency predictor: {header['kind']!r}")
        space = space_from(header["space"])
        if space is None:
            raise InvalidInputError("damaged latency predictor: it names no search space")
        gene = header["resolution_gene"]
        encoding = GeneEncoding(
            space,
            tuple(int(size) for size in header["sizes"]),
            tuple(float(side) for side in header["resolutions"]),
            None if gene is None else int(gene),
        )
        return _KINDS[header["kind"]].from_arrays(
            arrays,
            target=Target.from_dict(header["target"]),
            encoding=encoding,
            scores=arrays.pop("scores"),
            validation=validation_from(header["validation"]),
        )
    except KeyError as error:
        raise InvalidInputError(f"damaged latency predictor: {error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(f"damaged latency predictor: {error}") from error
