"""Small pieces of HTML that the report page is made of."""

from __future__ import annotations

import html

from latlas.report.figures import MODEL_NAMES


def escape(value: str) -> str:
    """Text as HTML, safe inside elements and quoted attributes."""
    return html.escape(value)


def figure_with_title(title: str, drawn: str) -> str:
    """A plot under its title; both are HTML already."""
    return f"<figure><h3>{title}</h3>{drawn}</figure>"


def swatch(kind: str) -> str:
    """The shape and colour that a latency model has in the plots."""
    known = kind if kind in MODEL_NAMES else "accent"
    return f'<span class="swatch {known}" style="color: var(--{known})"></span>'


def mark(good: bool, words: str) -> str:
    """A tick or a cross before some words, so that colour is not all that tells them apart."""
    return f'<span class="mark {"yes" if good else "no"}">{"✓" if good else "✗"} {words}</span>'


def signed(value: float, decimals: int) -> str:
    """A number with its sign, a true minus included."""
    return f"{value:+.{decimals}f}".replace("-", "−")


def count(number: int, noun: str) -> str:
    """`1 check`, `2 checks`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
