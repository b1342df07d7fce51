"""Figures of the search: effects and shares of variance with their intervals, learning curves of the trials."""

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.report import figures
from pipeline.report.figures import INK, SERIES, SOFT, shortened
from pipeline.report.search_analysis import SearchAnalysis


def effects(search: SearchAnalysis) -> Markup | None:
    """The effect of each change of a value, with its 95 % interval; None where no effect could be estimated."""
    known, relative = search.effects.dropna(subset="effect"), search.scale.relative
    if known.empty:
        return None
    pairs = zip(known["dimension"], known["change"], strict=True)
    names = [f"{shortened(dimension, 32)}\n{shortened(change, 32)}" for dimension, change in pairs]
    ends = known[["effect", "low", "high"]].to_numpy(float) + relative

    def paint(axes: Axes) -> None:
        axes.axvline(1 if relative else 0, color=INK, linewidth=1)
        figures.dots(axes, names, ends)
        if relative and ends.max() > 2 * ends.min():
            axes.set_xscale("log")
            figures.label_log(axes.xaxis)
        axes.set_xlabel(f"{search.scale.objective}: {'ratio' if relative else 'difference'} to the reference")

    height = 1.5 * figures.rows_height(len(known))
    return figures.draw("Effects of the searched values, with 95 % intervals", height, paint)


def importance(search: SearchAnalysis) -> Markup | None:
    """The share of variance of each dimension, with its 95 % interval; None where none could be estimated."""
    known = search.importance.dropna(subset="share")
    if known.empty:
        return None

    def paint(axes: Axes) -> None:
        names = [shortened(name, 32) for name in known["dimension"]]
        figures.dots(axes, names, known[["share", "low", "high"]].to_numpy(float))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set(xlim=(-0.03, 1.03), xlabel=f"share of the variance of {search.scale.objective}")

    height = figures.rows_height(len(known))
    return figures.draw("Share of variance by dimension, with 95 % intervals", height, paint)


def curves(search: SearchAnalysis) -> Markup | None:
    """The objective of every trial by epoch, a cross where it was stopped or failed; None without any epoch."""
    table, objective = search.curves.sort_values(["trial", "epoch"]), search.scale.objective
    if table.empty:
        return None
    both = search.base == search.best
    marked = {search.best: "best", search.base: "base, and best" if both else "base"}
    marked = {trial: name for trial, name in marked.items() if trial is not None}
    unfinished = search.trials.loc[search.trials["status"] != "COMPLETED", "trial"].tolist()

    def paint(axes: Axes) -> None:
        for trial in table["trial"].unique().tolist():
            curve = table[table["trial"] == trial]
            axes.plot(curve["epoch"], curve[objective], color=SOFT, linewidth=1, alpha=0.5)
            if trial in unfinished:
                axes.plot(curve["epoch"].iloc[-1:], curve[objective].iloc[-1:], "x", color=INK, zorder=4)
        for colour, (trial, name) in zip(SERIES, marked.items(), strict=False):
            curve = table[table["trial"] == trial]
            axes.plot(curve["epoch"], curve[objective], color=colour, linewidth=2.4, label=f"{name}: trial {trial}")
        if search.scale.relative:
            axes.set_yscale("log")
            figures.label_log(axes.yaxis)
        axes.set(xlabel="epoch", ylabel=objective)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.figure.legend(loc="outside lower center", ncols=2, fontsize=10, labelcolor=INK)

    return figures.draw(f"{objective} of every trial by epoch", 3.3, paint)
