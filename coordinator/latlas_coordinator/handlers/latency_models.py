"""Latency models: made from campaigns, asked, exported and imported."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from latlas_coordinator.domain import (
    TABLE,
    Findings,
    LatencyModelRecord,
    Role,
    check_name,
)
from latlas_coordinator.handlers.model_sources import ModelSource
from latlas_coordinator.storage import Store
from latlas_latency.formats import (
    StoredModel,
    dump_latency_model,
    export_latency_model,
    load_latency_model,
)
from latlas_latency.formats.predictor_file import Predictor
from latlas_latency.measurement import Target
from latlas_latency.model import Prediction, Subjects
from latlas_latency.observations import measure_drift
from latlas_latency.table import LookupTable
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import ArchBatch
from latlas_ops.spaces import get_space

_FIT_ROLES = (Role.TRAINING, Role.CALIBRATION)
_N_CACHED = 8

_Fit = Callable[[ArchBatch, NDArray[np.float64], Target, int], Predictor]


def build_table(
    store: Store, name: str, campaign: str, now_ns: int, *, interpolate: bool = False
) -> LatencyModelRecord:
    """Makes the lookup table of a profile campaign and keeps it.

    Cover networks give the entries (where ops are not measured in situ: chains, or ops alone),
    calibration and cover networks the line from sums to whole networks; validation networks, which
    neither has seen, the errors. Where cover networks have some resolutions only, calibration
    networks of the others say how well these are interpolated.

    Args:
        store: where the campaign is.
        name: what to call the table.
        campaign: the campaign.
        now_ns: Unix time.
        interpolate: give ops that were not measured, but lie between measured ones, interpolated
            entries.

    Raises:
        NotFoundError: no such campaign.
        InvalidInputError: the campaign profiles no space, still runs, or has measured too little.
        ConflictError: the name stands for a model made from other things.
        UnknownOpError: a calibration network holds an op that no cover network holds.
    """
    source = ModelSource.of(store, name, campaign)
    table = with_findings(source.table().table, store.get_campaign(campaign).findings)
    if interpolate:
        table = table.interpolated(source.space)
    validation = source.validate(table)
    if validation is not None:
        table = table.with_validation(validation)
    record = LatencyModelRecord(
        name=name,
        kind=TABLE,
        space=source.space.name,
        target=source.target,
        campaign=campaign,
        created_ns=now_ns,
        n_entries=len(table.entries),
        calibrated=table.calibrated,
        validation=validation,
    )
    store.put_latency_model(record, dump_latency_model(table))
    return record


def with_findings(table: LookupTable, findings: Findings | None) -> LookupTable:
    """A table whose conditions say what was found suspicious in the visits that it is made of."""
    if table.conditions is None or findings is None:
        return table
    conditions = replace(
        table.conditions,
        n_suspicions=len(findings.suspicions),
        n_suspicions_revisited=findings.n_revisited,
        n_suspicions_open=findings.n_open,
    )
    return replace(table, conditions=conditions)


def fit_predictor(
    store: Store, name: str, campaign: str, *, kind: str, seed: int, now_ns: int
) -> LatencyModelRecord:
    """Fits a predictor on the whole networks of a profile campaign and keeps it.

    It learns from training and calibration networks, with the drift that all networks share taken
    out of their labels; validation networks give the errors.

    Args:
        store: where the campaign is.
        name: what to call the predictor.
        campaign: the campaign.
        kind: `mlp`, `linear` or `macs`.
        seed: seed of what is random in the fit.
        now_ns: Unix time.

    Raises: as `build_table`; `MissingDependencyError` if the fit needs a package that is missing.
    """
    fits = _fits()
    if kind not in fits:
        raise InvalidInputError(f"no predictor is called {kind!r}; there are {', '.join(fits)}")
    if seed < 0:
        raise InvalidInputError(f"seed must not be negative, not {seed}")
    source = ModelSource.of(store, name, campaign)
    observations = source.observations(_FIT_ROLES)
    if not observations:
        raise InvalidInputError(
            f"campaign {campaign!r} has measured no training network to fit a predictor on"
        )
    drift = measure_drift(observations)
    labels_ms = np.array([drift.latency_ns(observation) / 1e6 for observation in observations])
    batch = source.space.batch(
        [observation.arch for observation in observations if observation.arch is not None]
    )
    model = fits[kind](batch, labels_ms, source.target, seed)
    validation = source.validate(model)
    if validation is not None:
        model = model.with_validation(validation)
    record = LatencyModelRecord(
        name=name,
        kind=kind,
        space=source.space.name,
        target=source.target,
        campaign=campaign,
        created_ns=now_ns,
        n_entries=0,
        calibrated=True,
        validation=validation,
    )
    store.put_latency_model(record, dump_latency_model(model))
    return record


def predict(
    store: Store,
    models: ModelCache,
    name: str,
    subjects: Subjects,
    *,
    level: float,
    allow_estimates: bool,
    interpolate: bool = False,
) -> Prediction:
    """Latencies by a model; errors as in `LatencyModel.predict`.

    With `interpolate`, ops that a table holds no entry for, but that lie between measured ones, are
    interpolated; a predictor refuses that (`InvalidInputError`).
    """
    if not 0 < level < 1:
        raise InvalidInputError(f"level must lie between 0 and 1, not {level}")
    model = models.get(store, name)
    if interpolate:
        if not isinstance(model, LookupTable):
            raise InvalidInputError(
                f"{name!r} is a predictor ({model.kind}): only entries of a table are interpolated"
            )
        if isinstance(subjects, ArchBatch):
            model = model.interpolated(subjects.space)
        else:
            model = model.interpolated(op for network in subjects for op in network.ops)
    return model.predict(subjects, level, allow_estimates=allow_estimates)


def export_model(store: Store, models: ModelCache, name: str, fmt: str) -> tuple[bytes, str]:
    """A model as a file: its bytes and its name.

    Raises:
        NotFoundError: no such model.
        InvalidInputError: no such format, or not for this kind of model.
    """
    record = store.get_latency_model(name)
    space = get_space(record.space) if record.space else None
    data, suffix = export_latency_model(models.get(store, name), fmt, space)
    return data, name + suffix


def import_model(store: Store, name: str, data: bytes, now_ns: int) -> LatencyModelRecord:
    """Keeps a model that was made elsewhere.

    Raises:
        InvalidInputError: the name is malformed, or `data` is no latency model.
        ConflictError: the name stands for another model.
    """
    check_name("latency model", name)
    model = load_latency_model(data)
    record = LatencyModelRecord(
        name=name,
        kind=TABLE if isinstance(model, LookupTable) else model.kind,
        space=model.space.name if model.space is not None else "",
        target=model.target,
        campaign="",
        created_ns=now_ns,
        n_entries=len(model.entries) if isinstance(model, LookupTable) else 0,
        calibrated=model.calibrated if isinstance(model, LookupTable) else True,
        validation=model.validation,
    )
    store.put_latency_model(record, data)
    return record


class ModelCache:
    """The models that were asked last, loaded. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loaded: OrderedDict[tuple[str, int, int], StoredModel] = OrderedDict()

    def get(self, store: Store, name: str) -> StoredModel:
        """The model of a name as it is now in the store; raises `NotFoundError`."""
        record = store.get_latency_model(name)
        # A validation replaces the model by one that carries it.
        key = name, record.created_ns, record.validation.measured_ns if record.validation else 0
        with self._lock:
            if key in self._loaded:
                self._loaded.move_to_end(key)
                return self._loaded[key]
        model = load_latency_model(store.read_latency_model(name))
        with self._lock:
            self._loaded[key] = model
            while len(self._loaded) > _N_CACHED:
                self._loaded.popitem(last=False)
        return model


def _fits() -> Mapping[str, _Fit]:
    """The predictors by kind. Imported late: they bring heavy packages."""
    from latlas_latency.predictors.linear import fit_linear
    from latlas_latency.predictors.macs import fit_macs
    from latlas_latency.predictors.mlp import fit_mlp

    return {
        "mlp": lambda batch, labels_ms, target, seed: fit_mlp(batch, labels_ms, target, seed=seed),
        "linear": lambda batch, labels_ms, target, seed: fit_linear(batch, labels_ms, target),
        "macs": lambda batch, labels_ms, target, seed: fit_macs(batch, labels_ms, target),
    }
