"""The page of lookup tables: which table and resolution are shown, and their heat map."""

from __future__ import annotations

from latlas_coordinator.dashboard import views
from latlas_coordinator.dashboard.heat_map import kind_map, space_map
from latlas_coordinator.domain import TABLE, LatencyModelRecord
from latlas_coordinator.handlers.latency_models import ModelCache
from latlas_coordinator.storage import Store
from latlas_latency.table import LookupTable
from latlas_ops.errors import InvalidInputError, NotFoundError
from latlas_ops.space import SearchSpace
from latlas_ops.spaces import get_space


def render(store: Store, models: ModelCache, name: str, resolution: str) -> str:
    """The page as HTML.

    Args:
        store: where the tables are.
        models: loads them.
        name: the table to show; empty for the first.
        resolution: the resolution to show, as it stands in the address; empty for the largest.

    Raises:
        NotFoundError: no latency model has that name.
        InvalidInputError: it is no table, or its space has no such resolution.
    """
    records = [record for record in store.list_latency_models() if record.kind == TABLE]
    if not records and not name:
        return views.no_table()
    record = store.get_latency_model(name) if name else records[0]
    if record.kind != TABLE or not isinstance(table := models.get(store, record.name), LookupTable):
        raise InvalidInputError(
            f"{record.name!r} is a predictor ({record.kind}): only a table has entries per op"
        )
    space = _space(record)
    choices = _resolutions(space)
    shown = _chosen(choices, resolution, record)
    found = kind_map(table) if space is None else space_map(table, space, shown)
    return views.table_page(record, found, [one.name for one in records], choices, shown)


def _space(record: LatencyModelRecord) -> SearchSpace | None:
    """The space of a table; None without one, or if it is one of somebody's own that is gone."""
    try:
        return get_space(record.space) if record.space else None
    except NotFoundError:
        return None


def _resolutions(space: SearchSpace | None) -> tuple[int | float, ...]:
    if space is None or space.resolution_gene is None:
        return ()
    return space.genes[space.resolution_gene].choices


def _chosen(
    choices: tuple[int | float, ...], wanted: str, record: LatencyModelRecord
) -> int | float | None:
    if not wanted or not choices:
        return choices[-1] if choices else None
    for choice in choices:
        if f"{choice:g}" == wanted:
            return choice
    raise InvalidInputError(
        f"space {record.space!r} has no resolution {wanted!r}; it has "
        f"{', '.join(f'{choice:g}' for choice in choices)}"
    )
