"""A phone that is none: the part of adbd that `adb shell` and `adb push` need, over loopback.

    python fake_adbd.py FOLDER [FEATURE ...]

Prints its port. Commands run in this machine's shell, with FOLDER in place of the phone's root (for
`/data`, `/proc` and `/sys`) and FOLDER/bin before everything else on the PATH. Obeys lines on
standard input: `unplug` breaks the connection and refuses others, `plug` lets them in again.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

HEADER = struct.Struct("<6I")
CNXN, OPEN, OKAY, CLSE, WRTE = (
    int.from_bytes(name, "little") for name in (b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
VERSION, MAX_DATA = 0x01000001, 1 << 18
STDOUT, STDERR, EXIT = 1, 2, 3
PHONE_ROOTS = ("/data/", "/proc/", "/sys/")


class Stream:
    """One service that the other side has opened."""

    def __init__(self, phone: Connection, local: int, remote: int) -> None:
        self.phone, self.local, self.remote = phone, local, remote
        self.received = b""
        self.arrived = threading.Condition()
        self.closed = False
        self.acknowledged = threading.Semaphore(0)

    def write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_DATA):
            self.phone.send(WRTE, self.local, self.remote, data[start : start + MAX_DATA])
            self.acknowledged.acquire()
            if self.closed:
                raise ConnectionError

    def read(self, n_bytes: int) -> bytes:
        with self.arrived:
            self.arrived.wait_for(lambda: len(self.received) >= n_bytes or self.closed)
            if len(self.received) < n_bytes:
                raise ConnectionError
            data, self.received = self.received[:n_bytes], self.received[n_bytes:]
        return data

    def close(self) -> None:
        self.phone.send(CLSE, self.local, self.remote)


class Connection:
    """One connection of an adb server."""

    def __init__(self, connection: socket.socket, root: Path, features: str) -> None:
        self.socket, self.root, self.features = connection, root, features
        self.streams: dict[int, Stream] = {}
        self.sending = threading.Lock()
        self.children: set[subprocess.Popen[bytes]] = set()

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        checksum = sum(data) & 0xFFFFFFFF
        header = HEADER.pack(command, first, second, len(data), checksum, command ^ 0xFFFFFFFF)
        with self.sending:
            self.socket.sendall(header + data)

    def receive(self, n_bytes: int) -> bytes:
        data = b""
        while len(data) < n_bytes:
            piece = self.socket.recv(n_bytes - len(data))
            if not piece:
                raise ConnectionError
            data += piece
        return data

    def serve(self) -> None:
        try:
            while True:
                command, first, second, length, _, _ = HEADER.unpack(self.receive(HEADER.size))
                self.obey(command, first, second, self.receive(length))
        except OSError:
            self.end()

    def obey(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == CNXN:
            banner = f"device::ro.product.model=Fake;features={self.features}"
            self.send(CNXN, VERSION, MAX_DATA, banner.encode())
        elif command == OPEN:
            stream = Stream(self, len(self.streams) + 1, first)
            self.streams[stream.local] = stream
            service = data.rstrip(b"\0").decode()
            threading.Thread(target=self.run, args=(stream, service), daemon=True).start()
        elif command == OKAY and second in self.streams:
            self.streams[second].acknowledged.release()
        elif command == WRTE and second in self.streams:
            stream = self.streams[second]
            with stream.arrived:
                stream.received += data
                stream.arrived.notify()
            self.send(OKAY, second, first)
        elif command == CLSE and second in self.streams:
            self.forget(self.streams[second])

    def forget(self, stream: Stream) -> None:
        with stream.arrived:
            stream.closed = True
            stream.arrived.notify()
        stream.acknowledged.release()

    def end(self) -> None:
        for stream in list(self.streams.values()):
            self.forget(stream)
        for child in list(self.children):
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def run(self, stream: Stream, service: str) -> None:
        name, _, argument = service.partition(":")
        with suppress(OSError):
            options = name.split(",")
            if options[0] not in ("sync", "shell"):
                self.send(CLSE, 0, stream.remote)
                return
            self.send(OKAY, stream.local, stream.remote)
            if name == "sync":
                self.sync(stream)
            else:
                self.shell(stream, argument, packets="v2" in options)
            stream.close()

    def shell(self, stream: Stream, command: str, *, packets: bool) -> None:
        for part in PHONE_ROOTS:
            command = command.replace(part, f"{self.root}{part}")
        child = subprocess.Popen(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if packets else subprocess.STDOUT,
            env={"PATH": f"{self.root}/bin:{os.environ['PATH']}"},
            cwd=self.root,
            start_new_session=True,
        )
        self.children.add(child)
        output, errors = child.communicate()
        self.children.discard(child)
        for kind, printed in ((STDOUT, output), (STDERR, errors or b"")):
            data = printed.replace(str(self.root).encode(), b"")
            if data:
                stream.write(struct.pack("<BI", kind, len(data)) + data if packets else data)
        if packets:
            stream.write(struct.pack("<BIB", EXIT, 1, child.returncode & 0xFF))

    def sync(self, stream: Stream) -> None:
        while True:
            kind, length = struct.unpack("<4sI", stream.read(8))
            if kind == b"QUIT":
                return
            path, _, mode = stream.read(length).decode().partition(",")
            file = self.root / path.lstrip("/")
            if kind == b"STAT":
                found = file.stat() if file.exists() else None
                answer = (found.st_mode, found.st_size, int(found.st_mtime)) if found else (0, 0, 0)
                stream.write(struct.pack("<4s3I", b"STAT", *answer))
            elif kind == b"SEND":
                self.take(stream, file, int(mode))

    def take(self, stream: Stream, file: Path, mode: int) -> None:
        data = b""
        while True:
            kind, length = struct.unpack("<4sI", stream.read(8))
            if kind == b"DONE":
                break
            data += stream.read(length)
        if (self.root / "full").exists():
            reason = b"No space left on device"
            stream.write(struct.pack("<4sI", b"FAIL", len(reason)) + reason)
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(mode & 0o777)
        stream.write(struct.pack("<4sI", b"OKAY", 0))


def say(word: object) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main(folder: str, *features: str) -> None:
    connections: list[Connection] = []
    plugged = threading.Event()
    plugged.set()
    with socket.create_server(("127.0.0.1", 0)) as server:
        say(server.getsockname()[1])

        def accept() -> None:
            while True:
                accepted, _ = server.accept()
                if not plugged.is_set():
                    accepted.close()
                    continue
                connection = Connection(accepted, Path(folder), ",".join(features))
                connections.append(connection)
                threading.Thread(target=connection.serve, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        for line in sys.stdin:
            if line.strip() == "unplug":
                plugged.clear()
                for connection in connections:
                    connection.end()
                connections.clear()
            else:
                plugged.set()
            say("done")
    for connection in connections:
        connection.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
