"""Who this board is: an identity minted once, kept on the board and checked against its hardware.

Two boards cloned from one image carry the same identity file; the hardware tells them apart and
the second one gets an identity of its own. An upgrade of software changes nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from latlas_agent.sysfs import ROOT, read_int, read_text
from latlas_ops.errors import ConflictError, StorageError

_IDENTITY_FILE = "identity.json"
_PHONES_FILE = "phones.json"
_EPOCH_FILE = "epoch"
_LOCK_FILE = "lock"
_FORMAT = 1
_PERMANENT_ADDRESS = 0  # NET_ADDR_PERM of the kernel's addr_assign_type


@dataclass(frozen=True)
class Fingerprint:
    """What is known about the hardware; every value is a SHA-256, nothing leaves the board plain.

    Attributes:
        serial: of the serial number in the device tree; None where there is none.
        addresses: of the permanent hardware addresses of built-in network interfaces.
        machine_id: of the operating system's machine id, which a clone of the image shares.
    """

    serial: str | None
    addresses: frozenset[str]
    machine_id: str | None

    def same_board(self, other: Fingerprint) -> bool:
        """Whether both may come from one board, by the strongest source that both have.

        An interface whose driver loads late, or one that is added, does not make a new board:
        one common hardware address is enough.
        """
        if self.serial and other.serial:
            return self.serial == other.serial
        if self.addresses and other.addresses:
            return bool(self.addresses & other.addresses)
        if self.machine_id and other.machine_id:
            return self.machine_id == other.machine_id
        return True

    def completed_by(self, older: Fingerprint) -> Fingerprint:
        """This fingerprint, with the sources that only `older` could read."""
        return Fingerprint(
            self.serial or older.serial,
            self.addresses or older.addresses,
            self.machine_id or older.machine_id,
        )

    @property
    def digest(self) -> str:
        """One SHA-256 over the strongest source there is."""
        strongest = self.serial or ",".join(sorted(self.addresses)) or self.machine_id or "unknown"
        return _sha256(strongest)


@dataclass(frozen=True)
class Identity:
    """The names under which this agent and its board are known, and the board's fingerprint."""

    agent_id: str
    device_id: str
    fingerprint: str


def read_fingerprint(root: Path = ROOT) -> Fingerprint:
    """The fingerprint of the hardware under `root`.

    Addresses are used only where they are permanent and the interface is neither virtual nor
    plugged into a USB port: containers and dongles come and go.
    """
    serial = read_text(root / "proc/device-tree/serial-number")
    if serial is not None and not serial.strip("0"):
        serial = None
    addresses = set()
    for interface in sorted((root / "sys/class/net").glob("*")):
        device = interface / "device"
        if not device.exists() or "/usb" in str(device.resolve()):
            continue
        address = read_text(interface / "address")
        if address and read_int(interface / "addr_assign_type") == _PERMANENT_ADDRESS:
            addresses.add(_sha256(address.lower()))
    machine_id = read_text(root / "etc/machine-id")
    return Fingerprint(
        serial=_sha256(serial) if serial else None,
        addresses=frozenset(addresses),
        machine_id=_sha256(machine_id) if machine_id else None,
    )


def _random_word() -> str:
    return secrets.token_hex(6)


def load_identity(
    state_dir: Path, fingerprint: Fingerprint, mint: Callable[[], str] = _random_word
) -> Identity:
    """The identity kept in `state_dir`, minted if there is none or if it is another board's.

    Args:
        state_dir: the agent's own folder; must exist.
        fingerprint: of the hardware the agent runs on now.
        mint: gives a fresh random word.

    Raises:
        StorageError: the identity file is damaged or cannot be read or written.
    """
    path = state_dir / _IDENTITY_FILE
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else None
    except OSError as error:
        raise StorageError(f"cannot read the identity file {path}: {error.strerror}") from error
    agent_id, device_id = f"agent-{mint()}", f"device-{mint()}"
    if text is not None:
        kept_agent_id, kept_device_id, kept = _parse_identity(path, text)
        if kept.same_board(fingerprint):
            agent_id, device_id = kept_agent_id, kept_device_id
            fingerprint = fingerprint.completed_by(kept)
    record = {
        "format": _FORMAT,
        "agent_id": agent_id,
        "device_id": device_id,
        "serial": fingerprint.serial,
        "addresses": sorted(fingerprint.addresses),
        "machine_id": fingerprint.machine_id,
    }
    wanted = json.dumps(record, indent=1)
    if wanted != text:
        write_atomically(path, wanted)
    return Identity(agent_id, device_id, fingerprint.digest)


def _parse_identity(path: Path, text: str) -> tuple[str, str, Fingerprint]:
    try:
        record = json.loads(text)
        if record["format"] != _FORMAT:
            raise ValueError(f"format {record['format']!r} is not {_FORMAT}")
        return (
            str(record["agent_id"]),
            str(record["device_id"]),
            Fingerprint(record["serial"], frozenset(record["addresses"]), record["machine_id"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"the identity file {path} is damaged ({error}); delete it and the board gets a new "
            "identity"
        ) from error


def load_phone_identities(
    state_dir: Path,
    agent_id: str,
    serials: Sequence[str],
    mint: Callable[[], str] = _random_word,
) -> dict[str, Identity]:
    """The identities of this agent's phones by serial number, minted where there is none.

    A phone keeps the one that it got first on this agent, as long as its file is there.

    Args:
        state_dir: the agent's own folder; must exist.
        agent_id: the agent.
        serials: the phones' own serial numbers; only hashes of them are kept.
        mint: gives a fresh random word.

    Raises:
        StorageError: the file of identities is damaged or cannot be read or written.
    """
    path = state_dir / _PHONES_FILE
    kept: dict[str, str] = {}
    try:
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["format"] != _FORMAT:
                raise ValueError(f"format {record['format']!r} is not {_FORMAT}")
            kept = {str(key): str(value) for key, value in record["phones"].items()}
    except OSError as error:
        raise StorageError(f"cannot read the phones' file {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"the phones' file {path} is damaged ({error}); delete it and the phones get new "
            "identities"
        ) from error
    wanted = dict(kept)
    for serial in serials:
        if _sha256(serial) not in wanted:
            wanted[_sha256(serial)] = f"device-{mint()}"
    if wanted != kept:
        write_atomically(path, json.dumps({"format": _FORMAT, "phones": wanted}, indent=1))
    return {
        serial: Identity(agent_id, wanted[_sha256(serial)], _sha256(_sha256(serial)))
        for serial in serials
    }


def next_epoch(state_dir: Path, now_ns: int) -> int:
    """The epoch of this start: larger than that of every start before, whatever the clock says.

    Raises:
        StorageError: the epoch cannot be kept.
    """
    path = state_dir / _EPOCH_FILE
    epoch = max(now_ns, (read_int(path) or 0) + 1)
    write_atomically(path, f"{epoch}\n")
    return epoch


@contextmanager
def claim_state_dir(state_dir: Path) -> Iterator[None]:
    """Holds `state_dir` (created if missing) for this process alone.

    Raises:
        ConflictError: another agent runs on it.
        StorageError: it cannot be created or written.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(state_dir / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"cannot use the state folder {state_dir}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(
                f"another agent uses the state folder {state_dir}; stop it or give --state-dir"
            ) from error
        yield
    finally:
        os.close(lock)


def write_atomically(path: Path, text: str) -> None:
    """Writes a file that is either the old one or wholly the new one, also after a power cut.

    Raises:
        StorageError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
