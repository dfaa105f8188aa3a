"""Which runtimes work on this board, asked of short-lived child processes.

A runtime may be missing, or import cleanly and die at first use; either way the agent lives on.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping

from latlas_agent.runtimes import registry
from latlas_latency.measurement import RuntimeCapability

_LOG = logging.getLogger(__name__)


def probe_runtimes(
    environment: Mapping[str, str] = os.environ, timeout_s: float = 120.0
) -> tuple[RuntimeCapability, ...]:
    """The capability of every plug-in that works, in order of its name.

    Args:
        environment: environment variables of the child processes.
        timeout_s: time that one runtime may take to answer.
    """
    found = []
    for name in sorted(registry()):
        capability = _probe(name, environment, timeout_s)
        if isinstance(capability, str):
            _LOG.info("runtime %s is not offered: %s", name, capability)
        else:
            found.append(capability)
    return tuple(found)


def _probe(name: str, environment: Mapping[str, str], timeout_s: float) -> RuntimeCapability | str:
    """The capability of a runtime, or why it has none."""
    try:
        child = subprocess.run(
            [sys.executable, "-m", "latlas_agent.worker", "probe", name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=dict(environment),
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it does not answer within {timeout_s:g} s"
    if child.returncode:
        last = child.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return f"it ends with status {child.returncode}: {' '.join(last)}"
    try:
        record = json.loads(child.stdout)
        if "unavailable" in record:
            return str(record["unavailable"])
        return RuntimeCapability(
            runtime=name,
            version=str(record["version"]),
            providers=tuple(record["providers"]),
            precisions=tuple(record["precisions"]),
            graph_levels=tuple(record["graph_levels"]),
            program_formats=tuple(record["program_formats"]),
            per_node_times=bool(record["per_node_times"]),
            executions=tuple(record["executions"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        return f"it describes itself wrongly: {error!r}"
