"""The evaluation as one page, results/report.html: figures, plots, failures, robustness, cost, and where it comes from.

The page needs no other file and sends no request. Equal input is equal bytes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from markupsafe import Markup

from pipeline import atomic, look_pictures, pages, report_plots

if TYPE_CHECKING:
    from pipeline.looking import Pictures

T = TypeVar("T")
MISSING = "—"
# Key of a network's figures -> its title and format. The first ones are the headline, the others under "all figures".
HEADLINE = ("accuracy", "loss", "f1", "ece", "parameters")
FIGURES = {
    "accuracy": ("test accuracy", ".2%"),
    "loss": ("test loss", ".4f"),
    "f1": ("F1 (macro)", ".4f"),
    "ece": ("calibration error", ".4f"),
    "parameters": ("parameters", ",.0f"),
    "accuracy_low": ("test accuracy, 95 % interval from", ".2%"),
    "accuracy_high": ("test accuracy, 95 % interval to", ".2%"),
    "top2": ("right class among the two most likely", ".2%"),
    "brier": ("Brier score", ".4f"),
    "precision": ("precision (macro)", ".4f"),
    "recall": ("recall (macro)", ".4f"),
    "ece_equal_mass": ("calibration error, bins of equal mass", ".4f"),
    "temperature": ("temperature", ".3f"),
    "loss_calibrated": ("test loss at that temperature", ".4f"),
    "ece_calibrated": ("calibration error at that temperature", ".4f"),
    "error_confidence_mean": ("confidence of wrong answers, mean", ".4f"),
    "error_confidence_median": ("confidence of wrong answers, median", ".4f"),
    "error_confidence_p90": ("confidence of wrong answers, 90th percentile", ".4f"),
    "error_auroc": ("wrong answers told by low confidence, area under the ROC curve", ".4f"),
    "validation_accuracy": ("validation accuracy", ".2%"),
    "validation_loss": ("validation loss", ".4f"),
    "trainable_parameters": ("trainable parameters", ",.0f"),
    "non_trainable_parameters": ("parameters that are not trainable", ",.0f"),
    "multiply_adds": ("multiply-adds of an image", ",.0f"),
}
COST = {
    "parameters": ("parameters", ",.0f"),
    "multiply_adds": ("multiply-adds of an image", ",.0f"),
    "file_bytes": ("file, bytes", ",.0f"),
    "latency_p50_ms": ("one image, median, ms", ".2f"),
    "latency_p95_ms": ("one image, 95th percentile, ms", ".2f"),
    "images_per_second": ("images a second, in batches", ",.0f"),
    "peak_memory_mb": ("peak memory, MB", ",.0f"),
}


# The parts of a report that are tables of all networks.
TABLES = (
    "comparisons",
    "replicates",
    "seed_comparisons",
    "reliability",
    "per_class",
    "cost",
    "corruption",
    "corruption_summary",
    "shift",
    "foreign",
)


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the rows, and numbers stand to the right."""

    caption: str
    head: tuple[str, ...]
    rows: list[list[str]]


@dataclass(frozen=True)
class Report:
    """What evaluation found. A part that is None or empty is left out of the page, a figure that is missing is a dash.

    figures: network -> its figures by name, all numbers, accuracy and the like as shares.
    comparisons: a, b, difference, low, high (percentage points), p, p_adjusted, sentence.
    replicates: model, seeds, mean, deviation (of accuracy, as shares); seed_comparisons: as comparisons, over seeds.
    reliability: model, lower, upper, count, confidence, accuracy.
    per_class: model, class, precision, recall, f1, support.
    confusion: network -> actual, then a column of counts for each predicted class.
    cost: model and the columns of COST.
    corruption: model, corruption, error, relative (to the reference network); corruption_summary: model, clean_error,
        mean_error, mce, worst.
    shift: model, shift (pixels), consistency, low, high.
    foreign: model, against, auroc.
    curves: model, split (training or validation), epoch, loss, accuracy.
    provenance: what it is about -> a value, or a mapping of names to values.
    """

    dataset: str
    figures: Mapping[str, Mapping[str, Any]] | None = None
    comparisons: pd.DataFrame | None = None
    replicates: pd.DataFrame | None = None
    seed_comparisons: pd.DataFrame | None = None
    reliability: pd.DataFrame | None = None
    per_class: pd.DataFrame | None = None
    confusion: Mapping[str, pd.DataFrame] | None = None
    cost: pd.DataFrame | None = None
    corruption: pd.DataFrame | None = None
    corruption_summary: pd.DataFrame | None = None
    shift: pd.DataFrame | None = None
    foreign: pd.DataFrame | None = None
    curves: pd.DataFrame | None = None
    pictures: "Pictures | None" = None
    provenance: Mapping[str, Any] | None = None

    def write(self, target: Path) -> None:
        atomic.write_text(target, self.page())

    def page(self) -> str:
        return pages.render(
            "report.html",
            dataset=self.dataset,
            results=_results(self.figures) if self.figures else None,
            comparisons=_made(partial(_comparisons, over="images"), self.comparisons),
            replicates=_made(_replicates, self.replicates),
            seed_comparisons=_made(partial(_comparisons, over="seeds"), self.seed_comparisons),
            curves=_made(_curves, self.curves),
            calibration=_made(_calibration, self.reliability),
            classes=_made(_classes, self.per_class),
            confusion=[
                (model, report_plots.confusion(table, model)) for model, table in (self.confusion or {}).items()
            ],
            looks=look_pictures.looks(self.pictures) if self.pictures else [],
            disagreements=look_pictures.disagreements(self.pictures) if self.pictures else [],
            corruption=_made(_corruption, self.corruption),
            corruption_summary=_made(_corruption_summary, self.corruption_summary),
            shift=_made(_shift, self.shift),
            foreign=_made(_foreign, self.foreign),
            cost=_made(_cost, self.cost),
            provenance=_provenance(self.provenance or {}),
        )


def _made(make: Callable[[pd.DataFrame], T], table: pd.DataFrame | None) -> T | None:
    return None if table is None or table.empty else make(table)


def _results(figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    known = {key for row in figures.values() for key, value in row.items() if _is_number(value)}
    headline = [key for key in HEADLINE if key in known]
    rows = [[name, *(_figure(key, row) for key in headline)] for name, row in figures.items()]
    head = ["network", *(FIGURES[key][0] for key in headline)]
    if {"accuracy", "accuracy_low", "accuracy_high"} <= known:
        head.insert(2, "95% interval")
        for cells, row in zip(rows, figures.values(), strict=True):
            cells.insert(2, _interval(row.get("accuracy_low"), row.get("accuracy_high"), ".2%"))
    every = [key for key in FIGURES if key in known] + sorted(known - set(FIGURES))
    details = [
        [FIGURES.get(key, (key.replace("_", " "),))[0], *(_figure(key, row) for row in figures.values())]
        for key in every
    ]
    return {
        "table": Table("Networks", tuple(head), rows),
        "details": Table("All figures", ("figure", *figures), details),
        "plot": report_plots.accuracy(figures) if "accuracy" in known else None,
    }


def _comparisons(table: pd.DataFrame, over: str) -> dict[str, Any]:
    rows = [
        [
            f"{row['a']}, {row['b']}",
            _text(row["difference"], "+.2f"),
            _interval(row["low"], row["high"], "+.2f"),
            _text(row["p"], ".4f"),
            _text(row["p_adjusted"], ".4f"),
        ]
        for row in table.to_dict("records")
    ]
    head = ("networks", "difference, pp", "interval, pp", "p", "p, corrected")
    return {
        "sentences": table["sentence"].tolist(),
        "plot": report_plots.differences(table, f"Differences of accuracy over {over}, with intervals"),
        "table": Table(f"Pairs of networks, over {over}", head, rows),
    }


def _replicates(table: pd.DataFrame) -> Table:
    rows = [
        [row["model"], _text(row["seeds"], ",.0f"), _text(row["mean"], ".2%"), _text(100 * row["deviation"], ".2f")]
        for row in table.to_dict("records")
    ]
    return Table("Accuracy over seeds", ("network", "seeds", "mean", "standard deviation, pp"), rows)


def _curves(table: pd.DataFrame) -> list[Markup]:
    return [report_plots.curves(table, figure) for figure in ("accuracy", "loss")]


def _calibration(table: pd.DataFrame) -> list[tuple[str, Markup]]:
    return [(model, report_plots.reliability(table, model)) for model in dict.fromkeys(table["model"])]


def _classes(table: pd.DataFrame) -> dict[str, Table]:
    models = list(dict.fromkeys(table["model"]))
    support = table.drop_duplicates("class").set_index("class")["support"]
    wide = table.pivot(index="class", columns="model", values="f1")
    by_class = [
        [str(name), f"{support[name]:,}", *(_text(wide.loc[name, model], ".4f") for model in models)]
        for name in support.index
    ]
    details = [
        [f"{row['model']}, {row['class']}", _text(row["precision"], ".4f"), _text(row["recall"], ".4f")]
        for row in table.to_dict("records")
    ]
    return {
        "table": Table("F1 by class", ("class", "images", *models), by_class),
        "details": Table("Precision and recall by class", ("network, class", "precision", "recall"), details),
    }


def _corruption(table: pd.DataFrame) -> dict[str, Any]:
    rows = [
        [f"{row['model']}, {_words(row['corruption'])}", _text(row["error"], ".2%"), _text(row["relative"], ".2f")]
        for row in table.to_dict("records")
    ]
    return {
        "plot": report_plots.corruptions(table),
        "table": Table("Errors by corruption", ("network, corruption", "error", "relative"), rows),
    }


def _corruption_summary(table: pd.DataFrame) -> Table:
    rows = [
        [
            row["model"],
            _text(row["clean_error"], ".2%"),
            _text(row["mean_error"], ".2%"),
            _text(row["mce"], ".2f"),
            _words(row["worst"]),
        ]
        for row in table.to_dict("records")
    ]
    head = ("network", "error, clean", "error, mean", "relative, mean", "worst under")
    return Table("All corruptions together", head, rows)


def _shift(table: pd.DataFrame) -> dict[str, Any]:
    models = list(dict.fromkeys(table["model"]))
    rows = [
        [
            f"{pixels} pixel{'s' if pixels != 1 else ''}",
            *(
                f"{_text(row['consistency'], '.1%')} ({_interval(row['low'], row['high'], '.1%')})"
                for row in group.set_index("model").reindex(models).to_dict("records")
            ),
        ]
        for pixels, group in table.groupby("shift")
    ]
    return {
        "plot": report_plots.shift(table),
        "table": Table("Consistency by shift, with 95% interval", ("shift of up to", *models), rows),
    }


def _foreign(table: pd.DataFrame) -> Table:
    models, inputs = (list(dict.fromkeys(table[column])) for column in ("model", "against"))
    wide = table.pivot(index="against", columns="model", values="auroc")
    rows = [[_words(name), *(_text(wide.loc[name, model], ".3f") for model in models)] for name in inputs]
    return Table("Area under the ROC curve", ("inputs", *models), rows)


def _cost(table: pd.DataFrame) -> Table:
    columns = [column for column in COST if column in table]
    rows = [
        [row["model"], *(_text(row[column], COST[column][1]) for column in columns)] for row in table.to_dict("records")
    ]
    return Table("Cost", ("network", *(COST[column][0] for column in columns)), rows)


def _provenance(about: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What -> pairs of name and value; a single value has no name."""
    return [
        (
            what,
            [(str(name), str(each)) for name, each in (value if isinstance(value, Mapping) else {"": value}).items()],
        )
        for what, value in about.items()
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _figure(key: str, row: Mapping[str, Any]) -> str:
    return _text(row.get(key), FIGURES[key][1] if key in FIGURES else ".4g")


def _text(value: Any, form: str) -> str:
    return format(value, form) if _is_number(value) and math.isfinite(value) else MISSING


def _interval(low: Any, high: Any, form: str) -> str:
    ends = [_text(low, form), _text(high, form)]
    return MISSING if MISSING in ends else " to ".join(ends)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
