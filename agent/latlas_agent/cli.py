"""The command line `latlas-agent`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from latlas_agent.adb_phones import ON_PHONE
from latlas_agent.agent import AgentConfig, agent_version, run_agent
from latlas_ops.errors import InvalidInputError, LatlasError

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")
_MAX_CORES = 4096


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parse_address(text: str) -> str:
    """A checked `HOST:PORT`; raises `InvalidInputError` if it is malformed."""
    host, colon, port = text.rpartition(":")
    if not colon or not _HOST.fullmatch(host) or not port.isdecimal():
        raise InvalidInputError(
            f"{text!r} is not an address; expected HOST:PORT, for example lab:7443"
        )
    if not 1 <= int(port) <= 65_535:
        raise InvalidInputError(f"{text!r} is not an address; ports run from 1 to 65535")
    return text


def parse_cores(text: str) -> tuple[int, ...]:
    """Core numbers from `0,2-3`; raises `InvalidInputError` if it is malformed."""
    cores: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise InvalidInputError(f"{text!r} is no list of cores; expected, for example, 0,2-3")
        low, high = int(first), int(last or first)
        if low > high or high >= _MAX_CORES:
            raise InvalidInputError(f"{text!r} is no list of cores: {part.strip()!r} is no range")
        cores.update(range(low, high + 1))
    return tuple(sorted(cores))


def default_state_dir() -> Path:
    """Where an agent keeps its state unless it is told otherwise."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "latlas-agent"


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = _Parser(
        prog="latlas-agent", description="Measures latencies on this device for a coordinator."
    )
    parser.add_argument("--version", action="version", version=f"latlas-agent {agent_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="attach to a coordinator and measure what it asks for")
    run.add_argument("--coordinator", required=True, metavar="HOST:PORT", help="where it listens")
    run.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="where identity and programs are kept (default: latlas-agent in $XDG_STATE_HOME or "
        "~/.local/state)",
        default=default_state_dir(),
    )
    run.add_argument(
        "--cores",
        metavar="LIST",
        help="cores that measurements may use, such as 1 or 0,2-3; the agent itself keeps to the "
        "others (default: all)",
    )
    run.add_argument(
        "--delegate",
        type=Path,
        action="append",
        metavar="PATH",
        help="shared library that LiteRT and tflite-runtime may hand programs to; it becomes their "
        "provider delegate:PATH (may be given several times)",
    )
    run.add_argument(
        "--adb",
        action="store_true",
        help="serve the Android phones that adb reaches, each as a device, instead of this machine",
    )
    run.add_argument(
        "--benchmark-model",
        type=Path,
        metavar="FILE",
        help="TFLite's benchmark_model for Android, copied to the phones (default: what lies on "
        f"them as {ON_PHONE})",
    )
    run.add_argument("--name", default="", help="name of this device (default: its host name)")
    run.add_argument(
        "--max-wait",
        type=float,
        metavar="SECONDS",
        help="give up after this time without a coordinator (default: never)",
    )
    return parser


def _config(arguments: argparse.Namespace) -> AgentConfig:
    max_wait_s: float | None = arguments.max_wait
    if max_wait_s is not None and not max_wait_s >= 0:
        raise InvalidInputError(f"--max-wait must not be negative, got {max_wait_s:g}")
    for option, given in (("--cores", arguments.cores), ("--delegate", arguments.delegate)):
        if arguments.adb and given:
            raise InvalidInputError(
                f"{option} is about this machine, and --adb measures on phones instead: leave it "
                "out; a target pins the cores of a phone, with latlas target add --cores"
            )
    if arguments.benchmark_model is not None and not arguments.adb:
        raise InvalidInputError("--benchmark-model is for phones: give --adb with it")
    return AgentConfig(
        coordinator=parse_address(arguments.coordinator),
        state_dir=arguments.state_dir.absolute(),  # workers run in other folders
        cores=parse_cores(arguments.cores) if arguments.cores is not None else (),
        delegates=tuple(path.absolute() for path in arguments.delegate or ()),
        name=arguments.name,
        max_wait_s=max_wait_s,
        adb=arguments.adb,
        benchmark_model=arguments.benchmark_model,
    )


async def _run_until_signal(config: AgentConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await run_agent(config, stop)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code, 2 for whatever a user can put right."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    parsed = build_parser().parse_args(arguments)
    try:
        asyncio.run(_run_until_signal(_config(parsed)))
    except LatlasError as error:
        print(f"latlas-agent: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
