"""Figures of the report as inline SVG in the fonts and the light or dark colours of the page.

Every figure fits a phone. Equal data give equal bytes.
"""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
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
WIDTH = 4.7  # inches of 72 units; a phone shows about as many units
ROW = 0.33  # inches of a row of dots
NUMBERED = 20  # classes at most for counts in the cells of a confusion matrix
NAMED = 30  # classes at most for all of their names beside it
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


def accuracy(metrics: Mapping[str, Mapping[str, Any]]) -> Markup:
    """The accuracy of each network, with its interval where there is one."""
    table = pd.DataFrame([dict(row) for row in metrics.values()], index=list(metrics))
    table = table.reindex(columns=["accuracy", "accuracy_low", "accuracy_high"]).astype(float).dropna(subset="accuracy")
    ends = table.apply(lambda column: column.fillna(table["accuracy"]))

    def paint(axes: Axes) -> None:
        dots(axes, [shortened(name, 32) for name in table.index], ends.to_numpy())
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("accuracy")

    return draw("Accuracy on the test images, with 95 % interval", rows_height(len(table)), paint)


def differences(comparisons: pd.DataFrame, title: str) -> Markup:
    """The difference in accuracy of each pair of networks, with its interval."""
    names = [f"{shortened(a)} - {shortened(b)}" for a, b in zip(comparisons["a"], comparisons["b"], strict=True)]

    def paint(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=1)
        dots(axes, names, comparisons[["difference", "low", "high"]].to_numpy(float))
        axes.set_xlabel("percentage points")

    return draw(title, rows_height(len(names)), paint)


def curves(table: pd.DataFrame, metric: str) -> Markup:
    """`accuracy` or `loss` by epoch: solid for validation, dashed for training."""
    models = list(dict.fromkeys(table["model"]))

    def paint(axes: Axes) -> None:
        for number, name in enumerate(models):
            for split, line in (("training", DASHED), ("validation", "-")):
                rows = table[(table["model"] == name) & (table["split"] == split)]
                label = shortened(name, 24) if split == "validation" else None
                style = {"linestyle": line, "color": _colour(number), "linewidth": _line_width(number, len(models))}
                axes.plot(rows["epoch"], rows[metric], label=label, **style)
        later = table[table["epoch"] > table["epoch"].min()]
        if metric == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            if len(later):  # the first epoch would compress all others at the top
                axes.set_ylim(bottom=float(later[metric].min()) - 0.01)
            axes.set_ylim(top=min(axes.get_ylim()[1], 1.005))
        elif float(table[metric].min()) > 0:
            axes.set_yscale("log")
            label_log(axes.yaxis)
        axes.set(xlabel="epoch", ylabel=metric)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _legend(axes, models)

    return draw(f"{metric.capitalize()} by epoch, training and validation", _curves_height(models), paint)


def reliability(table: pd.DataFrame, model: str) -> Markup:
    """Accuracy by confidence in the bins of one network, with 95 % Wilson intervals.

    The area of a dot grows with the square root of its number of images.
    """
    bins = table[(table["model"] == model) & (table["count"] > 0)]
    counts, accuracies = bins["count"].to_numpy(int), bins["accuracy"].to_numpy(float)
    intervals = [
        binomtest(round(count * accuracy), int(count)).proportion_ci(method="wilson")
        for count, accuracy in zip(counts, accuracies, strict=True)
    ]

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SOFT, linestyle=":", linewidth=1.2)
        low, high = [each.low for each in intervals], [each.high for each in intervals]
        axes.vlines(bins["confidence"], low, high, color=SERIES[0], alpha=0.5)
        axes.scatter(bins["confidence"], accuracies, s=15 + 120 * np.sqrt(counts / counts.sum()), color=SERIES[0])
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="confidence", ylabel="accuracy", aspect="equal")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1))

    return draw(f"Reliability diagram of {model}", WIDTH * 0.9, paint)


def confusion(table: pd.DataFrame, model: str, classes: Sequence[str]) -> Markup:
    """Counts, a row per actual and a column per predicted class; shaded: errors as a share of their row."""
    rows = table[table["model"] == model].pivot(index="actual", columns="predicted", values="count")
    counts = rows.reindex(index=list(classes), columns=list(classes), fill_value=0).fillna(0).to_numpy(float)
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

    return draw(f"Confusion matrix of {model}", WIDTH, paint)


def corruptions(table: pd.DataFrame) -> Markup:
    """Error in percent, a row per corruption and a column per network."""
    names, kinds = list(dict.fromkeys(table["model"])), list(dict.fromkeys(table["corruption"]))
    wide = table.pivot(index="corruption", columns="model", values="error")
    errors = wide.reindex(index=kinds, columns=names).to_numpy(float)
    worst = max(float(np.nanmax(errors)), 1e-12)
    many = len(names) > 3

    def paint(axes: Axes) -> None:
        for row, column in np.argwhere(np.isfinite(errors)):
            _cell(axes, row, column, HEAT, 0.05 + 0.9 * float(errors[row, column]) / worst)
            _number(axes, row, column, f"{100 * errors[row, column]:.1f}", 10)
        _grid_of_cells(axes, [kind.replace("_", " ") for kind in kinds], names, 1)
        axes.xaxis.tick_top()
        axes.tick_params(axis="x", rotation=90 if many else 0, length=0)

    return draw("Error in percent by corruption and network", (1.6 if many else 0.7) + 0.27 * len(kinds), paint)


def shift(table: pd.DataFrame) -> Markup:
    """The share of images with the same prediction under every shift of up to k pixels, by k, with intervals."""
    models = list(dict.fromkeys(table["model"]))

    def paint(axes: Axes) -> None:
        for number, name in enumerate(models):
            rows, marker = table[table["model"] == name], MARKERS[number % len(MARKERS)]
            style = {"color": _colour(number), "marker": marker, "linewidth": _line_width(number, len(models))}
            axes.fill_between(rows["shift"], rows["low"], rows["high"], color=_colour(number), alpha=0.15, linewidth=0)
            axes.plot(rows["shift"], rows["consistency"], label=shortened(name, 24), **style)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("largest shift in pixels")
        _legend(axes, models)

    return draw("Share of images with the same prediction under every shift", _curves_height(models), paint)


def draw(label: str, height: float, paint: Callable[[Axes], None]) -> Markup:
    """One figure as an SVG element; `label` is its text for screen readers, `height` in inches."""
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


def dots(axes: Axes, names: Sequence[str], ends: np.ndarray) -> None:
    """A row per name: a dot and its interval from `ends`, (rows, 3): value, low, high."""
    places = np.arange(len(names))
    axes.hlines(places, ends[:, 1], ends[:, 2], color=SERIES[0], linewidth=2.4, alpha=0.6)
    axes.plot(ends[:, 0], places, "o", color=SERIES[0])
    axes.set_yticks(places, names)
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
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _inline(svg: str, label: str) -> str:
    """An SVG file as an element of a page: without file headers and metadata, in the colours of the page."""
    box = svg.partition('viewBox="')[2].partition('"')[0]
    body = svg[svg.index("<defs") : svg.rindex("</svg>")]  # after the metadata, which hold the time
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', body))
    body = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", body)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub("|".join(VARIABLES), lambda found: f"var(--{VARIABLES[found[0]]})", body)
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{body}</svg>'


def _cell(axes: Axes, row: int, column: int, colour: str, opacity: float) -> None:
    axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=colour, alpha=opacity, linewidth=0))


def _number(axes: Axes, row: int, column: int, text: str, size: float) -> None:
    axes.text(column, row, text, ha="center", va="center", fontsize=size)


def _grid_of_cells(axes: Axes, rows: Sequence[str], columns: Sequence[str], step: int) -> None:
    axes.set_xticks(np.arange(0, len(columns), step), [shortened(name) for name in columns[::step]])
    axes.set_yticks(np.arange(0, len(rows), step), [shortened(name) for name in rows[::step]])
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    axes.grid(visible=False)
    axes.tick_params(length=0, labelcolor=INK)
    axes.spines[:].set_visible(False)


def _legend(axes: Axes, names: Sequence[str]) -> None:
    axes.figure.legend(loc="outside lower center", ncols=_legend_columns(names), fontsize=10, labelcolor=INK)


def _legend_columns(names: Sequence[str]) -> int:
    longest = max(map(len, names))
    return min(len(names), 3 if longest <= 9 else 2 if longest <= 18 else 1)


def _curves_height(names: Sequence[str]) -> float:
    return 3.1 + 0.2 * -(-len(names) // _legend_columns(names))


def _colour(number: int) -> str:
    return SERIES[number % len(SERIES)]


def _line_width(number: int, count: int) -> float:
    """The first lines are the widest: those of networks with equal values show beneath each other."""
    return 1.5 + 0.8 * min(count - 1 - number, 2)
