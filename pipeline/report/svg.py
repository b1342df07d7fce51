"""Matplotlib figures as inline SVG in the fonts and the light or dark colours of the page.

Every figure fits a phone. Equal data give equal bytes.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

# Colours that stand for variables of the page's style sheet.
INK, SOFT, LINE, HEAT = "#1c2430", "#5c6675", "#dde2ea", "#f2a154"
SERIES = ("#3f6fa3", "#c44455", "#1f7d2f", "#aa3377", "#8a6a00", "#117799", "#b85300", "#6a5acd")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", HEAT: "heat"} | {
    colour: f"series{number}" for number, colour in enumerate(SERIES, start=1)
}
TOP = 5  # networks in colours of their own where there are more networks than colours
WIDTH = 4.7  # inches of 72 units; a phone shows about as many units
ROW = 0.33  # inches of a row of dots
LONGEST = 14  # characters of a name on an axis
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 11,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": LINE,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "lines.markersize": 5,
}


@dataclass(frozen=True)
class Look:
    """The colour and marker of a network in every figure. Those that share the look of others are not `distinct`."""

    colour: str
    marker: str
    width: float
    distinct: bool = True


OTHER = Look(SOFT, ".", 0.8, distinct=False)


def looks(names: Sequence[str]) -> dict[str, Look]:
    """Network -> its look, in the order given; beyond the number of colours, only the first few have their own."""
    own = names if len(names) <= len(SERIES) else names[:TOP]
    # The first lines are the widest: those of networks with equal values show beneath each other.
    widths = [1.3 + 0.6 * min(len(own) - 1 - number, 2) for number in range(len(own))]
    styles = zip(own, SERIES, MARKERS, widths, strict=False)
    known = {name: Look(colour, marker, width) for name, colour, marker, width in styles}
    return {name: known.get(name, OTHER) for name in names}


def draw(label: str, height: float, paint: Callable[[Axes], None]) -> Markup:
    """One figure as an SVG element; `label` is its text for screen readers, `height` in inches.

    An artist with the gid `of:NAME` shows the name when pointed at.
    """
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Equal bytes: settings of the user and the order of earlier figures have no effect.
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**STYLE, "svg.hashsalt": label})
        # The browser draws the text in its own fonts; Matplotlib's may lack characters of class names.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure.subplots())
        content = io.StringIO()
        figure.savefig(content, format="svg", transparent=True)
    return Markup(_inline(content.getvalue(), label))


def dots(axes: Axes, names: Sequence[str], ends: np.ndarray, looks: Sequence[Look] = ()) -> None:
    """A row per name: a dot and its interval from `ends`, (rows, 3): value, low, high; in INK without looks."""
    for row, (value, low, high) in enumerate(ends):
        colour, marker = (looks[row].colour, looks[row].marker) if looks else (INK, "o")
        axes.hlines(row, low, high, color=colour, linewidth=2.4, alpha=0.6)
        axes.plot(value, row, marker, color=colour)
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))


def rows_height(rows: int) -> float:
    """Inches of a figure of dots."""
    return 0.7 + ROW * rows


def label_log(axis: Axis) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5 and their multiples by powers of 10, as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def shortened(name: str, longest: int = LONGEST) -> str:
    """A name cut in its middle: names of a grid differ at their ends."""
    head = (longest - 1) // 2
    return name if len(name) <= longest else f"{name[:head]}…{name[head + 1 - longest :]}"


def _inline(svg: str, label: str) -> str:
    """An SVG file as an element of a page: without file headers and metadata, in the colours of the page."""
    box = svg.partition('viewBox="')[2].partition('"')[0]
    body = svg[svg.index("<defs") : svg.rindex("</svg>")]  # after the metadata, which hold the time
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', body))
    body = re.sub(r'<g id="of:([^"]+)">', r"<g><title>\1</title>", body)
    body = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub("|".join(VARIABLES), lambda found: f"var(--{VARIABLES[found[0]]})", body)
    body = re.sub(r"\n\s*", "\n", body)
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{body}</svg>'
