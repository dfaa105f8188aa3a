"""The file of a predictor: an npz archive (no pickle) with its arrays and a JSON header.

The array `header` holds UTF-8 JSON:

```
{"format": "latlas-predictor", "version": 1, "kind": "mlp" | "linear" | "macs",
 "target": {...}, "space": {"name", "version"}, "validation": {...} or null,
 "total_names": [...], "choice_names": [...],        features, in the order of the coefficients
 ... numbers of the kind, see `_pack_linear`, `_pack_macs`, `_pack_mlp`}
```

`scores` holds absolute log errors on samples that the fit had not seen.

History: version 1, the first.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas_latency.calibration import AffineFit
from latlas_latency.formats.records import (
    space_from,
    space_record,
    validation_from,
    validation_record,
)
from latlas_latency.measurement.target import Target
from latlas_latency.predictors.linear import LinearPredictor
from latlas_latency.predictors.macs import MacsPredictor
from latlas_latency.predictors.mlp import InputScaling, Layers, MlpPredictor
from latlas_latency.predictors.ridge import Ridge
from latlas_latency.space_reference import SpaceReference
from latlas_latency.validation import Validation
from latlas_ops.errors import InvalidInputError

FORMAT = "latlas-predictor"
VERSION = 1
MAGIC = b"PK"
"""An npz is a zip archive."""

Predictor = MlpPredictor | LinearPredictor | MacsPredictor
Arrays = Mapping[str, NDArray[Any]]
Header = Mapping[str, Any]

_EPOCH = (1980, 1, 1, 0, 0, 0)


def dump(predictor: Predictor) -> bytes:
    """The predictor as an npz; equal predictors give equal bytes."""
    if isinstance(predictor, MlpPredictor):
        extra, arrays = _pack_mlp(predictor)
    elif isinstance(predictor, LinearPredictor):
        extra, arrays = _pack_linear(predictor)
    else:
        extra, arrays = _pack_macs(predictor)
    header = {
        "format": FORMAT,
        "version": VERSION,
        "kind": predictor.kind,
        "target": predictor.target.to_dict(),
        "space": space_record(predictor.space),
        "validation": validation_record(predictor.validation),
        **extra,
    }
    everything = {"header": np.frombuffer(json.dumps(header).encode(), dtype=np.uint8), **arrays}
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in everything.items():
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
        header = json.loads(arrays["header"].tobytes())
        if header["format"] != FORMAT:
            raise InvalidInputError(f"not a latency predictor: its format is {header['format']!r}")
        if header["version"] != VERSION:
            raise InvalidInputError(
                f"latency predictor of version {header['version']!r}; this Latlas reads version "
                f"{VERSION}"
            )
        space = space_from(header["space"])
        if space is None:
            raise InvalidInputError("damaged latency predictor: it names no search space")
        target = Target.from_dict(header["target"])
        validation = validation_from(header["validation"])
        return _unpack(header, arrays, target, space, validation)
    except KeyError as error:
        raise InvalidInputError(f"damaged latency predictor: {error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(f"damaged latency predictor: {error}") from error


def _unpack(
    header: Header,
    arrays: Arrays,
    target: Target,
    space: SpaceReference,
    validation: Validation | None,
) -> Predictor:
    kind = header["kind"]
    if kind == "macs":
        (a, b), (c, d) = header["covariance"]
        fit = AffineFit(
            float(header["intercept_ms"]),
            float(header["ms_per_mac"]),
            ((float(a), float(b)), (float(c), float(d))),
            float(header["residual"]),
            int(header["n_networks"]),
        )
        return MacsPredictor(target, space, fit, validation)
    if kind not in ("mlp", "linear"):
        raise InvalidInputError(f"unknown kind of latency predictor: {kind!r}")
    total_names = tuple(map(str, header["total_names"]))
    choice_names = tuple(map(str, header["choice_names"]))
    scores = arrays["scores"]
    if kind == "linear":
        ridge = _ridge_from(header["ridge"], arrays, "ridge")
        return LinearPredictor(target, space, total_names, choice_names, ridge, scores, validation)
    n_layers = int(header["n_layers"])
    return MlpPredictor(
        target,
        space,
        total_names,
        choice_names,
        InputScaling(arrays["total_means"], arrays["offsets"], arrays["scales"]),
        tuple(
            _ridge_from(record, arrays, f"ridge{member}")
            for member, record in enumerate(header["ridges"])
        ),
        Layers(
            tuple(arrays[f"layer{layer}.weight"] for layer in range(n_layers)),
            tuple(arrays[f"layer{layer}.bias"] for layer in range(n_layers)),
        ),
        float(header["output_scale"]),
        float(header["shrink"]),
        scores,
        validation,
    )


def _pack_macs(predictor: MacsPredictor) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    fit = predictor.fit
    return {
        "intercept_ms": fit.intercept,
        "ms_per_mac": fit.slope,
        "covariance": [list(row) for row in fit.covariance],
        "residual": fit.residual,
        "n_networks": fit.n_networks,
    }, {}


def _pack_linear(predictor: LinearPredictor) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    record, arrays = _ridge_record(predictor.ridge, "ridge")
    return {
        "total_names": list(predictor.total_names),
        "choice_names": list(predictor.choice_names),
        "ridge": record,
    }, {"scores": predictor.scores, **arrays}


def _pack_mlp(predictor: MlpPredictor) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    arrays: dict[str, NDArray[Any]] = {
        "scores": predictor.scores,
        "total_means": predictor.scaling.total_means,
        "offsets": predictor.scaling.offsets,
        "scales": predictor.scaling.scales,
    }
    records = []
    for member, ridge in enumerate(predictor.ridges):
        record, found = _ridge_record(ridge, f"ridge{member}")
        records.append(record)
        arrays |= found
    layers = predictor.layers
    for layer, (weight, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
        arrays[f"layer{layer}.weight"], arrays[f"layer{layer}.bias"] = weight, bias
    return {
        "total_names": list(predictor.total_names),
        "choice_names": list(predictor.choice_names),
        "ridges": records,
        "n_layers": len(layers.weights),
        "output_scale": predictor.output_scale,
        "shrink": predictor.shrink,
    }, arrays


def _ridge_record(ridge: Ridge, prefix: str) -> tuple[dict[str, float], dict[str, NDArray[Any]]]:
    return {"intercept_ms": ridge.intercept_ms, "floor_ms": ridge.floor_ms}, {
        f"{prefix}.per_total_ms": ridge.per_total_ms,
        f"{prefix}.per_choice_ms": ridge.per_choice_ms,
    }


def _ridge_from(record: Header, arrays: Arrays, prefix: str) -> Ridge:
    return Ridge(
        float(record["intercept_ms"]),
        arrays[f"{prefix}.per_total_ms"],
        arrays[f"{prefix}.per_choice_ms"],
        float(record["floor_ms"]),
    )
