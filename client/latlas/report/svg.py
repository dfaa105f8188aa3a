"""Draws with matplotlib and returns inline SVG that follows the page's colours and fonts.

A figure is drawn in stand-in colours, one per name in `COLOURS`; in the SVG they become the
page's CSS variables (`--table`, `--ink`, …), so that one drawing serves light and dark mode.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

NAMES = (
    "ink",
    "muted",
    "grid",
    "paper",
    "cloud",
    "table",
    "mlp",
    "linear",
    "macs",
    "accent",
    "kind-stem",
    "kind-mbconv",
    "kind-head",
    "kind-other",
    "kind-overhead",
)
COLOURS = {name: f"#0a0b{index:02x}" for index, name in enumerate(NAMES, start=1)}
"""The stand-in for each colour of the page."""

_POINTS_PER_INCH = 72
_HASH_SALT = "latlas-report"
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_STYLE: dict[Any, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": _HASH_SALT,
    "path.simplify": False,
    "text.parse_math": False,
    "font.size": 10.0,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.titlecolor": COLOURS["ink"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.edgecolor": COLOURS["muted"],
    "axes.facecolor": "none",
    "axes.formatter.useoffset": False,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.8,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["muted"],
    "ytick.color": COLOURS["muted"],
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.4,
}


def render(
    draw: Callable[[Figure], None], *, width: int, height: int, name: str, description: str
) -> str:
    """The `<svg>` element of a drawing; the same drawing gives the same bytes.

    Args:
        draw: draws on an empty figure, in the colours of `COLOURS`.
        width: natural width in CSS pixels; text of size 10 is then 10 pixels high.
        height: natural height in CSS pixels.
        name: prefix of every id inside; unique on the page.
        description: what a screen reader says.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(_defaults() | _STYLE):
        figure = Figure(
            figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH), layout="constrained"
        )
        FigureCanvasSVG(figure)
        draw(figure)
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    return _inline(buffer.getvalue(), width, height, name, description)


def _defaults() -> dict[Any, object]:
    """Matplotlib's defaults, so that a user's own settings do not change the page."""
    return {name: value for name, value in matplotlib.rcParamsDefault.items() if name != "backend"}


def _inline(svg: str, width: int, height: int, name: str, description: str) -> str:
    """Matplotlib's SVG file as an element of an HTML page."""
    body = svg[svg.index("<g ") : svg.rindex("</svg>")]
    body = re.sub(r"\bid=\"", f'id="{name}-', body)
    body = body.replace("url(#", f"url(#{name}-")
    body = body.replace('xlink:href="#', f'href="#{name}-')
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub(r"\b(?:d|x|y|transform)=\"[^\"]*\"", _shorten, body)
    body = re.sub(r"\s*\n\s*", " ", body)
    for colour, stand_in in COLOURS.items():
        body = body.replace(stand_in, f"var(--{colour})")
    return (
        f'<svg class="plot" role="img" aria-label="{html.escape(description)}" '
        f'viewBox="0 0 {width} {height}" style="max-width: {round(1.25 * width)}px">'
        f"{body}</svg>\n"
    )


def _shorten(attribute: re.Match[str]) -> str:
    """Coordinates with two decimals: a hundredth of a pixel."""
    return re.sub(r"(?<=\d\.\d\d)\d+", "", attribute[0])
