"""`latlas device`: the boards that the coordinator knows."""

from __future__ import annotations

import argparse

from latlas.cli.options import Commands, add_command, add_group, open_lab
from latlas.cli.output import local_time, print_json, print_pairs, print_table
from latlas_ops.errors import NotFoundError


def add_to(commands: Commands) -> None:
    """Adds `device list` and `device show`."""
    group = add_group(commands, "device", "the boards that the coordinator knows")
    add_command(group, "list", "list devices").set_defaults(run=run_list)
    show = add_command(group, "show", "what one device is and can run")
    show.add_argument("device", metavar="DEVICE", help="its device_id, or the start of it")
    show.set_defaults(run=run_show)


def run_list(args: argparse.Namespace) -> None:
    """Lists every device."""
    with open_lab(args) as lab:
        states = lab.devices()
    if args.json:
        print_json(states)
        return
    print_table(
        ("DEVICE", "MODEL", "HOST", "STATE", "LAST SEEN", "RUNTIMES"),
        (
            (
                state.device.device_id,
                state.device.device_model,
                state.device.host_name,
                (state.busy_with or "idle") if state.connected else "away",
                local_time(state.last_seen_ns),
                ", ".join(f"{r.runtime} {r.version}" for r in state.device.runtimes) or "none",
            )
            for state in states
        ),
        empty=f"no device yet; run `latlas-agent run --coordinator {args.coordinator}` on one",
    )


def run_show(args: argparse.Namespace) -> None:
    """Shows one device."""
    with open_lab(args) as lab:
        states = lab.devices()
    found = [state for state in states if state.device.device_id.startswith(args.device)]
    exact = [state for state in found if state.device.device_id == args.device]
    if len(exact or found) != 1:
        there = ", ".join(state.device.device_id for state in found or states) or "none"
        what = "several devices are" if found else "no device is"
        raise NotFoundError(f"{what} called {args.device!r}; there are: {there}")
    (state,) = exact or found
    if args.json:
        print_json(state)
        return
    device = state.device
    print_pairs(
        (
            ("device", device.device_id),
            ("model", device.device_model),
            ("host", device.host_name),
            ("system", f"{device.operating_system}, {device.architecture}"),
            ("cores", device.n_cores),
            ("memory", f"{device.memory_bytes / 2**30:.1f} GiB"),
            ("power mode", device.power_mode),
            ("fingerprint", device.fingerprint),
            ("connected", "yes" if state.connected else "no"),
            ("last seen", local_time(state.last_seen_ns)),
            ("works on", state.busy_with or "nothing"),
        )
    )
    print()
    print_table(
        (
            "RUNTIME",
            "VERSION",
            "PROVIDERS",
            "PRECISIONS",
            "EXECUTIONS",
            "GRAPH LEVELS",
            "NODES TIMED",
        ),
        (
            (
                runtime.runtime,
                runtime.version,
                ", ".join(runtime.providers),
                ", ".join(runtime.precisions),
                ", ".join(runtime.executions),
                ", ".join(runtime.graph_levels),
                "yes" if runtime.per_node_times else "no",
            )
            for runtime in device.runtimes
        ),
        empty="no runtime is installed on it",
    )
