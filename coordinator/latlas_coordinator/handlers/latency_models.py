"""Latency models: made from campaigns, asked, exported and imported."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from latlas_coordinator.domain import (
    Campaign,
    CampaignState,
    Findings,
    LatencyModelRecord,
    ProfilePlan,
    Role,
    check_name,
)
from latlas_coordinator.handlers.measurements import read_observations
from latlas_coordinator.planning import covered_choices
from latlas_coordinator.storage import Store
from latlas_latency.comparison import validate
from latlas_latency.formats import (
    StoredModel,
    dump_latency_model,
    export_latency_model,
    load_latency_model,
)
from latlas_latency.formats.predictor_file import Predictor
from latlas_latency.measurement import PROFILED, Target
from latlas_latency.methods import ALONE, CHAINED, IN_SITU
from latlas_latency.model import LatencyModel, Prediction, Subjects
from latlas_latency.observations import Observation, measure_drift
from latlas_latency.partial import answers, with_interpolation_check
from latlas_latency.plain_building import build_alone_table, build_chained_table
from latlas_latency.table import LookupTable
from latlas_latency.table_building import build_table as build_in_situ_table
from latlas_latency.validation import Validation
from latlas_ops.errors import InvalidInputError
from latlas_ops.space import ArchBatch, SearchSpace
from latlas_ops.spaces import get_space

TABLE = "table"
VALIDATION_LEVEL = 0.9
"""Coverage that intervals promise when a model is validated."""

_SOURCE_WORDS = {IN_SITU: "cover network", CHAINED: "chain of ops", ALONE: "op alone"}
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
    source = _Source.of(store, name, campaign)
    table = with_findings(source.table(), store.get_campaign(campaign).findings)
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


def provisional_table(store: Store, campaign: Campaign) -> LookupTable:
    """The table of what a profile campaign has measured so far, running or not; it is not kept.

    Raises: as `build_table`.
    """
    target = store.get_target(campaign.target)
    return _Source(store, campaign, get_space(campaign.space), target).table()


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
    source = _Source.of(store, name, campaign)
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


class _Whole(TypedDict):
    """What every method takes beside the measurements of ops."""

    plain: Sequence[Observation]
    calibration: Sequence[Observation]
    target: Target
    space: SearchSpace


@dataclass(frozen=True)
class _Source:
    """A campaign that a model is made from."""

    store: Store
    campaign: Campaign
    space: SearchSpace
    target: Target

    @classmethod
    def of(cls, store: Store, name: str, campaign: str) -> _Source:
        """Checks the name of the model and that the campaign can give one."""
        check_name("latency model", name)
        status = store.get_campaign(campaign)
        if not status.campaign.space:
            raise InvalidInputError(
                f"campaign {campaign!r} measures programs; a latency model is made from one that "
                "profiles a space"
            )
        if status.campaign.state is CampaignState.RUNNING:
            raise InvalidInputError(
                f"campaign {campaign!r} still runs ({status.n_visits_done} of "
                f"{status.n_visits_wanted} visits): wait for its end, or cancel it to use what it "
                "has"
            )
        target = store.get_target(status.campaign.target)
        return cls(store, status.campaign, get_space(status.campaign.space), target)

    def observations(self, roles: Collection[Role]) -> list[Observation]:
        """What tasks of these roles have measured."""
        found = read_observations(self.store, self.campaign.name, roles)
        return [observation for _, observation in found]

    def table(self) -> LookupTable:
        """The table of everything that it has measured; raises as `build_table`."""
        plan = self.campaign.plan
        method = plan.method if isinstance(plan, ProfilePlan) else IN_SITU
        cover = self.observations([Role.COVER])
        sources = {
            IN_SITU: [seen for seen in cover if seen.mode == PROFILED],
            CHAINED: self.observations([Role.CHAIN]),
            ALONE: self.observations([Role.ALONE]),
        }
        if not sources[method]:
            raise InvalidInputError(
                f"campaign {self.campaign.name!r} has measured no {_SOURCE_WORDS[method]}: start "
                "it anew"
            )
        calibration, beyond = self._calibration()
        whole = _Whole(
            plain=[seen for seen in cover if seen.mode != PROFILED],
            calibration=calibration,
            target=self.target,
            space=self.space,
        )
        if method == CHAINED:
            table = build_chained_table(chains=sources[method], **whole)
        elif method == ALONE:
            table = build_alone_table(alone=sources[method], **whole)
        else:
            table = build_in_situ_table(profiled=sources[method], **whole)
        if not beyond:
            return table
        sitting = [*sources[method], *whole["plain"], *calibration]
        return with_interpolation_check(table, beyond, sitting)

    def _calibration(self) -> tuple[list[Observation], list[Observation]]:
        """Calibration networks: of the resolutions of the cover networks, and of others."""
        found = self.observations([Role.CALIBRATION])
        covered = covered_choices(self.space, self._resolutions)
        parts: tuple[list[Observation], list[Observation]] = [], []
        for seen in found:
            assert seen.arch is not None
            genes = seen.arch.genes
            inside = all(genes[gene] in choices for gene, choices in covered.items())
            parts[not inside].append(seen)
        return parts

    @property
    def _resolutions(self) -> tuple[int, ...]:
        """Resolutions of the cover networks; empty for all of the space."""
        plan = self.campaign.plan
        return plan.resolutions if isinstance(plan, ProfilePlan) else ()

    def validate(self, model: LatencyModel) -> Validation | None:
        """Errors on the campaign's validation networks; None if it has none.

        Of a table of some resolutions only, on those networks that it can answer for.
        """
        unseen = self.observations([Role.VALIDATION])
        if self._resolutions and isinstance(model, LookupTable):
            unseen = [seen for seen in unseen if answers(model, seen.network)]
        return validate(model, unseen, self.space, level=VALIDATION_LEVEL) if unseen else None


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
