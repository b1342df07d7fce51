"""Pictures of a search: effects, importance, learning curves of all trials, and parallel coordinates.

Seven inches wide, to be read on a phone; equal tables give equal bytes. Colours are those of Okabe and Ito, and
cividis, which do not depend on telling red from green.
"""

from math import ceil
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter
from PIL import Image

from pipeline import effects
from pipeline.effects import Factor
from pipeline.evidence import ESTIMATED, MATTERS, OBSERVED, Evidence
from pipeline.space import Choice, Dimension, Range

BLUE, PALE, ORANGE, GREY = "#0072B2", "#B8CCE0", "#D55E00", "#999999"
WIDTH, DPI = 7.0, 120
COLOURS = 128  # of a picture: a quarter of the bytes
INACTIVE = "inactive"
GOLDEN = 0.6180339887
JITTER = 0.05  # of the width, so that lines through the same value can be told apart


def write(evidence: Evidence, folder: Path) -> None:
    """effects.png, importance.png, curves.png, parallel.png."""
    pictures = {
        "effects": effects_plot,
        "importance": importance_plot,
        "curves": curves_plot,
        "parallel": parallel_plot,
    }
    with style.context("default"), mpl.rc_context({"font.size": 10, "figure.dpi": DPI}):
        for name, draw in pictures.items():
            canvas = FigureCanvasAgg(draw(evidence))
            canvas.draw()
            image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
            image.quantize(COLOURS, dither=Image.Dither.NONE).save(folder / f"{name}.png", optimize=True)


def effects_plot(evidence: Evidence) -> Figure:
    """A panel per factor: trials as dots; levels, or the slope of a number, with their intervals."""
    shown = [factor for factor in evidence.factors if factor.changes]
    if not shown:
        return _nothing("No dimension varied.")
    columns = 2
    rows = ceil(len(shown) / columns)
    figure = Figure(figsize=(WIDTH, 0.8 + 2.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    used = evidence.trials[evidence.trials["basis"].isin([OBSERVED, ESTIMATED])]
    for axes, factor in zip(grid.flat, shown, strict=False):
        draw = _slope if factor.numeric else _levels
        draw(axes, factor, evidence, used)
        axes.set_title(factor.name, fontsize=10)
        _scaled(axes, evidence)
    for axes in grid.flat[len(shown) :]:
        axes.axis("off")
    blocks = any("*" in factor.name for factor in shown)
    dots = "one dot per trial and block" if blocks else "one dot per trial"
    figure.suptitle(
        f"{evidence.scale.objective}: {dots}; orange: estimates with 95 % intervals,\n"
        "against the square where values are listed",
        fontsize=10,
    )
    return figure


def _points(factor: Factor, used: pd.DataFrame) -> pd.DataFrame:
    """(at, figure) of every trial and block in which the dimension is active."""
    parts = []
    for member in factor.members:
        column = used[member.name]
        at = effects.levels(member, column) if isinstance(member, Choice) else column.to_numpy(float, na_value=np.nan)
        parts.append(pd.DataFrame({"at": at, "figure": used["figure"].to_numpy(dtype=float)}))
    return pd.concat(parts, ignore_index=True).dropna()


def _levels(axes: Axes, factor: Factor, evidence: Evidence, used: pd.DataFrame) -> None:
    points, scale = _points(factor, used), evidence.scale
    own = evidence.effects[evidence.effects["dimension"] == factor.name].set_index("change")
    names = [factor.reference, *factor.changes]
    for place, name in enumerate(names):
        figures = points.loc[points["at"] == name, "figure"].sort_values().to_numpy()
        spread = (np.arange(len(figures)) * GOLDEN) % 1  # neighbours far apart
        axes.plot(place - 0.25 + 0.25 * spread, figures, "o", color=GREY, alpha=0.6, markersize=3, markeredgewidth=0)
    axes.set_xticks(range(len(names)), [_short(name, 48 // len(names)) for name in names], fontsize=9)
    axes.set_xlim(-0.5, len(names) - 0.5)
    if own["effect"].isna().any():
        return
    ends = scale.back_change(own.loc[list(factor.changes), ["effect", "low", "high"]].to_numpy(dtype=float))
    share = np.array([(points["at"] == name).mean() for name in factor.changes])
    level = scale.forward(used["figure"].to_numpy(dtype=float)).mean() - share @ ends[:, 0]
    axes.plot([0.15], scale.back(np.array([level])), "s", color=BLUE, markersize=5)
    for place, change in enumerate(ends, start=1):
        middle, low, high = scale.back(level + change)
        axes.errorbar(
            place + 0.15, middle, [[middle - low], [high - middle]], fmt="o", color=ORANGE, markersize=5, capsize=3
        )


def _slope(axes: Axes, factor: Factor, evidence: Evidence, used: pd.DataFrame) -> None:
    points, scale, first = _points(factor, used), evidence.scale, factor.members[0]
    assert isinstance(first, Range)
    axes.plot(points["at"], points["figure"], "o", color=GREY, alpha=0.6, markersize=3, markeredgewidth=0)
    if first.log:
        axes.set_xscale("log")
    own = evidence.effects[evidence.effects["dimension"] == factor.name].iloc[0]
    if np.isnan(own["effect"]):
        return
    ends = scale.back_change(own[["effect", "low", "high"]].to_numpy(dtype=float))
    along = np.geomspace if first.log else np.linspace
    values = pd.Series(along(points["at"].min(), points["at"].max(), 50))
    steps = effects.position(first, values) - effects.position(first, points["at"]).mean()
    level = scale.forward(used["figure"].to_numpy(dtype=float)).mean()
    middle, low, high = (scale.back(level + slope * steps) for slope in ends)
    axes.fill_between(values, np.minimum(low, high), np.maximum(low, high), color=ORANGE, alpha=0.2, linewidth=0)
    axes.plot(values, middle, color=ORANGE)


def importance_plot(evidence: Evidence) -> Figure:
    """A bar per factor: its share of the variance, with its interval; full colour where it is shown to matter."""
    known = evidence.importance.dropna(subset="share").iloc[::-1]
    if known.empty:
        return _nothing("The trials do not tell how much any dimension matters.")
    figure = Figure(figsize=(WIDTH, 1.1 + 0.36 * len(known)), layout="constrained")
    axes = figure.subplots()
    colours = [BLUE if verdict == MATTERS else PALE for verdict in known["verdict"]]
    places = np.arange(len(known))
    axes.barh(places, known["share"], color=colours, height=0.6)
    axes.hlines(places, known["low"], known["high"], color="black", linewidth=1.2)
    axes.plot(known["low"], places, "|k", known["high"], places, "|k", markersize=8)
    axes.set_yticks(places, known["dimension"])
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(f"share of the variance of {evidence.scale.objective} between trials, 95 % interval")
    axes.set_title("Dark: shown to matter. Pale: not shown to matter", fontsize=10)
    _open(axes)
    return figure


def curves_plot(evidence: Evidence) -> Figure:
    """The objective by epoch of every trial; a cross where one was stopped or failed."""
    if evidence.curves.empty:
        return _nothing("No epoch of any trial is on record.")
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    axes = figure.subplots()
    status = evidence.trials.set_index("trial")["status"]
    marked = {evidence.best: (BLUE, "best"), evidence.base: (ORANGE, "base")}
    if evidence.best == evidence.base:
        marked = {evidence.best: (BLUE, "base, and best")}
    curves = evidence.curves.sort_values(["trial", "epoch"])
    for trial, curve in curves.groupby("trial"):
        colour, name = marked.get(trial, (GREY, None))  # type: ignore[call-overload]
        line = {"color": colour, "linewidth": 1.0, "alpha": 0.6, "zorder": 1}
        if name:
            line |= {"linewidth": 2.2, "alpha": 1.0, "zorder": 3, "label": f"{name}: trial {trial}"}
        figures = curve[evidence.scale.objective]
        axes.plot(curve["epoch"], figures, **line)
        if status.get(trial) != "COMPLETED":
            axes.plot(curve["epoch"].iloc[-1:], figures.iloc[-1:], "x", color="black", markersize=5, zorder=2)
    others = int((~status.index.isin(list(marked))).sum())
    if others:
        axes.plot([], [], color=GREY, label=f"other trials: {others}")
    if (status != "COMPLETED").any():
        axes.plot([], [], "xk", markersize=5, label="stopped early, or failed")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(evidence.scale.objective)
    _scaled(axes, evidence)
    axes.legend(frameon=False)
    return figure


def parallel_plot(evidence: Evidence) -> Figure:
    """A line per trial through all its values, the best on top; dimensions from above to below, the objective last."""
    trials = evidence.trials[evidence.trials["basis"].isin([OBSERVED, ESTIMATED])]
    trials = trials.sort_values(["figure", "trial"], ascending=[not evidence.scale.lower_is_better, True])
    if trials.empty:
        return _nothing("No trial has a figure.")
    rows = [*evidence.dimensions, None]
    figure = Figure(figsize=(WIDTH, 1.0 + 0.62 * len(rows)), layout="constrained")
    axes = figure.subplots()
    forward = evidence.scale.forward(trials["figure"].to_numpy(dtype=float))
    low, high = forward.min(), forward.max()
    shares = (forward - low) / (high - low) if high > low else np.full(len(trials), 0.5)
    places = np.column_stack([_places(axes, row, dimension, trials) for row, dimension in enumerate(rows[:-1])])
    places += (np.linspace(-JITTER, JITTER, len(trials)) / 2)[:, np.newaxis]
    places = np.column_stack([places, shares])
    colours = mpl.colormaps["cividis"]((1 - shares if evidence.scale.lower_is_better else shares) * 0.92)
    for path, colour, number in zip(places, colours, trials["trial"], strict=True):
        best = number == evidence.best
        axes.plot(path, range(len(rows)), color=ORANGE if best else colour, linewidth=2.4 if best else 1.0, alpha=0.9)
    ends = [evidence.scale.back(np.array(value)) for value in ([low, high] if high > low else [low])]
    for share, end in zip([0.0, 1.0] if high > low else [0.5], ends, strict=True):
        axes.annotate(f"{float(end):.4g}", (share, len(rows) - 1), xytext=(0, -6), **_UNDER)
    axes.hlines(range(len(rows)), 0, 1, color="black", linewidth=0.6)
    axes.set_yticks(
        range(len(rows)), [*(dimension.name for dimension in evidence.dimensions), evidence.scale.objective]
    )
    axes.set_ylim(len(rows) - 0.4, -0.4)
    axes.set_xlim(-0.06, 1.06)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bright = "the brighter, the better" if len(trials) > 1 else "one trial"
    axes.set_title(f"Every trial through its values; {bright}; orange: the best", fontsize=10)
    return figure


_UNDER = {
    "textcoords": "offset points",
    "ha": "center",
    "va": "top",
    "fontsize": 8,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
    "zorder": 5,
}


def _places(axes: Axes, row: int, dimension: Dimension, trials: pd.DataFrame) -> np.ndarray:
    """Where each trial crosses the line of a dimension, from 0 to 1, and the labels under that line."""
    column = trials[dimension.name]
    if isinstance(dimension, Range):
        values = column.to_numpy(dtype=float, na_value=np.nan)
        ends = np.array([dimension.low, dimension.high], dtype=float)
        if dimension.log:
            values, ends = np.log(values), np.log(ends)
        right = 0.86 if np.isnan(values).any() else 1.0
        places = right * (values - ends[0]) / (ends[1] - ends[0])
        labels = {0.0: f"{dimension.low:g}", right: f"{dimension.high:g}"}
    else:
        found = effects.levels(dimension, column)
        names = [effects.label(value) for value in dimension.values]
        spread = 0.86 if pd.isna(found).any() else 1.0
        at = dict(zip(names, np.linspace(0, spread, len(names)) if len(names) > 1 else [spread / 2], strict=True))
        places = np.array([at.get(level, np.nan) for level in found], dtype=float)
        gap = spread / max(len(names) - 1, 1)
        width = max(int(gap * 60), 4)
        every = ceil(len(names) / 16)
        labels = {at[name]: _short(name, width) for name in names[::every]}
    if np.isnan(places).any():
        labels[1.0] = INACTIVE
        places = np.where(np.isnan(places), 1.0, places)
    for place, text in labels.items():
        axes.annotate(text, (place, row), xytext=(0, -3), **_UNDER)
    return places


def _scaled(axes: Axes, evidence: Evidence) -> None:
    if evidence.scale.relative:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        steps = (1, 2, 5) if high / low > 6 else (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
        ticks = [step * 10.0**exponent for exponent in range(-9, 4) for step in steps]
        axes.set_yticks([tick for tick in ticks if low <= tick <= high])
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _open(axes)


def _open(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: max(length - 1, 1)]}…"


def _nothing(reason: str) -> Figure:
    figure = Figure(figsize=(WIDTH, 1.2))
    figure.text(0.5, 0.5, reason, ha="center", va="center", fontsize=11)
    return figure
