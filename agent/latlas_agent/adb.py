"""The command `adb`: phones that are attached to this host, commands on them, files to them.

A phone that adb does not reach raises `DeviceGoneError`, whatever adb calls it: unplugged, offline,
no longer trusted. Everything else that goes wrong is the command's or the program's own.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from latlas_agent.android import Shell
from latlas_agent.lease import DeviceGoneError
from latlas_agent.timeouts import through_cancellation, within
from latlas_ops.errors import MeasurementError, RuntimeUnavailableError

READY = "device"
"""State of a phone that obeys."""

_WAYS_OUT = {
    "unauthorized": "unlock it and allow USB debugging from this host",
    "offline": "plug it in again, or run adb reconnect",
    "no permissions": "let this user open USB devices (udev rules of the package adb)",
}
_SERVER_TIMEOUT_S = 20.0
_ASK_TIMEOUT_S = 5.0
_STATE_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Attached:
    """A phone that adb knows of: its serial number, and its state in adb's words."""

    serial: str
    state: str

    @property
    def objection(self) -> str:
        """Why it cannot be used, and the way out; empty if it can."""
        if self.state == READY:
            return ""
        way_out = next((text for word, text in _WAYS_OUT.items() if word in self.state), "")
        return f"phone {self.serial} is {self.state}: {way_out or 'start Android on it'}"


class Adb:
    """The command, and the server that it starts.

    Args:
        path: the command.
        environment: environment variables that it is run with.
    """

    def __init__(self, path: str, environment: Mapping[str, str]) -> None:
        self._path = path
        self._environment = dict(environment)

    @classmethod
    def find(cls, environment: Mapping[str, str] = os.environ) -> Adb:
        """The command on the path, its server running.

        Raises:
            RuntimeUnavailableError: there is none, or its server does not start.
        """
        path = shutil.which("adb", path=environment.get("PATH"))
        if path is None:
            raise RuntimeUnavailableError(
                "adb is not installed here, and phones are reached through nothing else: sudo apt "
                "install adb, or put Android's platform-tools on the PATH"
            )
        found = cls(path, environment)
        try:
            # The server outlives the command and would keep a pipe open.
            done = subprocess.run(
                [path, "start-server"],
                env=found._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_SERVER_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise RuntimeUnavailableError(f"{path} start-server does not work: {error}") from error
        if done.returncode:
            raise RuntimeUnavailableError(
                f"the server of adb does not start (status {done.returncode}): run adb "
                "start-server by hand to see why"
            )
        return found

    def attached(self) -> list[Attached]:
        """The phones that are attached, in order of their serial numbers.

        Raises:
            RuntimeUnavailableError: adb does not answer.
        """
        done = self._ask(["devices"])
        if done is None or done.returncode:
            raise RuntimeUnavailableError(
                "adb devices does not answer: run adb kill-server and start the agent again"
            )
        return parse_devices(done.stdout.decode(errors="replace"))

    def shell(self, serial: str) -> Shell:
        """The shell of a phone, for short questions; see `Shell`."""

        def run(command: str) -> str:
            done = self._ask(["-s", serial, "shell", command])
            return done.stdout.decode(errors="replace").replace("\r\n", "\n") if done else ""

        return run

    async def run(self, serial: str, script: str, timeout_s: float) -> str:
        """What a script prints on a phone; its exit code is the script's own affair.

        Raises:
            DeviceGoneError: the phone is not there, or went meanwhile.
            MeasurementError: it took too long; the script may still run.
        """
        status, output, _ = await self._exchange(["-s", serial, "shell", script], timeout_s)
        if status:
            await self.require(serial)
        return output.replace("\r\n", "\n")

    async def push(self, serial: str, local: Path, remote: str, timeout_s: float) -> None:
        """Copies a file to a phone.

        Raises:
            DeviceGoneError: the phone is not there, or went meanwhile.
            MeasurementError: it could not be written; the message says why.
        """
        words = ["-s", serial, "push", str(local), remote]
        status, output, errors = await self._exchange(words, timeout_s)
        if status:
            await self.require(serial)
            lines = (errors or output).strip().splitlines() or [f"status {status}"]
            reason = next((line for line in lines if "error" in line), lines[-1]).strip()
            raise MeasurementError(
                f"cannot copy {local.name[:12]} to phone {serial}: {reason}; free storage on it"
            )

    async def require(self, serial: str) -> None:
        """Raises `DeviceGoneError` if a phone does not obey."""
        status, output, errors = await self._exchange(["-s", serial, "get-state"], _STATE_TIMEOUT_S)
        if status or output.strip() != READY:
            reason = " ".join((errors or output or "no answer").split()).removeprefix("error: ")
            raise DeviceGoneError(
                f"phone {serial} is gone ({reason}): plug it in again and see adb devices"
            )

    def _ask(self, words: Sequence[str]) -> subprocess.CompletedProcess[bytes] | None:
        """Runs the command for a few seconds at most; None where it does not come to its end."""
        try:
            return subprocess.run(
                [self._path, *words],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_ASK_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None

    async def _exchange(self, words: Sequence[str], timeout_s: float) -> tuple[int, str, str]:
        """Status, standard output and standard error of one command."""
        process = await asyncio.create_subprocess_exec(
            self._path,
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
        )
        try:
            output, errors = await within(timeout_s, process.communicate())
        except TimeoutError as error:
            raise MeasurementError(
                f"not done within {timeout_s:g} s: the program hangs or is too slow for its time "
                "limit"
            ) from error
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await through_cancellation(process.wait())
        status = process.returncode or 0
        return status, output.decode(errors="replace"), errors.decode(errors="replace")


def parse_devices(text: str) -> list[Attached]:
    """Phones in what `adb devices` prints: a line `SERIAL<tab>STATE` each."""
    found = []
    for line in text.splitlines():
        serial, tab, state = line.partition("\t")
        if tab and serial:
            found.append(Attached(serial.strip(), state.strip()))
    return sorted(found, key=lambda phone: phone.serial)
