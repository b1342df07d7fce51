"""Figures of the networks. A colour and marker mean the same network in all of them; dashed lines are training."""

from collections.abc import Mapping, Sequence

import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.report.svg import INK, Look, dots, draw, label_log, rows_height, shortened

DASHED = (0, (2.5, 1.2))
Looks = Mapping[str, Look]


def differences(table: pd.DataFrame, looks: Looks, title: str) -> Markup:
    """The difference in accuracy of the best network from each other one, with its interval.

    Args:
        table: a row per network: network, difference, low, high.
    """
    names = [shortened(name, 28) for name in table["network"]]

    def paint(axes: Axes) -> None:
        axes.axvline(0, color=INK, linewidth=1)
        ends = table[["difference", "low", "high"]].to_numpy(float)
        dots(axes, names, ends, [looks[name] for name in table["network"]])
        axes.set_xlabel("percentage points")

    return draw(title, rows_height(len(names)), paint)


def curves(table: pd.DataFrame, metric: str, looks: Looks) -> Markup:
    """`accuracy` or `loss` by epoch: solid for validation, dashed for training.

    Of networks without a look of their own, only validation is shown.
    """

    def paint(axes: Axes) -> None:
        for name, look in _behind_first(looks):
            style = {"color": look.colour, "linewidth": look.width, "gid": f"of:{name}"}
            for split, line in (("training", DASHED), ("validation", "-")):
                rows = table[(table["model"] == name) & (table["split"] == split)]
                if split == "validation" or look.distinct:
                    axes.plot(rows["epoch"], rows[metric], linestyle=line, alpha=1 if look.distinct else 0.5, **style)
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
        _legend(axes, looks)

    return draw(f"{metric.capitalize()} by epoch, training and validation", _curves_height(looks), paint)


def shift(table: pd.DataFrame, looks: Looks) -> Markup:
    """The share of images with the same prediction under every shift of up to k pixels, by k, with intervals."""

    def paint(axes: Axes) -> None:
        for name, look in _behind_first(looks):
            rows = table[table["model"] == name]
            style = {"color": look.colour, "marker": look.marker, "linewidth": look.width, "gid": f"of:{name}"}
            if look.distinct:
                axes.fill_between(rows["shift"], rows["low"], rows["high"], color=look.colour, alpha=0.15, linewidth=0)
            axes.plot(rows["shift"], rows["consistency"], alpha=1 if look.distinct else 0.5, **style)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("largest shift in pixels")
        _legend(axes, looks, marked=True)

    return draw("Share of images with the same prediction under every shift", _curves_height(looks), paint)


def _behind_first(looks: Looks) -> list[tuple[str, Look]]:
    """The networks in the order of drawing: the best last, on top; with distinct looks, the first and widest first."""
    distinct = [(name, look) for name, look in looks.items() if look.distinct]
    return [(name, look) for name, look in looks.items() if not look.distinct] + distinct


def _legend(axes: Axes, looks: Looks, marked: bool = False) -> None:
    labels = _in_legend(looks)
    for name, look in labels:
        style = {"color": look.colour, "linewidth": look.width, "marker": look.marker if marked else ""}
        axes.plot([], [], label=name, **style)
    columns = _legend_columns([name for name, _ in labels])
    axes.figure.legend(loc="outside lower center", ncols=columns, fontsize=10, labelcolor=INK)


def _in_legend(looks: Looks) -> list[tuple[str, Look]]:
    """Labels and looks; all networks without a look of their own are one entry."""
    others = [look for look in looks.values() if not look.distinct]
    shown = [(shortened(name, 28), look) for name, look in looks.items() if look.distinct]
    return [*shown, *([(f"{len(others)} others", others[0])] if others else [])]


def _legend_columns(names: Sequence[str]) -> int:
    longest = max(map(len, names))
    return min(len(names), 3 if longest <= 9 else 2 if longest <= 18 else 1)


def _curves_height(looks: Looks) -> float:
    names = [name for name, _ in _in_legend(looks)]
    return 3.1 + 0.2 * -(-len(names) // _legend_columns(names))
