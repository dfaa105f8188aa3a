"""Campaigns whose rounds are done: looked at, and finished or visited again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from latlas_coordinator.domain import (
    Campaign,
    Findings,
    Looked,
    ProfilePlan,
    TaskProgress,
)
from latlas_coordinator.handlers.model_sources import provisional_table
from latlas_coordinator.handlers.suspicion import tasks_behind
from latlas_coordinator.scheduling import LeasePolicy
from latlas_coordinator.settling import (
    Case,
    EntryEvidence,
    settle_figures,
    settle_visits,
)
from latlas_coordinator.storage import Store
from latlas_latency.methods import IN_SITU
from latlas_latency.observations import measure_drift
from latlas_latency.precision import cover_noise
from latlas_latency.suspicion import monotonicity_breaks
from latlas_ops.errors import LatlasError
from latlas_ops.spaces import get_space

_LOG = logging.getLogger(__name__)

_NOISE_UNKNOWN = "entries' noise is not known: their ops were measured apart from networks"
_N_NETWORKS = 256
"""Random networks that the noise of entries is weighed with."""


def settle(
    store: Store,
    campaign: Campaign,
    now_ns: int,
    max_attempts: int = LeasePolicy.max_attempts,
) -> bool:
    """Ends a campaign that is complete, or has some of its tasks visited again.

    What is decided is stored at once with what was found: a coordinator that is killed before that
    decides the same again. A campaign whose time is up is looked at, and taken as it is.

    Takes seconds for a campaign of some hundred networks: not to be called where others wait.

    Args:
        store: where the campaign is.
        campaign: one of `Store.list_complete_campaigns`.
        now_ns: Unix time.
        max_attempts: as in `LeasePolicy`.

    Returns:
        Whether it ended.
    """
    name = campaign.name
    budget_ns = campaign.sampling.time_budget_ns
    begun_ns = store.list_first_leases().get(name, now_ns) if budget_ns else now_ns
    case = Case(
        store.list_tasks(name),
        store.list_visit_summaries(name),
        store.get_campaign(name).findings or Findings(),
        may_revisit=not (budget_ns and begun_ns + budget_ns <= now_ns),
        max_attempts=max_attempts,
    )
    decision = settle_visits(case)
    why = "visits that disagree, were disturbed, or are of a stretch"
    if not decision.rounds:
        why = "entries that cannot be right, or figures that are not precise enough"
        evidence = _entry_evidence(store, campaign, case.tasks)
        decision = settle_figures(case, decision.findings, evidence)
    looked = Looked.at(case.tasks, len(case.visits))
    if not store.settle_campaign(name, decision.findings, decision.rounds, looked):
        _LOG.info("campaign %s was changed while it was looked at", name)
        return False
    found = decision.findings
    if decision.rounds:
        _LOG.info(
            "campaign %s: %d more visits of %d tasks: %s",
            name,
            sum(decision.rounds.values()),
            len(decision.rounds),
            why,
        )
        return False
    _LOG.info(
        "campaign %s is finished; suspicious: %d, of which %d are left",
        name,
        len(found.suspicions),
        found.n_open,
    )
    return True


def end_as_it_is(store: Store, campaign: Campaign, reason: str) -> bool:
    """Ends a campaign that is complete and cannot be looked at, with the reason in its findings.

    Returns:
        Whether it ended; not if it was changed meanwhile.
    """
    tasks = store.list_tasks(campaign.name)
    status = store.get_campaign(campaign.name)
    known = status.findings or Findings()
    remark = f"its visits could not be looked at: {reason}"
    findings = replace(known, remarks=(*known.remarks, remark))
    looked = Looked.at(tasks, status.n_visits_done)
    return store.settle_campaign(campaign.name, findings, {}, looked)


def _entry_evidence(
    store: Store, campaign: Campaign, tasks: Sequence[TaskProgress]
) -> EntryEvidence | None:
    """What a table of the visits so far says; None if the campaign gives none."""
    if not isinstance(campaign.plan, ProfilePlan):
        return None
    try:
        made = provisional_table(store, campaign)
        breaks = monotonicity_breaks(made.table.entries)
        holders = tasks_behind(store, tasks, breaks)
    except LatlasError as error:
        return EntryEvidence(
            None, remarks=(_not(campaign, "entries could not be looked at", error),)
        )
    if campaign.plan.method != IN_SITU:
        return EntryEvidence(breaks, holders, remarks=(_NOISE_UNKNOWN,))
    try:
        networks = get_space(campaign.space).sample(_N_NETWORKS, np.random.default_rng(0))
        noise = cover_noise(made.sources, measure_drift(made.sitting), made.table, networks)
    except LatlasError as error:
        return EntryEvidence(
            breaks, holders, remarks=(_not(campaign, "entries' noise is not known", error),)
        )
    covers = tuple(seen.visits[0].task_id for seen in made.sources)
    return EntryEvidence(breaks, holders, noise, covers)


def _not(campaign: Campaign, what: str, error: LatlasError) -> str:
    _LOG.warning("campaign %s: %s: %s", campaign.name, what, error)
    return f"{what}: {error}"
