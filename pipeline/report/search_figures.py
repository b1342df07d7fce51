"""Figures of effects and of the search. Their colours are no network's."""

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.report import svg
from pipeline.report.effects import Analysis, Scale
from pipeline.report.search_analysis import EXTRAPOLATED, OBSERVED, SearchAnalysis
from pipeline.report.svg import HEAT, INK, SOFT, shortened


def effects(analysis: Analysis) -> Markup | None:
    """The effect of each change of a value, with its 95 % interval; None where no effect could be estimated."""
    known, scale = analysis.effects.dropna(subset="effect"), analysis.scale
    if known.empty:
        return None
    pairs = zip(known["dimension"], known["change"], strict=True)
    names = [f"{shortened(dimension, 32)}\n{shortened(change, 32)}" for dimension, change in pairs]
    points = not scale.relative and not scale.lower_is_better
    ends = known[["effect", "low", "high"]].to_numpy(float) * (100 if points else 1) + scale.relative

    def paint(axes: Axes) -> None:
        axes.axvline(1 if scale.relative else 0, color=INK, linewidth=1)
        svg.dots(axes, names, ends)
        if scale.relative and ends.max() > 2 * ends.min():
            axes.set_xscale("log")
            svg.label_log(axes.xaxis)
        measure = "ratio to the reference" if scale.relative else "percentage points" if points else "difference"
        axes.set_xlabel(f"{scale.objective}, {measure}")

    height = 1.5 * svg.rows_height(len(known))
    return svg.draw(f"Effects on {scale.objective}, with 95 % intervals", height, paint)


def importance(analysis: Analysis) -> Markup | None:
    """The share of variance of each factor, with its 95 % interval; None where none could be estimated."""
    known, objective = analysis.importance.dropna(subset="share"), analysis.scale.objective
    if known.empty:
        return None

    def paint(axes: Axes) -> None:
        names = [shortened(name, 32) for name in known["dimension"]]
        svg.dots(axes, names, known[["share", "low", "high"]].to_numpy(float))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set(xlim=(-0.03, 1.03), xlabel=f"share of the variance of {objective}")

    height = svg.rows_height(len(known))
    return svg.draw(f"Shares of the variance of {objective}, with 95 % intervals", height, paint)


def progress(search: SearchAnalysis) -> Markup | None:
    """The final value of every trial and the best one so far, by trial; None where no trial was completed."""
    trials, objective = search.trials.sort_values("trial"), search.scale.objective
    observed = trials[trials["basis"] == OBSERVED]
    if observed.empty:
        return None
    best = np.minimum if search.scale.lower_is_better else np.maximum

    def paint(axes: Axes) -> None:
        last = int(trials["trial"].max())
        steps = [*observed["trial"], last], best.accumulate([*observed["final"], observed["final"].iloc[-1]])
        axes.step(*steps, where="post", color=INK, linewidth=2, label="best so far")
        axes.plot(observed["trial"], observed["final"], "o", color=SOFT, label="trial")
        stopped = trials[trials["basis"] == EXTRAPOLATED]
        if len(stopped):
            label = "stopped early, extrapolated"
            axes.plot(stopped["trial"], stopped["final"], "o", color=SOFT, markerfacecolor="none", label=label)
        _objective_axis(axes, search.scale)
        axes.set_xlabel("trial")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize=10, labelcolor=INK)

    return svg.draw(f"Best {objective} so far, by trial", 3.3, paint)


def curves(search: SearchAnalysis) -> Markup | None:
    """The objective of every trial by epoch, a cross where it was stopped or failed; None without any epoch."""
    table, objective = search.curves.sort_values(["trial", "epoch"]), search.scale.objective
    if table.empty:
        return None
    both = search.base == search.best
    marked = {search.best: ("best", INK), search.base: ("base, and best" if both else "base", HEAT)}
    marked = {trial: style for trial, style in marked.items() if trial is not None}
    unfinished = search.trials.loc[search.trials["status"] != "COMPLETED", "trial"].tolist()

    def paint(axes: Axes) -> None:
        for trial in table["trial"].unique().tolist():
            curve = table[table["trial"] == trial]
            axes.plot(curve["epoch"], curve[objective], color=SOFT, linewidth=1, alpha=0.5)
            if trial in unfinished:
                axes.plot(curve["epoch"].iloc[-1:], curve[objective].iloc[-1:], "x", color=INK, zorder=4)
        for trial, (name, colour) in marked.items():
            curve = table[table["trial"] == trial]
            axes.plot(curve["epoch"], curve[objective], color=colour, linewidth=2.4, label=f"{name}: trial {trial}")
        _objective_axis(axes, search.scale)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize=10, labelcolor=INK)

    return svg.draw(f"{objective} of every trial by epoch", 3.3, paint)


def _objective_axis(axes: Axes, scale: Scale) -> None:
    if scale.relative:
        axes.set_yscale("log")
        svg.label_log(axes.yaxis)
    elif not scale.lower_is_better:
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_ylabel(scale.objective)
