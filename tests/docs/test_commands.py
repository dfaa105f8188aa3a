"""Every command that the documentation tells the reader to type is one that exists."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from latlas.cli.main import build_parser
from latlas_agent.cli import build_parser as build_agent_parser

PARSERS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "latlas": build_parser,
    "latlas-agent": build_agent_parser,
}


def program(words: list[str]) -> tuple[str, list[str]]:
    """The name of the program that a command runs, and its arguments."""
    while words[0] in ("sudo", "time", "exec") or re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return PurePosixPath(words[0]).name, words[1:]


def test_a_command_is_one_that_the_program_takes(shell_command, repository: Path) -> None:
    name, arguments = program(shlex.split(shell_command.text))
    if name in PARSERS:
        if arguments == ["--version"]:
            return
        PARSERS[name]().parse_args(arguments)
    elif name == "make":
        makefile = (repository / "Makefile").read_text(encoding="utf-8")
        targets = [word for word in arguments if "=" not in word]
        assert [t for t in targets if not re.search(rf"^{t}:", makefile, re.M)] == []
    elif re.fullmatch(r"python(3(\.\d+)?)?", name) and arguments[0] != "-m":
        assert (repository / arguments[0]).is_file()


def test_a_command_in_running_text_exists_with_its_options(inline_command) -> None:
    name, arguments = program(shlex.split(inline_command.text))
    parser = PARSERS[name]()
    for word in arguments:
        children = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if children:
            (group,) = children
            assert word in group.choices
            parser = group.choices[word]
        elif word.startswith("--"):
            assert word in parser._option_string_actions


@pytest.mark.parametrize("name", PARSERS)
def test_every_command_explains_every_argument(name: str) -> None:
    pending, silent = [PARSERS[name]()], []
    while pending:
        parser = pending.pop()
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                pending += action.choices.values()
            elif not action.help:
                silent.append(f"{parser.prog}: {action.dest}")
    assert silent == []
