"""Waiting for a campaign on the command line."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from latlas.progress import Progress
from latlas_ops.errors import RuntimeUnavailableError

if TYPE_CHECKING:
    from latlas.lab import Lab
    from latlas.records import CampaignStatus
    from latlas_latency.measurement import Device, Target


WRITING_PROGRAMS = "writing programs; for a large space that takes a minute or two"


def follow(lab: Lab, status: CampaignStatus, label: str) -> CampaignStatus:
    """Shows the progress of a campaign on stderr until it ends; returns the last status."""
    if not status.is_running:
        return status
    _warn_without_device(lab, status)
    with Progress(
        label,
        total=status.n_visits_wanted,
        done=status.n_visits_done,
        unit="visits",
        stream=sys.stderr,
    ) as bar:
        last = status
        for last in lab.watch(status.name):
            notes = [f"{len(last.failed)} failed"] if last.failed else []
            if last.findings is not None and last.findings.n_suspicions:
                notes.append(f"suspicious: {last.findings.summary}")
            bar.update(last.n_visits_done, "; ".join(notes), total=last.n_visits_wanted)
    return last


def _warn_without_device(lab: Lab, status: CampaignStatus) -> None:
    """Says so where nothing can happen because no connected device serves the target."""
    connected = [state.device for state in lab.devices() if state.connected]
    targets = [target for target in lab.targets() if target.name == status.target]
    if any(_serves(device, target) for device in connected for target in targets):
        return
    print(
        f"latlas: no connected device serves target {status.target!r} now; waiting for one (start "
        f"`latlas-agent run --coordinator {lab.address}` on it)",
        file=sys.stderr,
    )


def _serves(device: Device, target: Target) -> bool:
    try:
        device.require_capable(target)
    except RuntimeUnavailableError:
        return False
    return True


@contextmanager
def told_when_slow(what: str, after_s: float = 2.0) -> Iterator[None]:
    """Says on stderr what is going on if the work inside takes longer than `after_s` seconds."""
    timer = threading.Timer(after_s, lambda: print(f"latlas: {what}", file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
