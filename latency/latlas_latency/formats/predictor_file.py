"""The file of a predictor: an npz archive (no pickle) with arrays and a JSON header.

The array `header` (uint8) holds UTF-8 JSON:

```
{"format": "latlas-predictor", "version": 1, "kind": "mlp" | "linear" | "macs",
 "target": {...}, "space": {"name", "version"}, "validation": {...} or null,
 "model": {...}}                             figures of the kind, see below
```

Kind `macs`: `model` is the line, `{"intercept_ms", "slope" (ms per MAC), "covariance", "residual",
"n_networks"}`; no further arrays.

Kind `linear`: `model` is `{"total_names", "choice_names", "intercept_ms", "floor_ms"}`. Arrays
(float64): `per_total_ms`, `per_choice_ms`, one coefficient per name (see
`latlas_latency.predictors.features` for their units and `.ridge` for the formula), and `scores`,
absolute log errors on samples that the fit had not seen.

Kind `mlp`: `model` is `{"total_names", "choice_names", "output_scale", "shrink"}`. Arrays: ridges
with one row per member, `intercept_ms` and `floor_ms` `(n_members,)`, `per_total_ms` and
`per_choice_ms` `(n_members, n_names)`; the normalisation of the inputs, `total_means`, `offsets`,
`scales` `(n_totals,)`; the networks, `weight0` ... `(n_members, n_in, n_out)` and `bias0` ...
`(n_members, 1, n_out)` float32; and `scores`.

History: version 1, the first.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latlas_latency.formats.fields import Fields, parse_object, require_format
from latlas_latency.formats.records import (
    AFFINE_FIELDS,
    Record,
    affine_from,
    affine_record,
    space_from,
    space_record,
    target_from,
    validation_from,
    validation_record,
)
from latlas_latency.predictors.linear import LinearPredictor
from latlas_latency.predictors.macs import MacsPredictor
from latlas_latency.predictors.mlp import InputScaling, Layers, MlpPredictor
from latlas_latency.predictors.ridge import Ridge
from latlas_ops.errors import InvalidInputError

FORMAT = "latlas-predictor"
VERSION = 1
MAGIC = b"PK"
"""An npz is a zip archive."""

Predictor = MlpPredictor | LinearPredictor | MacsPredictor
Arrays = dict[str, NDArray[Any]]

_PATH = "latency predictor"
_HEAD = ("format", "version", "kind", "target", "space", "validation", "model")
_NAMES = ("total_names", "choice_names")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LARGEST_BYTES = 64 << 20
"""An archive that unpacks to more is refused before it is unpacked."""


# -- writing ---------------------------------------------------------------------------------


def dump(predictor: Predictor) -> bytes:
    """The predictor as an npz; equal predictors give equal bytes."""
    if isinstance(predictor, MlpPredictor):
        model, arrays = _mlp_parts(predictor)
    elif isinstance(predictor, LinearPredictor):
        model, arrays = _linear_parts(predictor)
    else:
        model, arrays = affine_record(predictor.fit), {}
    header = {
        "format": FORMAT,
        "version": VERSION,
        "kind": predictor.kind,
        "target": predictor.target.to_dict(),
        "space": space_record(predictor.space),
        "validation": validation_record(predictor.validation),
        "model": model,
    }
    text = json.dumps(header, allow_nan=False).encode()
    stream = io.BytesIO()
    # Not np.savez: it stamps the members with the time of writing in some versions.
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in {"header": np.frombuffer(text, dtype=np.uint8), **arrays}.items():
            part = io.BytesIO()
            np.lib.format.write_array(part, np.asarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), part.getvalue())
    return stream.getvalue()


def _linear_parts(predictor: LinearPredictor) -> tuple[Record, Arrays]:
    ridge = predictor.ridge
    model: Record = {
        "total_names": predictor.total_names,
        "choice_names": predictor.choice_names,
        "intercept_ms": ridge.intercept_ms,
        "floor_ms": ridge.floor_ms,
    }
    return model, {
        "per_total_ms": ridge.per_total_ms,
        "per_choice_ms": ridge.per_choice_ms,
        "scores": predictor.scores,
    }


def _mlp_parts(predictor: MlpPredictor) -> tuple[Record, Arrays]:
    ridges, layers = predictor.ridges, predictor.layers
    model: Record = {
        "total_names": predictor.total_names,
        "choice_names": predictor.choice_names,
        "output_scale": predictor.output_scale,
        "shrink": predictor.shrink,
    }
    arrays: Arrays = {
        "intercept_ms": np.array([ridge.intercept_ms for ridge in ridges]),
        "floor_ms": np.array([ridge.floor_ms for ridge in ridges]),
        "per_total_ms": np.stack([ridge.per_total_ms for ridge in ridges]),
        "per_choice_ms": np.stack([ridge.per_choice_ms for ridge in ridges]),
        "total_means": predictor.scaling.total_means,
        "offsets": predictor.scaling.offsets,
        "scales": predictor.scaling.scales,
        "scores": predictor.scores,
    }
    for index, (weight, bias) in enumerate(zip(layers.weights, layers.biases, strict=True)):
        arrays[f"weight{index}"], arrays[f"bias{index}"] = weight, bias
    return model, arrays


# -- reading ---------------------------------------------------------------------------------


def load(data: bytes) -> Predictor:
    """The predictor of `dump`.

    Raises:
        InvalidInputError: not such a file, or something in it is wrong; the message says what.
    """
    arrays = _unpack(data)
    if "header" not in arrays:
        raise InvalidInputError(f"{_PATH}: the archive has no header")
    record = parse_object(arrays.pop("header").tobytes(), f"{_PATH}: header")
    require_format(record, FORMAT, VERSION)
    record = Fields(record.as_dict(), record.path, _HEAD)
    target = target_from(record.fields("target"))
    space = space_from(record.fields("space", ("name", "version")))
    validation = validation_from(record.optional_fields("validation"))
    kind = record.text("kind")
    if kind == "macs":
        line = affine_from(record.fields("model", AFFINE_FIELDS))
        return MacsPredictor(target, space, line, validation)
    if kind == "linear":
        model = record.fields("model", (*_NAMES, "intercept_ms", "floor_ms"))
        totals, choices = model.texts("total_names"), model.texts("choice_names")
        ridge = Ridge(
            model.number("intercept_ms"),
            _array(arrays, "per_total_ms", (len(totals),)),
            _array(arrays, "per_choice_ms", (len(choices),)),
            model.number("floor_ms", 0),
        )
        scores = _scores(arrays)
        return LinearPredictor(target, space, totals, choices, ridge, scores, validation)
    if kind != "mlp":
        raise InvalidInputError(f"{_PATH}: unknown kind {kind!r}; known: mlp, linear, macs")
    model = record.fields("model", (*_NAMES, "output_scale", "shrink"))
    totals, choices = model.texts("total_names"), model.texts("choice_names")
    return MlpPredictor(
        target=target,
        space=space,
        total_names=totals,
        choice_names=choices,
        scaling=InputScaling(
            *(_array(arrays, name, (len(totals),)) for name in ("total_means", "offsets", "scales"))
        ),
        ridges=_ridges(arrays, len(totals), len(choices)),
        layers=_layers(arrays, len(totals) + len(choices)),
        output_scale=model.number("output_scale", 0),
        shrink=model.number("shrink", 0),
        scores=_scores(arrays),
        validation=validation,
    )


def _unpack(data: bytes) -> Arrays:
    arrays: Arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > _LARGEST_BYTES:
                raise InvalidInputError(f"{_PATH}: unpacks to more than {_LARGEST_BYTES >> 20} MiB")
            for member in archive.infolist():
                part = io.BytesIO(archive.read(member))
                name = member.filename.removesuffix(".npy")
                arrays[name] = np.lib.format.read_array(part, allow_pickle=False)
    except (
        ValueError,
        OSError,
        EOFError,
        NotImplementedError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InvalidInputError(f"{_PATH}: the archive is damaged: {error}") from error
    return arrays


def _array(arrays: Mapping[str, NDArray[Any]], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of finite numbers; -1 in `shape` stands for any length but 0."""
    if name not in arrays:
        raise InvalidInputError(f"{_PATH}: array {name} is missing")
    array = arrays[name]
    fits = array.ndim == len(shape) and all(
        have == want or (want == -1 and have > 0)
        for have, want in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype not in (np.float32, np.float64):
        raise InvalidInputError(
            f"{_PATH}: array {name} must hold floats of shape {shape}, not {array.dtype} of "
            f"shape {array.shape}"
        )
    if not np.isfinite(array).all():
        raise InvalidInputError(f"{_PATH}: array {name} holds values that are not finite")
    return array


def _scores(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    scores = _array(arrays, "scores", (-1,))
    if scores.min() < 0:
        raise InvalidInputError(f"{_PATH}: array scores holds negative values")
    return scores


def _ridges(arrays: Mapping[str, NDArray[Any]], n_totals: int, n_choices: int) -> tuple[Ridge, ...]:
    intercepts = _array(arrays, "intercept_ms", (-1,))
    n_members = len(intercepts)
    floors = _array(arrays, "floor_ms", (n_members,))
    per_total = _array(arrays, "per_total_ms", (n_members, n_totals))
    per_choice = _array(arrays, "per_choice_ms", (n_members, n_choices))
    return tuple(
        Ridge(float(intercept), totals, choices, float(floor))
        for intercept, totals, choices, floor in zip(
            intercepts, per_total, per_choice, floors, strict=True
        )
    )


def _layers(arrays: Mapping[str, NDArray[Any]], n_inputs: int) -> Layers:
    n_members = len(_array(arrays, "intercept_ms", (-1,)))
    n_layers = sum(name.startswith("weight") for name in arrays)
    weights, biases = [], []
    for index in range(max(n_layers, 1)):
        last = index == n_layers - 1
        weight = _array(arrays, f"weight{index}", (n_members, n_inputs, 1 if last else -1))
        n_inputs = weight.shape[2]
        weights.append(weight)
        biases.append(_array(arrays, f"bias{index}", (n_members, 1, n_inputs)))
    return Layers(tuple(weights), tuple(biases))
