"""Which kernels the tables of a target have timed: how much of somebody's model they know."""

from __future__ import annotations

from latlas_coordinator.domain import TABLE, Role
from latlas_coordinator.storage import Store
from latlas_latency.program_details import Kernel, kernels_of


class TimedKernels:
    """What cover networks made a runtime compute, read once per campaign and number of visits.

    May be used from any thread: at worst, two read the same at once.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], frozenset[Kernel]] = {}

    def of_tables(self, store: Store, target: str) -> dict[str, frozenset[Kernel]]:
        """Name of a table of the target → the kernels of the campaign that it was made from."""
        return {
            record.name: self._of_campaign(store, record.campaign)
            for record in store.list_latency_models()
            if record.kind == TABLE and record.campaign and record.target.name == target
        }

    def _of_campaign(self, store: Store, campaign: str) -> frozenset[Kernel]:
        key = campaign, store.get_campaign(campaign).n_visits_done
        if key not in self._found:
            visits = store.read_visits(campaign, {Role.COVER})
            self._found[key] = kernels_of(visit for made in visits.values() for visit in made)
        return self._found[key]
