"""What the pages show, as HTML. Pure: records and a clock's reading in, text out."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from latlas_coordinator.dashboard.heat_map import LATENCY, Cell, Grid, HeatMap
from latlas_coordinator.domain import (
    CampaignState,
    CampaignStatus,
    DeviceRecord,
    LatencyModelRecord,
    ProfilePlan,
    ValidationPlan,
)
from latlas_latency.findings_in_words import (
    not_looked_at_in_words,
    precision_in_words,
    suspicions_in_words,
)
from latlas_latency.measurement import Target

PAGES = (
    ("/", "Devices"),
    ("/campaigns", "Campaigns"),
    ("/models", "Latency models"),
    ("/tables", "Tables"),
)
"""Path and title of each page."""

_JUST_NOW_S = 10
_UNITS_S = (("day", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
_HOT = 0.55


def navigation(path: str) -> str:
    """The head of every page; `path` is the one that is shown."""
    links = "".join(
        f'<a href="{where}"{current}>{title}</a>'
        for where, title in PAGES
        for current in [' aria-current="page"' if where == path else ""]
    )
    return f'<header class="la-head"><strong>Latlas</strong><nav>{links}</nav></header>'


def devices(records: Sequence[DeviceRecord], now_ns: int, connect_to: str) -> str:
    """Devices with their state.

    Args:
        records: the devices.
        now_ns: Unix time.
        connect_to: address that agents dial, for the hint where there is no device.
    """
    if not records:
        return _empty(
            "No device yet",
            "Run this on the board, or on this machine; it appears here within seconds:",
            f"latlas-agent run --coordinator {connect_to}",
        )
    rows = []
    for record in sorted(records, key=lambda one: (not one.connected, one.device.host_name)):
        device = record.device
        state = ("on", "connected") if record.connected else ("off", "not connected")
        if record.busy_with:
            activity = f"<strong>{_text(record.busy_with)}</strong>"
        else:
            activity = '<span class="la-dim">idle</span>' if record.connected else ""
        runtimes = [f"{one.runtime} {one.version}" for one in device.runtimes]
        rows.append(
            (
                f"<strong>{_text(device.host_name)}</strong><small>{_text(device.device_id)}</small>",
                f'<span class="la-state {state[0]}">{state[1]}</span>',
                _text(ago(record.last_seen_ns, now_ns)),
                activity,
                f"{_text(device.device_model)}<small>{_text(device.operating_system)}, "
                f"{device.n_cores} cores, {device.memory_bytes / 2**30:.0f} GiB</small>",
                "<br>".join(map(_text, runtimes)) or "none",
            )
        )
    head = ("Device", "State", "Last seen", "Busy with", "Model", "Runtimes")
    n_connected = sum(record.connected for record in records)
    return _page(
        "Devices", f"{n_connected} of {len(records)} connected", _table(head, rows, numeric=())
    )


def campaigns(statuses: Sequence[CampaignStatus], now_ns: int) -> str:
    """Campaigns with their progress, newest first."""
    if not statuses:
        return _empty(
            "No campaign yet",
            "Name a target, then profile a search space on it:",
            "latlas target add my-board\nlatlas campaign start first --target my-board "
            "--space digits --watch",
        )
    rows = []
    for status in sorted(statuses, key=lambda one: -one.campaign.created_ns):
        campaign = status.campaign
        rows.append(
            (
                f"<strong>{_text(campaign.name)}</strong>"
                f"<small>started {_text(ago(campaign.created_ns, now_ns))}</small>",
                _text(campaign.target),
                _measures(status),
                f'<span class="la-state {_STATE_CLASSES[campaign.state]}">'
                f"{campaign.state.value}</span>",
                _progress(status.n_visits_done, status.n_visits_wanted),
                _suspicions(status),
                _failures(status),
            )
        )
    running = sum(one.campaign.state is CampaignState.RUNNING for one in statuses)
    head = ("Campaign", "Target", "Measures", "State", "Visits", "Suspicious", "Failed tasks")
    return _page("Campaigns", f"{running} running", _table(head, rows, numeric=()))


_STATE_CLASSES = {
    CampaignState.RUNNING: "on",
    CampaignState.FINISHED: "done",
    CampaignState.CANCELLED: "off",
}


def latency_models(records: Sequence[LatencyModelRecord], now_ns: int) -> str:
    """Latency models with their errors."""
    if not records:
        return _empty(
            "No latency model yet",
            "Build a table, or fit a predictor, from a campaign that has finished:",
            "latlas table build my-table --campaign first\n"
            "latlas predictor fit my-predictor --campaign first",
        )
    rows = []
    for record in records:
        name = f"<strong>{_text(record.name)}</strong>"
        if record.kind == "table":
            name = f'<a href="/tables?model={quote(record.name)}">{name}</a>'
            size = f"table, {record.n_entries} entries"
        else:
            size = _text(record.kind)
        caveat = "" if record.calibrated else '<small class="la-warn">not calibrated</small>'
        source = f"from {_text(record.campaign)}" if record.campaign else "imported"
        found = record.validation
        rows.append(
            (
                f"{name}<small>{_text(ago(record.created_ns, now_ns))}, {source}</small>",
                f"{size}{caveat}",
                _text(record.space) or '<span class="la-dim">any network</span>',
                f"{_text(record.target.name)}<small>{_text(_target(record.target))}</small>",
                "not validated" if found is None else f"<strong>{_percent(found.mape)}</strong>",
                "" if found is None else _percent(found.max_error),
                "" if found is None else _percent(found.label_noise),
                "" if found is None else str(found.n_networks),
            )
        )
    head = (
        "Latency model",
        "Kind",
        "Space",
        "Target",
        "Mean error",
        "Max error",
        "Label noise",
        "Unseen networks",
    )
    return _page("Latency models", f"{len(records)}", _table(head, rows, numeric=(4, 5, 6, 7)))


def no_table() -> str:
    """What the page of tables shows before there is one."""
    return _empty(
        "No lookup table yet",
        "Build one from a campaign that has profiled a search space and has finished:",
        "latlas table build my-table --campaign first",
    )


def table_page(
    record: LatencyModelRecord,
    found: HeatMap,
    names: Sequence[str],
    resolutions: Sequence[int | float],
    resolution: int | float | None,
) -> str:
    """A lookup table as a heat map, and links to the others.

    Args:
        record: the table.
        found: its map.
        names: every table there is.
        resolutions: resolutions of its space; empty if it has none.
        resolution: the one that is shown.
    """
    here = f"/tables?model={quote(record.name)}"
    choices = _choices(
        "Table", [(name, f"/tables?model={quote(name)}", name == record.name) for name in names]
    )
    if resolutions:
        choices += _choices(
            "Resolution",
            [
                (f"{one:g} px", f"{here}&resolution={one:g}", one == resolution)
                for one in resolutions
            ],
        )
    notes = [
        f"{record.n_entries} entries on target {record.target.name}: {_target(record.target)}."
    ]
    if record.calibrated:
        notes.append("Values in ms, calibrated on whole networks.")
    else:
        notes.append("Values in ms, not calibrated: their sums fall short of whole networks.")
    if found.held:
        notes.append(f"Held at the largest choice: {found.held}.")
    if found.n_missing:
        notes.append(f"{found.n_missing} cells have no entry.")
    legend = ""
    if found.fastest_ms is not None and found.slowest_ms is not None:
        legend = (
            f'<p class="la-legend">{milliseconds(found.fastest_ms)} ms <span></span> '
            f"{milliseconds(found.slowest_ms)} ms</p>"
        )
    grids = "".join(_grid(grid) for grid in found.grids)
    return f'<h1>Tables</h1>{choices}<p class="la-note">{_text(" ".join(notes))}</p>{legend}{grids}'


def failure(message: str) -> str:
    """What is shown where the store or a model cannot be read."""
    return f'<p class="la-failure" role="alert">✗ {_text(message)}</p>'


def ago(then_ns: int, now_ns: int) -> str:
    """How long ago something was, in its largest unit."""
    seconds = max(0, (now_ns - then_ns) // 1_000_000_000)
    if seconds < _JUST_NOW_S:
        return "just now"
    unit, size = next((unit, size) for unit, size in _UNITS_S if seconds >= size)
    number = seconds // size
    return f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''} ago"


def _choices(what: str, options: Iterable[tuple[str, str, bool]]) -> str:
    """Links of which one is the current: name, address, whether it is current."""
    links = "".join(
        f'<a href="{_text(where)}"{current}>{_text(name)}</a>'
        for name, where, chosen in options
        for current in [' aria-current="true"' if chosen else ""]
    )
    return f'<nav class="la-choices"><span>{what}</span>{links}</nav>'


def _grid(grid: Grid) -> str:
    head = []
    for level, axis in enumerate(grid.axes):
        prefixes = [column[: level + 1] for column in grid.columns]
        cells = "".join(
            f'<th scope="col" colspan="{len(list(same))}">{_text(prefix[-1])}</th>'
            for prefix, same in itertools.groupby(prefixes)
        )
        head.append(f"<tr><th>{_text(axis)}</th>{cells}</tr>")
    if not grid.axes:
        head.append(f"<tr><th></th><th>{LATENCY}</th></tr>")
    rows = "".join(
        f'<tr><th scope="row">{_text(label)}</th>{"".join(map(_heat_cell, cells))}</tr>'
        for label, cells in grid.rows
    )
    return (
        f'<h2>{_text(grid.title)}</h2><div class="la-scroll"><table class="la-heat">'
        f"<thead>{''.join(head)}</thead><tbody>{rows}</tbody></table></div>"
    )


def _heat_cell(cell: Cell | None) -> str:
    if cell is None:
        return "<td></td>"
    if cell.latency_ms is None:
        return f'<td class="la-missing" title="{_text(cell.op)}: no entry">–</td>'
    hot = ' class="la-hot"' if cell.heat > _HOT else ""
    return (
        f'<td{hot} style="--heat: {100 * cell.heat:.0f}%" title="{_text(cell.op)}">'
        f"{milliseconds(cell.latency_ms)}</td>"
    )


def _measures(status: CampaignStatus) -> str:
    plan = status.campaign.plan
    if isinstance(plan, ProfilePlan):
        return f"space {_text(plan.space)}<small>{status.n_tasks} tasks</small>"
    if isinstance(plan, ValidationPlan):
        return f"table {_text(plan.table)}<small>{status.n_tasks} tasks</small>"
    n_programs = len(plan.programs)
    return f"{n_programs} program{'' if n_programs == 1 else 's'}"


def _progress(done: int, wanted: int) -> str:
    if not wanted:
        return '<span class="la-dim">nothing that can be measured</span>'
    return (
        f'<progress max="{wanted}" value="{done}"></progress>'
        f"<small>{done} of {wanted}, {100 * done // wanted} %</small>"
    )


def _suspicions(status: CampaignStatus) -> str:
    found = status.findings
    if found is None:
        is_running = status.campaign.state is CampaignState.RUNNING
        return f'<span class="la-dim">{not_looked_at_in_words(is_running)}</span>'
    target_error = status.campaign.sampling.target_error
    figures = precision_in_words(
        found.entry_error, found.label_error, target_error, found.n_labels_unknown
    )
    precision = "".join(f"<small>{_text(line)}</small>" for line in (*figures, *found.remarks))
    if not found.suspicions:
        return f'<span class="la-dim">none</span>{precision}'
    words = suspicions_in_words(len(found.suspicions), found.n_revisited, found.n_open)
    lines = "".join(
        f"<li>{_text(one.text)}{'' if one.open else ' (settled)'}</li>" for one in found.suspicions
    )
    style = ' class="la-warn"' if found.n_open else ""
    return f"<details><summary{style}>{_text(words)}</summary><ul>{lines}</ul></details>{precision}"


def _failures(status: CampaignStatus) -> str:
    if not status.failed:
        return '<span class="la-dim">none</span>'
    reasons = "".join(
        f"<li>{_text(one.label)}: {_text(one.failure.reason)}</li>" for one in status.failed
    )
    return (
        f'<details><summary class="la-warn">✗ {len(status.failed)}</summary>'
        f"<ul>{reasons}</ul></details>"
    )


def _target(target: Target) -> str:
    return (
        f"{target.device_model}, {target.runtime} {target.runtime_version}, {target.provider}, "
        f"{target.precision}, {target.threads} thread{'' if target.threads == 1 else 's'}"
    )


def _page(title: str, aside: str, body: str) -> str:
    return f'<h1>{title} <span class="la-dim">{_text(aside)}</span></h1>{body}'


def _empty(title: str, words: str, commands: str) -> str:
    return f'<div class="la-empty"><h1>{title}</h1><p>{words}</p><pre>{_text(commands)}</pre></div>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], numeric: Sequence[int]) -> str:
    """A table of cells that are HTML already; columns in `numeric` are set to the right."""
    kinds = [' class="la-number"' if column in numeric else "" for column in range(len(head))]
    names = "".join(f"<th{kind}>{name}</th>" for kind, name in zip(kinds, head, strict=True))
    body = "".join(
        "<tr>"
        + "".join(
            f'<td{kind} data-label="{name}">{cell}</td>'
            for kind, name, cell in zip(kinds, head, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="la-scroll"><table class="la-list"><thead><tr>{names}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _percent(fraction: float) -> str:
    return "unknown" if math.isnan(fraction) else f"{100 * fraction:.1f} %"


def milliseconds(value_ms: float) -> str:
    """Three significant digits, never in exponential notation."""
    decimals = max(0, 2 - math.floor(math.log10(value_ms)))
    return f"{value_ms:.{min(decimals, 6)}f}"


def _text(value: str) -> str:
    return html.escape(value)
