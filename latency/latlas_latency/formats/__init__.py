"""Files of latency models. None needs pickle; each states its format and version.

| kind | file | see |
| --- | --- | --- |
| lookup table | JSON | `table_file` |
| predictor | npz with a JSON header | `predictor_file` |

Exports for other programs: `csv` (one row per op) and `ofa-yaml` (the form in which Once-for-All
and ProxylessNAS read block latencies).
"""

from __future__ import annotations

from latlas_latency.formats import predictor_file, table_file
from latlas_latency.formats.csv_export import table_to_csv
from latlas_latency.formats.ofa_yaml import table_to_ofa_yaml
from latlas_latency.predictors.linear import LinearPredictor
from latlas_latency.predictors.macs import MacsPredictor
from latlas_latency.predictors.mlp import MlpPredictor
from latlas_latency.table import LookupTable
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import SearchSpace

EXPORT_FORMATS = ("latlas", "csv", "ofa-yaml")

StoredModel = LookupTable | MlpPredictor | LinearPredictor | MacsPredictor
"""A latency model that has a file of its own."""


def dump_latency_model(model: object) -> bytes:
    """The model's own file.

    Raises:
        InvalidInputError: `model` is neither a lookup table nor a predictor.
    """
    if isinstance(model, LookupTable):
        return table_file.dump(model)
    if isinstance(model, (MlpPredictor, LinearPredictor, MacsPredictor)):
        return predictor_file.dump(model)
    raise InvalidInputError(f"a {type(model).__name__} has no file format")


def load_latency_model(data: bytes) -> StoredModel:
    """The model of a file; its kind is recognised from the content.

    Raises:
        InvalidInputError: it is no such file, a damaged one, or of a newer version.
    """
    if data[:2] == predictor_file.MAGIC:
        return predictor_file.load(data)
    if data.lstrip()[:1] == b"{":
        return table_file.load(data)
    raise InvalidInputError("not a latency model: neither a table's JSON nor a predictor's npz")


def export_latency_model(
    model: StoredModel, fmt: str, space: SearchSpace | None
) -> tuple[bytes, str]:
    """A model as a file for other programs.

    Args:
        model: what to export.
        fmt: one of `EXPORT_FORMATS`.
        space: the search space the file is meant for; None where that does not matter.

    Returns:
        Content, and the suffix of a file name.

    Raises:
        InvalidInputError: unknown format, or one that cannot hold this model.
        SpaceMismatchError: the model belongs to another space.
    """
    if fmt not in EXPORT_FORMATS:
        raise InvalidInputError(f"no format {fmt!r}; there are {', '.join(EXPORT_FORMATS)}")
    if space is not None and model.space is not None:
        model.space.require(space, f"the {model.kind} model of target {model.target.name!r}")
    if fmt == "latlas":
        return dump_latency_model(model), ".json" if isinstance(model, LookupTable) else ".npz"
    if not isinstance(model, LookupTable):
        raise InvalidInputError(
            f"format {fmt!r} lists ops, and a {model.kind} predictor has none; use 'latlas'"
        )
    if fmt == "csv":
        return table_to_csv(model).encode(), ".csv"
    return table_to_ofa_yaml(model).encode(), ".yaml"
