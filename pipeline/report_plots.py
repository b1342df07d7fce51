"""The plots of the report as SVG within the page: its fonts and, light or dark, its colours.

Every plot is small enough for a telephone. Equal data give equal bytes.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from scipy.stats import binomtest

# Colours that stand for variables of the page's style sheet.
INK, SOFT, LINE, HEAT = "#1c2430", "#5c6675", "#dde2ea", "#f2a154"
SERIES = ("#4477aa", "#cc5566", "#228833", "#aa3377", "#997711", "#117799")
VARIABLES = {INK: "ink", SOFT: "soft", LINE: "line", HEAT: "heat"} | {
    colour: f"series{number}" for number, colour in enumerate(SERIES, start=1)
}
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHED = (0, (2.5, 1.2))
WIDTH = 4.7  # inches of 72 units; a telephone shows about as many units
ROW = 0.33  # inches of a row of dots
NUMBERED = 20  # classes at most for the counts to fit into a confusion matrix
NAMED = 30  # classes at most for every name to fit beside it
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


def accuracy(figures: Mapping[str, Mapping[str, float]]) -> Markup:
    """The accuracy of each network, with its interval where there is one."""
    names = [name for name, row in figures.items() if "accuracy" in row]
    values = np.array([figures[name]["accuracy"] for name in names])
    low, high = (
        np.array([figures[name].get(key, figures[name]["accuracy"]) for name in names])
        for key in ("accuracy_low", "accuracy_high")
    )
    label = "Accuracy on the test images, with 95% interval"
    return _draw(label, _rows_high(names), lambda axes: _dots(axes, names, values, low, high, "accuracy", percent=True))


def differences(comparisons: pd.DataFrame, title: str) -> Markup:
    """The difference of accuracy of each pair of networks, with its interval."""
    names = [f"{_short(a)} - {_short(b)}" for a, b in zip(comparisons["a"], comparisons["b"], strict=True)]
    values, low, high = (comparisons[column].to_numpy(float) for column in ("difference", "low", "high"))

    def paint(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=1)
        _dots(axes, names, values, low, high, "percentage points", percent=False)

    return _draw(title, _rows_high(names), paint)


def curves(table: pd.DataFrame, figure: str) -> Markup:
    """`accuracy` or `loss` by epoch: training dashed, validation drawn through."""

    models = list(dict.fromkeys(table["model"]))

    def paint(axes: Axes) -> None:
        for number, name in enumerate(models):
            for split, line in (("training", DASHED), ("validation", "-")):
                rows = table[(table["model"] == name) & (table["split"] == split)]
                label = _short(name, 24) if split == "validation" else None
                width = _line_width(number, len(models))
                axes.plot(
                    rows["epoch"], rows[figure], linestyle=line, color=_colour(number), linewidth=width, label=label
                )
        later = table[table["epoch"] > table["epoch"].min()]
        if figure == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            if len(later):  # the first epoch would press all others together at the top
                axes.set_ylim(bottom=float(later[figure].min()) - 0.01)
            axes.set_ylim(top=min(axes.get_ylim()[1], 1.005))
        elif float(table[figure].min()) > 0:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="epoch", ylabel=figure)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(axes, models)

    return _draw(f"{figure.capitalize()} by epoch, of training and validation", _curves_high(models), paint)


def reliability(table: pd.DataFrame, model: str) -> Markup:
    """Accuracy against confidence in bins of one network, with 95% Wilson intervals.

    The area of a dot grows with the square root of the number of its images.
    """
    bins = table[(table["model"] == model) & (table["count"] > 0)]

    def paint(axes: Axes) -> None:
        counts, right = bins["count"].to_numpy(float), bins["accuracy"].to_numpy(float)
        low, high = _wilson(right, counts)
        axes.plot([0, 1], [0, 1], color=SOFT, linestyle=":", linewidth=1.2)
        axes.vlines(bins["confidence"], low, high, color=SERIES[0], alpha=0.5)
        axes.scatter(bins["confidence"], right, s=15 + 120 * np.sqrt(counts / counts.sum()), color=SERIES[0])
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="confidence", ylabel="accuracy", aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))

    return _draw(f"Reliability diagram of {model}", WIDTH * 0.9, paint)


def confusion(table: pd.DataFrame, model: str) -> Markup:
    """Counts, a row per actual and a column per predicted class; shaded: mistakes as a share of the largest of them."""
    classes = [str(name) for name in table["actual"]]
    counts = table.drop(columns="actual").to_numpy(float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(shares, 0)
    shade = 0.1 + 0.8 * shares / max(float(shares.max()), 1e-12)
    step = -(-len(classes) // NAMED)

    def paint(axes: Axes) -> None:
        for row, column in np.argwhere(counts > 0):
            diagonal = row == column
            _cell(axes, row, column, LINE if diagonal else HEAT, 0.6 if diagonal else shade[row, column])
            if len(classes) <= NUMBERED:
                _number(axes, row, column, f"{counts[row, column]:.0f}", 10 if len(classes) <= 12 else 7)
        _grid_of_cells(axes, classes, classes, step)
        upright = max(map(len, classes)) <= 2
        axes.tick_params(axis="x", rotation=0 if upright else 90)
        axes.set(xlabel="predicted", ylabel="actual", aspect="equal")

    return _draw(f"Confusion matrix of {model}", WIDTH, paint)


def corruptions(table: pd.DataFrame) -> Markup:
    """Error in percent, a row per corruption and a column per network."""
    names = list(dict.fromkeys(table["model"]))
    wide = table.pivot(index="corruption", columns="model", values="error")
    errors = wide.reindex(index=list(dict.fromkeys(table["corruption"])), columns=names).to_numpy(float)
    worst = max(float(np.nanmax(errors)), 1e-12)
    upright = len(names) > 3
    rows = [str(name).replace("_", " ") for name in dict.fromkeys(table["corruption"])]

    def paint(axes: Axes) -> None:
        for row, column in np.argwhere(np.isfinite(errors)):
            _cell(axes, row, column, HEAT, 0.05 + 0.9 * float(errors[row, column]) / worst)
            _number(axes, row, column, f"{100 * errors[row, column]:.1f}", 10)
        _grid_of_cells(axes, rows, names, 1)
        axes.xaxis.tick_top()
        axes.tick_params(axis="x", rotation=90 if upright else 0, length=0)

    return _draw("Error in percent by corruption and network", (1.6 if upright else 0.7) + 0.27 * len(rows), paint)


def shift(table: pd.DataFrame) -> Markup:
    """The share of images whose answer stays under every shift of up to k pixels, by k, with intervals."""

    models = list(dict.fromkeys(table["model"]))

    def paint(axes: Axes) -> None:
        for number, name in enumerate(models):
            rows = table[table["model"] == name]
            axes.fill_between(rows["shift"], rows["low"], rows["high"], color=_colour(number), alpha=0.15, linewidth=0)
            axes.plot(
                rows["shift"],
                rows["consistency"],
                color=_colour(number),
                marker=MARKERS[number % len(MARKERS)],
                linewidth=_line_width(number, len(models)),
                label=_short(name, 24),
            )
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("shift of up to so many pixels")
        _legend(axes, models)

    return _draw("Share of images whose answer stays under every shift", _curves_high(models), paint)


def _draw(label: str, height: float, paint: Callable[[Axes], None]) -> Markup:
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": label}), warnings.catch_warnings():
        # The browser draws the text in its own fonts; Matplotlib's need not have every character of a class name.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        paint(figure.subplots())
        content = io.StringIO()
        figure.savefig(content, format="svg", transparent=True)
    return Markup(_inline(content.getvalue(), label))


def _inline(svg: str, label: str) -> str:
    """An SVG file as an element of a page: without what only a file needs, with colours of the page."""
    box = svg.partition('viewBox="')[2].partition('"')[0]
    body = svg[svg.index("<defs") : svg.rindex("</svg>")]  # the metadata, with the time, stand before it
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub("|".join(VARIABLES), lambda found: f"var(--{VARIABLES[found[0]]})", body)
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{body}</svg>'


def _dots(
    axes: Axes, names: list[str], values: np.ndarray, low: np.ndarray, high: np.ndarray, label: str, percent: bool
) -> None:
    places = np.arange(len(names))
    axes.hlines(places, low, high, color=SERIES[0], linewidth=2.4, alpha=0.6)
    axes.plot(values, places, "o", color=SERIES[0])
    axes.set_yticks(places, [_short(name, 32) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    if percent:
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(label)


def _cell(axes: Axes, row: int, column: int, colour: str, opacity: float) -> None:
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=opacity, linewidth=0))


def _number(axes: Axes, row: int, column: int, text: str, size: float) -> None:
    axes.text(column, row, text, ha="center", va="center", fontsize=size)


def _grid_of_cells(axes: Axes, rows: list[str], columns: list[str], step: int) -> None:
    axes.set_xticks(np.arange(0, len(columns), step), [_short(name) for name in columns[::step]])
    axes.set_yticks(np.arange(0, len(rows), step), [_short(name) for name in rows[::step]])
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.grid(visible=False)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)


def _legend(axes: Axes, names: Sequence[str]) -> None:
    axes.figure.legend(loc="outside lower center", ncols=_legend_columns(names), fontsize=10, labelcolor=INK)


def _legend_columns(names: Sequence[str]) -> int:
    """As many as fit beside each other."""
    longest = max(map(len, names))
    return min(len(names), 3 if longest <= 9 else 2 if longest <= 18 else 1)


def _curves_high(names: Sequence[str]) -> float:
    return 3.1 + 0.2 * -(-len(names) // _legend_columns(names))


def _colour(number: int) -> str:
    return SERIES[number % len(SERIES)]


def _line_width(number: int, count: int) -> float:
    """The first are the widest: networks with the same figures show beneath each other."""
    return 1.5 + 0.8 * min(count - 1 - number, 2)


def _rows_high(names: Iterable[str]) -> float:
    return 0.7 + ROW * len(list(names))


def _short(name: str, longest: int = LONGEST) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _wilson(shares: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    intervals = [
        binomtest(round(share * count), int(count)).proportion_ci(method="wilson")
        for share, count in zip(shares, counts, strict=True)
    ]
    return np.array([each.low for each in intervals]), np.array([each.high for each in intervals])
