"""Writes `cli.md`, the reference of both command lines, from their parsers.

    python docs/generate_cli.py

A test compares the file with what this script would write.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

_SHARED = ("coordinator", "json")

REFERENCE = Path(__file__).with_name("cli.md")

_INTRODUCTION = """\
# Command reference

<!-- Written by docs/generate_cli.py from the parsers; change them and run it again. -->

Every command prints this text too, with `--help`. What all commands have in common:

- Errors are one line on the standard error stream, and the exit code is 2. An interrupt by
  Ctrl-C gives 130.
- `--json` prints the same content for programs; names end in their unit.
- Commands that talk to a coordinator look for it at `--coordinator`, then at the environment
  variable `LATLAS_COORDINATOR`, then at `127.0.0.1:7443`.
- Durations carry a unit: `30ms`, `1.5s`, `2min`.
"""


def reference(parsers: Sequence[argparse.ArgumentParser]) -> str:
    """The reference of several command lines, as Markdown."""
    commands = [command for parser in parsers for command in leaves(parser, "")]
    contents = "\n".join(
        f"- [`{parser.prog}`](#{anchor(parser.prog)}): {summary}" for parser, summary in commands
    )
    sections = "\n".join(section(parser, summary) for parser, summary in commands)
    return f"{_INTRODUCTION}\n{contents}\n\n{sections}"


def leaves(
    parser: argparse.ArgumentParser, summary: str
) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """Every command that can be run, with its one-line summary, in the order of the help."""
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not groups:
        yield parser, summary
    for group in groups:
        summaries = {choice.dest: choice.help or "" for choice in group._choices_actions}
        for name, child in group.choices.items():
            yield from leaves(child, summaries.get(name, ""))


def anchor(heading: str) -> str:
    """The anchor that Markdown viewers give a heading."""
    return heading.lower().replace(" ", "-")


def section(parser: argparse.ArgumentParser, summary: str) -> str:
    """One command: what it does, how it is written, and its arguments."""
    rows = [f"| `{shown(action)}` | {meaning(parser, action)} |" for action in arguments(parser)]
    table = ["| argument | meaning |", "| --- | --- |", *rows, ""] if rows else []
    return "\n".join(
        [
            f"## {parser.prog}",
            "",
            sentence(summary or parser.description or ""),
            "",
            "```text",
            usage(parser),
            "```",
            "",
            *table,
        ]
    )


def arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """What may follow the command, `--help` aside; what all commands share comes last."""

    def rank(action: argparse.Action) -> int:
        if not action.option_strings or action.required:
            return 0 if not action.option_strings else 1
        return 3 if action.dest in _SHARED else 2

    found = [a for a in parser._actions if not isinstance(a, argparse._HelpAction)]
    return sorted(found, key=rank)


def usage(parser: argparse.ArgumentParser) -> str:
    """One line: positional and required arguments in full, the others as `[options]`."""
    words = [parser.prog]
    optional = False
    alternatives = {
        id(action): group
        for group in parser._mutually_exclusive_groups
        for action in group._group_actions
        if group.required
    }
    for action in arguments(parser):
        group = alternatives.get(id(action))
        if group is not None:
            if action is group._group_actions[0]:
                words.append("(" + " | ".join(map(shown, group._group_actions)) + ")")
        elif action.required or not action.option_strings:
            words.append(shown(action))
        else:
            optional = True
    return " ".join([*words, "[options]"] if optional else words)


def shown(action: argparse.Action) -> str:
    """An argument as one writes it, for example `--rounds N`."""
    value = ""
    if action.nargs != 0:
        value = str(action.metavar or action.dest.upper())
        if action.choices is not None and action.metavar is None:
            value = "{" + ",".join(map(str, action.choices)) + "}"
        if action.nargs in ("+", "*"):
            value += " ..."
    return " ".join(part for part in (", ".join(action.option_strings), value) if part)


def meaning(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """What an argument is for, with its default where the help text does not tell it."""
    parts = [(action.help or "") % {**vars(action), "prog": parser.prog}]
    if action.required and action.option_strings:
        parts.append("required")
    default = action.default
    if default not in (None, False, "", (), argparse.SUPPRESS) and "default" not in parts[0]:
        parts.append(f"default: {default}")
    text = "; ".join(part for part in parts if part)
    return text.replace("|", "\\|")


def sentence(text: str) -> str:
    """`text` with a capital letter and a full stop."""
    return text[:1].upper() + text[1:].rstrip(".") + "."


def parsers() -> list[argparse.ArgumentParser]:
    """The parsers of `latlas` and `latlas-agent`."""
    from latlas.cli.main import build_parser
    from latlas_agent.cli import build_parser as build_agent_parser

    return [build_parser(), build_agent_parser()]


if __name__ == "__main__":
    REFERENCE.write_text(reference(parsers()), encoding="utf-8")
