"""The user documentation, taken apart: pages, code blocks, command lines, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
COMMAND_LINES = ("latlas", "latlas-agent")

_FENCED = re.compile(r"^```(?P<language>\S*)\n(?P<text>.*?)^```$", re.M | re.S)
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_DOTTED = re.compile(r"(latlas(?:_\w+)?(?:\.\w+)+)(?:\(.*\))?")
_LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_END_OF_COMMAND = re.compile(r"[;&|]+|\n")
_REDIRECTION = re.compile(r"[<>]+")


@dataclass(frozen=True)
class Block:
    """A fenced block of code: the page it stands on, its first line there, and its text."""

    page: str
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Snippet:
    """A piece of a page, such as one command or one link, and where it stands."""

    page: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line} {self.text}"


def blocks(path: Path) -> list[Block]:
    page, text = name_of(path), path.read_text(encoding="utf-8")
    return [
        Block(page, text[: found.start("text")].count("\n") + 1, found["language"], found["text"])
        for found in _FENCED.finditer(text)
    ]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(path: Path) -> str:
    """The page without its fenced blocks; lines keep their numbers."""
    return _FENCED.sub(lambda found: "\n" * found[0].count("\n"), path.read_text(encoding="utf-8"))


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of a shell script, without redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
        lexer.whitespace_split = True
        words: list[str] = []
        skip = False
        for word in lexer:
            if _END_OF_COMMAND.fullmatch(word):
                if words:
                    yield words
                words = []
            elif _REDIRECTION.fullmatch(word):
                skip = True
            elif skip:
                skip = False
            else:
                words.append(word)
        if words:
            yield words


def shell_commands() -> Iterator[Snippet]:
    for path in PAGES:
        for block in blocks(path):
            if block.language == "sh":
                script = block.text
            elif block.language == "ini":  # a systemd unit
                script = "\n".join(re.findall(r"^Exec\w+=(.*)$", block.text, re.M))
            else:
                continue
            for words in commands(script):
                yield Snippet(block.page, block.line, shlex.join(words))


def inline_commands() -> Iterator[Snippet]:
    """Mentions of a command in running text, for example `latlas table show`."""
    for path in PAGES:
        text = prose(path)
        for found in _INLINE.finditer(text):
            words = " ".join(found[1].split())
            if words.split()[0] in COMMAND_LINES:
                yield Snippet(name_of(path), text[: found.start()].count("\n") + 1, words)


def dotted_names() -> Iterator[Snippet]:
    """Mentions of something in a package, for example `latlas_ops.errors` or `latlas.connect()`."""
    for path in PAGES:
        text = prose(path)
        for found in _INLINE.finditer(text):
            if name := _DOTTED.fullmatch(found[1]):
                line = text[: found.start()].count("\n") + 1
                yield Snippet(name_of(path), line, name[1])


def links() -> Iterator[Snippet]:
    for path in PAGES:
        text = prose(path)
        for found in _LINK.finditer(text):
            line = text[: found.start()].count("\n") + 1
            yield Snippet(name_of(path), line, found["target"])


def pages_with_python() -> list[str]:
    return [
        name_of(path) for path in PAGES if any(block.language == "python" for block in blocks(path))
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per command, mention, link or page with Python in it."""
    for argument, values in (
        ("shell_command", shell_commands),
        ("inline_command", inline_commands),
        ("dotted_name", dotted_names),
        ("link", links),
        ("page_with_python", pages_with_python),
    ):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, list(values()), ids=str)


@pytest.fixture
def python_blocks(page_with_python: str) -> list[Block]:
    return [block for block in blocks(ROOT / page_with_python) if block.language == "python"]


@pytest.fixture
def page_steps(page_with_python: str) -> list[tuple[str, int, str]]:
    """Commands and blocks of Python of a page in order, each as (language, line, text)."""
    steps = []
    for block in blocks(ROOT / page_with_python):
        if block.language == "python":
            steps.append(("python", block.line + 1, block.text))
        elif block.language == "sh":
            steps += [("sh", block.line, shlex.join(words)) for words in commands(block.text)]
    return steps
