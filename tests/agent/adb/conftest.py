"""Debian's own adb with a server of its own, and phones that are made up."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from latlas_agent.adb import Adb

PATIENCE_S = 20.0

HERE = Path(__file__).parent

GETPROP = """\
#!/bin/sh
[ "$1" = ro.serialno ] && { echo SERIAL; exit; }
cat <<END
[ro.product.manufacturer]: [Acme]
[ro.product.model]: [Rocket 3]
[ro.soc.model]: [AC100]
[ro.build.version.release]: [14]
END
"""

DUMPSYS = """\
#!/bin/sh
[ "$1" = thermalservice ] && cat <<END
Thermal Status: 0
Current temperatures from HAL:
\tTemperature{mValue=51.5, mType=0, mName=cpu-0, mStatus=0}
END
[ "$1" = battery ] && printf '  AC powered: false\\n  USB powered: true\\n  temperature: 312\\n'
exit 0
"""

FILES = {
    "proc/stat": "cpu 100 0 100 800 0 0 0 0\ncpu0 50 0 50 400 0 0 0 0\ncpu1 50 0 50 400 0 0 0 0\n",
    "proc/loadavg": "0.50 0.40 0.30 1/100 4242\n",
    "proc/meminfo": "MemTotal: 8000000 kB\nMemFree: 1 kB\nMemAvailable: 4000000 kB\n",
    "sys/devices/system/cpu/present": "0-7\n",
    "sys/class/thermal/thermal_zone0/temp": "40500\n",
    **{
        f"sys/devices/system/cpu/cpu{core}/cpufreq/{name}": text
        for core, mhz in enumerate([1800, 1800, 1800, 1800, 2400, 2400, 2400, 2900])
        for name, text in (
            ("scaling_cur_freq", f"{mhz - 100}000\n"),
            ("scaling_max_freq", f"{mhz}000\n"),
            ("cpuinfo_max_freq", f"{mhz}000\n"),
            ("scaling_governor", "walt\n"),
        )
    },
}


@dataclass
class FakePhone:
    """A made-up phone; `root` holds its files, `home` what Latlas keeps there."""

    root: Path
    serial: str
    process: subprocess.Popen[str]
    adb: Callable[..., str]

    @property
    def home(self) -> Path:
        return self.root / "data/local/tmp/latlas"

    @property
    def calls(self) -> list[str]:
        """The command lines of benchmark_model, those that only try it out left away."""
        path = self.home / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line != "--help"]

    def behave(self, script: str) -> None:
        """What benchmark_model does from now on, before it prints anything."""
        (self.home / "behave").write_text(script)

    def await_file(self, name: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not (self.home / name).exists():
            assert time.monotonic() < deadline, f"{name} did not come to be"
            time.sleep(0.02)

    def unplug(self) -> None:
        self._say("unplug")

    def plug(self) -> None:
        self._say("plug")
        deadline = time.monotonic() + PATIENCE_S
        while "\tdevice" not in self.adb("devices"):
            assert time.monotonic() < deadline, self.adb("devices")
            self.adb("disconnect", self.serial)
            self.adb("connect", self.serial)

    def _say(self, word: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture(scope="module")
def adb_environment(
    tmp_path_factory: pytest.TempPathFactory, require_tool: Callable[[str], str]
) -> Iterator[dict[str, str]]:
    """Environment variables under which adb uses a server of its own, which ends with the tests."""
    adb = require_tool("adb")
    home = tmp_path_factory.mktemp("adb")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "HOME": str(home),
        "ANDROID_USER_HOME": str(home),
        "ANDROID_ADB_SERVER_PORT": str(port),
        "TMPDIR": str(home),
    }
    for name in ("ADB_SERVER_SOCKET", "ANDROID_SERIAL", "ANDROID_SDK_HOME", "ADB_VENDOR_KEYS"):
        environment.pop(name, None)
    yield environment
    subprocess.run(
        [adb, "kill-server"], env=environment, capture_output=True, timeout=20, check=False
    )


@pytest.fixture
def adb(adb_environment: dict[str, str]) -> Adb:
    return Adb.find(adb_environment)


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    """What stands in for `benchmark_model`."""
    path = tmp_path / "benchmark_model"
    shutil.copyfile(HERE / "benchmark_model.sh", path)
    return path


@pytest.fixture
def make_phone(
    tmp_path: Path, adb: Adb, adb_environment: dict[str, str]
) -> Iterator[Callable[..., FakePhone]]:
    """`make_phone(name, *features)`: a phone that is attached."""
    command = shutil.which("adb")
    assert command is not None

    def call(*words: str) -> str:
        done = subprocess.run(
            [command, *words],
            env=adb_environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.stdout + done.stderr

    numbers = itertools.count()
    with ExitStack() as running:
        running.callback(call, "disconnect")

        def make(name: str = "A1", *features: str) -> FakePhone:
            root = tmp_path / f"phone-{next(numbers)}"
            for path, text in FILES.items():
                file = root / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text)
            scripts = {
                "getprop": GETPROP.replace("SERIAL", name),
                "dumpsys": DUMPSYS,
                "settings": "#!/bin/sh\necho 0\n",
                "uname": "#!/bin/sh\n[ $1 = -m ] && echo aarch64 || echo 6.1.0-android\n",
                "taskset": '#!/bin/sh\necho "$1" >>masks\nshift\nexec "$@"\n',
            }
            for script, text in scripts.items():
                file = root / "bin" / script
                file.parent.mkdir(exist_ok=True)
                file.write_text(text)
                file.chmod(0o755)
            home = root / "data/local/tmp/latlas"
            home.mkdir(parents=True)
            shutil.copyfile(HERE / "profile.txt", home / "profile")
            process = subprocess.Popen(
                [sys.executable, str(HERE / "fake_adbd.py"), root, *features],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            running.callback(process.wait, PATIENCE_S)
            running.enter_context(process)
            running.callback(process.kill)
            assert process.stdout is not None
            serial = f"127.0.0.1:{process.stdout.readline().strip()}"
            phone = FakePhone(root, serial, process, call)
            assert "connected to" in call("connect", serial)
            deadline = time.monotonic() + PATIENCE_S
            while f"{serial}\tdevice" not in call("devices"):
                assert time.monotonic() < deadline, call("devices")
            return phone

        yield make


@pytest.fixture
def phone(make_phone: Callable[..., FakePhone]) -> FakePhone:
    return make_phone("A1", "shell_v2", "cmd")
