from __future__ import annotations

from pathlib import Path

import pytest

from latlas_agent.cli import main, parse_address, parse_cores
from latlas_ops.errors import InvalidInputError


@pytest.mark.parametrize("text", ["lab:7443", "127.0.0.1:1", "[::1]:65535", "a-b.c_d.org:80"])
def test_an_address_is_a_host_and_a_port(text: str) -> None:
    assert parse_address(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lab",
        "lab:",
        ":7443",
        "lab:port",
        "lab:0",
        "lab:65536",
        "http://lab:7443",
        "a b:1",
        "::1:7",
    ],
)
def test_anything_else_is_not_an_address(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not an address"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "cores"), [("1", (1,)), ("0,2-4", (0, 2, 3, 4)), ("3, 1,1", (1, 3))]
)
def test_cores_are_numbers_and_ranges(text: str, cores: tuple[int, ...]) -> None:
    assert parse_cores(text) == cores


@pytest.mark.parametrize("text", ["", "x", "1,", "3-1", "-1", "1-", "0-9999999"])
def test_anything_else_is_not_a_list_of_cores(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is no list of cores"):
        parse_cores(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--coordinator", "lab"], "'lab' is not an address; expected HOST:PORT"),
        (["--coordinator", "lab:7443", "--cores", "x"], "'x' is no list of cores"),
        (["--coordinator", "lab:7443", "--cores", "4000"], "core 4000 cannot be used here"),
        (["--coordinator", "lab:7443", "--delegate", "/no/such.so"], "/no/such.so is no file"),
        (
            ["--coordinator", "lab:7443", "--delegate", "/opt/a:b.so"],
            "delegate /opt/a:b.so has a ':' in its path, which separates delegates",
        ),
        (["--coordinator", "lab:7443", "--adb", "--cores", "0"], "--cores is about this machine"),
        (
            ["--coordinator", "lab:7443", "--adb", "--delegate", "/opt/a.so"],
            "--delegate is about this machine",
        ),
        (
            ["--coordinator", "lab:7443", "--benchmark-model", "tool"],
            "--benchmark-model is for phones: give --adb",
        ),
        (["--coordinator", "lab:7443", "--max-wait", "-1"], "--max-wait must not be negative"),
        (["--coordinator", "lab:7443", "--max-wait", "nan"], "--max-wait must not be negative"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    state = tmp_path / "state"
    assert main(["run", "--state-dir", str(state), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("latlas-agent: ")
    assert message in line
    assert not state.exists()


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run"], ["run", "--max-wait", "soon"]])
def test_a_malformed_command_line_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
